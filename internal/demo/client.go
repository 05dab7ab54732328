package demo

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// client is the account service while it does one thing in one region. Each method is one
// transaction and notes in the ledger what became of it.
type client struct {
	w    *workload
	r    *region
	side int
	rng  *rand.Rand
}

// The write id of a user row stands in groups, the id of the write that it replaced in
// permissions; on the right hand of SET, groups is still the old one.
const (
	insertUserSQL = `INSERT INTO users (uuid, username, password, email, groups) VALUES ($1, $2, $3, $4, jsonb_build_array($5::text))`
	updateUserSQL = `UPDATE users SET groups = jsonb_build_array($2::text), permissions = groups, level = $3, email_verified_at = now(), updated_at = now()
		WHERE uuid = $1 RETURNING permissions->>0`
	deleteUserSQL = `DELETE FROM users WHERE uuid = $1 RETURNING groups->>0`
	identitySQL   = `INSERT INTO identities (provider, external_id, user_uuid) VALUES ('oidc', $1, $2)`
	logInSQL      = `INSERT INTO sessions (token, expires_at, user_uuid) VALUES ($1, now() + interval '1 day', $2)
		ON CONFLICT (token) DO UPDATE SET expires_at = EXCLUDED.expires_at, updated_at = now()`
	logOutSQL    = `DELETE FROM sessions WHERE token = $1`
	subscribeSQL = `INSERT INTO subscriptions (user_uuid, provider, external_id, plan_id, status, meta) VALUES ($1, 'paypal', $2, $3, 'active', '{"source": "web"}')
		ON CONFLICT (user_uuid, external_id) DO UPDATE SET plan_id = EXCLUDED.plan_id, status = 'active', cancelled_at = NULL, updated_at = now()`
	cancelSQL     = `UPDATE subscriptions SET status = 'cancelled', cancelled_at = now(), updated_at = now() WHERE user_uuid = $1 AND external_id = $2`
	changePlanSQL = `UPDATE subscriptions SET plan_id = $3, updated_at = now() WHERE user_uuid = $1 AND external_id = $2`
	matrixSQL     = `WITH gone AS (DELETE FROM admin_settings RETURNING version)
		SELECT coalesce(max(version), 0) + 1 FROM gone`
	matrixRowsSQL = `INSERT INTO admin_settings (module_key, role, enabled, version)
		SELECT 'module' || m, r, (m + $1) % 2 = 0, $1 FROM generate_series(1, 4) AS m, unnest(ARRAY['root', 'operator', 'user']) AS r`
)

func (c *client) signUp(ctx context.Context) {
	p := person{key: newUUID(c.rng), fate: fate(c.rng.IntN(3))}
	if !c.insertUser(ctx, p.key, mayHaveChildren(p)) {
		return
	}
	p.createdAt = time.Now()
	c.r.people.addUser(p)
}

// insertUser makes a user, with an identity where one is wanted.
func (c *client) insertUser(ctx context.Context, key string, identity bool) bool {
	w := write{id: c.w.ledger.id(c.r.name), key: key, region: c.r.name}
	var b pgx.Batch // one implicit transaction
	b.Queue(insertUserSQL, key, w.id, "$2a$10$"+randomHex(c.rng, 22), w.id+"@"+c.r.name+".example", w.id)
	if identity {
		b.Queue(identitySQL, w.id, key)
	}
	err := c.r.pool.SendBatch(ctx, &b).Close()
	return c.done(w, 1, b.Len(), err)
}

func (c *client) updateProfile(ctx context.Context) {
	if u, ok := c.r.people.user(c.rng, time.Now(), anyone); ok {
		c.updateUser(ctx, u.key)
	}
}

func (c *client) updateUser(ctx context.Context, key string) {
	w := write{id: c.w.ledger.id(c.r.name), key: key, region: c.r.name}
	n, err := c.returning(ctx, &w.prev, updateUserSQL, key, w.id, c.rng.IntN(100))
	c.done(w, n, n, err)
}

func (c *client) deleteUser(ctx context.Context) {
	if u, ok := c.r.people.take(c.rng, time.Now(), mortal); ok {
		c.removeUser(ctx, u.key)
	}
}

func (c *client) removeUser(ctx context.Context, key string) {
	w := write{id: c.w.ledger.id(c.r.name), key: key, region: c.r.name, deletes: true}
	n, err := c.returning(ctx, &w.prev, deleteUserSQL, key)
	c.done(w, n, n, err)
}

// returning runs a statement that returns the replaced write's id, and counts the rows.
func (c *client) returning(ctx context.Context, prev *string, sql string, args ...any) (int, error) {
	err := c.r.pool.QueryRow(ctx, sql, args...).Scan(prev)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	return 1, err
}

// done notes the outcome of a write of a user row; one that hit no row is none.
func (c *client) done(w write, rows, statements int, err error) bool {
	w.outcome = outcomeOf(err)
	if err != nil {
		c.w.refused(codeOf(err))
	} else {
		c.w.wrote(c.side, statements)
	}
	if err != nil || rows > 0 {
		c.w.ledger.note(w)
	}
	return err == nil && rows > 0
}

func (c *client) logIn(ctx context.Context) {
	if l, ok := c.r.people.login(c.rng, false); ok && c.rng.IntN(2) == 0 {
		c.exec(ctx, logInSQL, l.token, l.user)
		return
	}
	u, ok := c.r.people.user(c.rng, time.Now(), mayHaveChildren)
	if !ok {
		return
	}
	l := login{token: c.r.name + "-" + randomHex(c.rng, 32), user: u.key}
	if c.exec(ctx, logInSQL, l.token, l.user) {
		c.r.people.addLogin(l)
	}
}

func (c *client) logOut(ctx context.Context) {
	if l, ok := c.r.people.login(c.rng, true); ok {
		c.exec(ctx, logOutSQL, l.token)
	}
}

func (c *client) subscribe(ctx context.Context) {
	if s, ok := c.r.people.subscription(c.rng); ok && c.rng.IntN(2) == 0 {
		c.exec(ctx, subscribeSQL, s.user, s.token, plan(c.rng))
		return
	}
	u, ok := c.r.people.user(c.rng, time.Now(), mayHaveChildren)
	if !ok {
		return
	}
	s := login{token: c.r.name + "-" + randomHex(c.rng, 12), user: u.key, lasting: u.fate == lasting}
	if c.exec(ctx, subscribeSQL, s.user, s.token, plan(c.rng)) {
		s.createdAt = time.Now()
		c.r.people.addSubscription(s)
	}
}

func (c *client) cancel(ctx context.Context) {
	if s, ok := c.r.people.subscription(c.rng); ok {
		c.exec(ctx, cancelSQL, s.user, s.token)
	}
}

func (c *client) changePlan(ctx context.Context, s login) {
	c.exec(ctx, changePlanSQL, s.user, s.token, plan(c.rng))
}

// replaceMatrix deletes every row and inserts the whole matrix, as the service does.
func (c *client) replaceMatrix(ctx context.Context) {
	err := pgx.BeginFunc(ctx, c.r.pool, func(tx pgx.Tx) error {
		// Two at once would each miss the rows of the other.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(20250101)"); err != nil {
			return err
		}
		var version int64
		if err := tx.QueryRow(ctx, matrixSQL).Scan(&version); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, matrixRowsSQL, version)
		return err
	})
	if err != nil {
		c.w.refused(codeOf(err))
		return
	}
	c.w.wrote(c.side, 2)
}

// exec runs a statement on a table that the ledger does not follow.
func (c *client) exec(ctx context.Context, sql string, args ...any) bool {
	if _, err := c.r.pool.Exec(ctx, sql, args...); err != nil {
		c.w.refused(codeOf(err))
		return false
	}
	c.w.wrote(c.side, 1)
	return true
}

func plan(rng *rand.Rand) string { return fmt.Sprintf("plan-%d", rng.IntN(1000)) }

// outcomeOf: an answer with an SQLSTATE is a no; any other error leaves it open.
func outcomeOf(err error) outcome {
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return acknowledged
	case errors.As(err, &pg):
		return refused
	}
	return unknown
}

func codeOf(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return "connection"
}

func randomHex(rng *rand.Rand, n int) string {
	b := make([]byte, (n+1)/2)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return hex.EncodeToString(b)[:n]
}

// newUUID makes a version 4 UUID from the seeded source, so that a seed names its keys.
func newUUID(rng *rand.Rand) string {
	h := []byte(randomHex(rng, 32))
	h[12], h[16] = '4', "89ab"[rng.IntN(4)]
	return fmt.Sprintf("%s-%s-%s-%s-%s", h[:8], h[8:12], h[12:16], h[16:20], h[20:])
}
