package pgsync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/internal/node"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/source/poll"
	"github.com/pgwaltz/pgwaltz/wal"
)

// hereName is what the destination is called in the audit log.
const hereName = "destination"

// grantError is a right that the destination's role lacks.
type grantError struct{ what, hint string }

func (e *grantError) Error() string { return e.what }
func (e *grantError) Hint() string  { return e.hint }
func (e *grantError) ExitCode() int { return 5 }

// schemaLock lets jobs that begin at the same time make what they need one after the other.
const schemaLock = `select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('pgwaltz schema', 0))`

// prepareSchema makes the tables of schema pgwaltz where they are missing.
func prepareSchema(ctx context.Context, conn *pgx.Conn, role *pg.Role) error {
	var namespace, tables bool
	err := conn.QueryRow(ctx, `select pg_catalog.to_regnamespace('pgwaltz') is not null,
  pg_catalog.to_regclass('pgwaltz.poll_stage') is not null and pg_catalog.to_regclass('pgwaltz.lead') is not null`).Scan(&namespace, &tables)
	if err != nil {
		return fmt.Errorf("look for schema pgwaltz: %w", err)
	}
	if tables {
		return nil
	}
	list := append(preflight.SchemaSQL(), poll.Schema()...)
	if namespace {
		list = list[1:] // making it again needs rights on the database
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, sql := range append([]string{schemaLock}, list...) {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
	if pg.Code(err) == "42501" {
		return &grantError{fmt.Sprintf("role %q may not make schema pgwaltz in the destination", role.Name),
			"as an admin, in the destination: create schema if not exists pgwaltz authorization " + pg.Quote(role.Name)}
	}
	if err != nil {
		return fmt.Errorf("make schema pgwaltz: %w", err)
	}
	return nil
}

// noRegion refuses a destination that is a region of pgwaltz: its sidecar knows nothing of what another program writes into schema pgwaltz.
func noRegion(ctx context.Context, conn *pgx.Conn) error {
	var owner string
	err := conn.QueryRow(ctx, `select pg_catalog.pg_get_userbyid(nspowner)::text from pg_catalog.pg_namespace where nspname = 'pgwaltz'
  and exists (select from pg_catalog.pg_class c where c.relnamespace = pg_namespace.oid and c.relname = 'node')`).Scan(&owner)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for schema pgwaltz: %w", err)
	}
	const remedy = "take the line of pgsync out of the crontab"
	n, err := node.Load(ctx, conn)
	switch {
	case pg.Code(err) == "42501":
		return &ConfigError{"the destination", fmt.Sprintf("has a schema pgwaltz that role %q does not share", owner), "connect as that role, or, if a sidecar is at work there: " + remedy}
	case err != nil || n.Region == "":
		return err
	}
	return &ConfigError{"the destination", fmt.Sprintf("is region %q of cluster %q: its sidecar replicates it", n.Region, n.Cluster), remedy}
}

// prepareTable sees to it that rows of a table may be written, and are stored as they came where triggers cannot be switched off.
// A *grantError is about this table alone.
func prepareTable(ctx context.Context, conn *pgx.Conn, role *pg.Role, w Table) error {
	t, err := pg.LoadTable(ctx, conn, w.Name.Schema, w.Name.Name)
	if err != nil {
		return err
	}
	need := []string{"SELECT", "INSERT", "UPDATE"}
	if w.Delete {
		need = append(need, "DELETE")
	}
	missing, err := pg.TablePrivileges(ctx, conn, role.Name, t.OID, need)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		list := strings.ToLower(strings.Join(missing, ", "))
		return &grantError{fmt.Sprintf("role %q may not %s in the destination", role.Name, list), fmt.Sprintf("in the destination: grant %s on table %s to %s", list, t.SQL(), pg.Quote(role.Name))}
	}
	if role.SetReplicationRole || !t.HasRowTriggers() || t.Restorer() != nil && t.Restorer()[0] == role.Name {
		return nil
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, sql := range append([]string{schemaLock}, preflight.RestorerSQL(t, role.Name)...) {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
	if pg.Code(err) == "42501" {
		return &grantError{fmt.Sprintf("role %q may not keep its triggers from changing rows as they are copied", role.Name),
			"as a superuser, in the destination: grant set on parameter session_replication_role to " + pg.Quote(role.Name) + "; or: alter table " + t.SQL() + " owner to " + pg.Quote(role.Name)}
	}
	if err != nil {
		return fmt.Errorf("make triggers on %s: %w", w.Name, err)
	}
	return nil
}

// originOf is what a job is called in the destination: as replication origin, in the audit log, with its checkpoint.
func originOf(job string) string { return "pgsync_" + job }

// prepareOrigin makes the replication origin where the role may, and returns its name; "" where the role may not use one. Then transactions
// are marked by a message, which pgwaltz alone knows.
func prepareOrigin(ctx context.Context, conn *pgx.Conn, role *pg.Role, name string) (string, error) {
	if !role.Origins {
		return "", nil
	}
	var there bool
	if err := conn.QueryRow(ctx, `select exists (select from pg_catalog.pg_replication_origin where roname = $1)`, name).Scan(&there); err != nil {
		return "", fmt.Errorf("read replication origins: %w", err)
	}
	switch {
	case there:
		return name, nil
	case !role.CreateOrigin:
		return "", nil
	}
	// Another database of the server may make it at the same time: it belongs to all of them.
	if _, err := conn.Exec(ctx, `select pg_catalog.pg_replication_origin_create($1)`, name); err != nil && pg.Code(err) != "23505" {
		return "", fmt.Errorf("make the replication origin: %w", err)
	}
	return name, nil
}

// sink writes changes into the destination. One goroutine uses it.
type sink struct {
	a     *apply.Applier
	retry *apply.Retrier
	waits func() bool // something is parked
	epoch wal.Epoch
	batch wal.LSN // of the open transaction in parts; 0 for none
	part  uint32
	tally audit.Tally
}

// openSink connects. job names the job in the destination's checkpoint and audit log; origin is the replication origin that its sessions
// carry, "" for none.
func openSink(ctx context.Context, dsn, job, origin string, source wal.Epoch, role *pg.Role, conn *pgx.Conn, log *slog.Logger) (*sink, error) {
	index, waiting := tombstone.NewIndex(0), parked.NewIndex()
	ledgers, err := tombstone.ReadLedgers(ctx, conn)
	if err != nil {
		return nil, err
	}
	index.SetLedgers(ledgers)
	if err := tombstone.Load(ctx, conn, index); err != nil {
		return nil, err
	}
	if err := waiting.Load(ctx, conn); err != nil {
		return nil, err
	}
	s := &sink{epoch: source, tally: audit.Tally{ByType: map[string]uint64{}}}
	cfg := apply.Config{
		Region: hereName, Origin: job, Replica: role.SetReplicationRole,
		Policy: apply.PolicyFunc(func(wal.RelationName) apply.TablePolicy {
			return apply.TablePolicy{Version: poll.VersionColumn, UpdatedAt: poll.UpdatedAtColumn}
		}),
		Index: index, Parked: waiting, LockWait: lockWait, LockTimeout: 10 * time.Second, Giants: apply.NewTurns(), Batches: apply.NewTurns(), Suspects: &apply.Suspects{}, Log: log,
		Connect: func(ctx context.Context) (*pgx.Conn, error) { return connectApply(ctx, dsn, role, origin) },
	}
	if origin == "" {
		cfg.Marker = []byte(job)
	}
	s.a = apply.New(cfg)
	count := func(t audit.Tally) {
		for k, n := range t.ByType {
			s.tally.ByType[k] += n
		}
	}
	s.a.OnAudit(count)
	cfg.Marker = []byte(job) // the retrier wants one in any case
	s.retry = apply.NewRetrier(cfg, count)
	s.waits = func() bool { return waiting.Count(job) > 0 }
	cp, err := s.a.Open(ctx)
	if err != nil {
		return nil, err
	}
	if cp.Epoch.SystemID != 0 && !cp.Epoch.SameWAL(source) {
		s.epoch = cp.Epoch // a number of this origin's own counts the batches, whatever server it reads
	}
	return s, nil
}

// connectApply opens a session that writes rows.
func connectApply(ctx context.Context, dsn string, role *pg.Role, origin string) (*pgx.Conn, error) {
	conn, err := pg.Connect(ctx, dsn, pg.Options{Region: "pgsync", Role: "apply", LockTimeout: lockWait})
	if err != nil {
		return nil, err
	}
	// Rows are found by their keys, however few the statistics take a table to have.
	sql := `select pg_catalog.set_config('pgwaltz.apply', 'on', false),
  pg_catalog.set_config('enable_seqscan', 'off', false), pg_catalog.set_config('enable_hashjoin', 'off', false), pg_catalog.set_config('enable_mergejoin', 'off', false)`
	if role.SetReplicationRole {
		sql += `, pg_catalog.set_config('session_replication_role', 'replica', false)`
	}
	_, err = conn.Exec(ctx, sql)
	for began := time.Now(); err == nil && origin != ""; err = pause.For(ctx, 100*time.Millisecond) {
		// It belongs to one session at a time, and that of a worker that was killed may end later.
		_, err = conn.Exec(ctx, `select pg_catalog.pg_replication_origin_session_setup($1)`, origin)
		if pg.Code(err) != "55006" || time.Since(began) > originWait {
			break
		}
	}
	if err != nil {
		conn.Close(ctx)
		return nil, fmt.Errorf("prepare apply session: %w", err)
	}
	return conn, nil
}

// originWait bounds the wait for a replication origin that another session still has.
const originWait = 20 * time.Second

// lockWait bounds one wait for a lock, well below the server's usual deadlock_timeout of a second.
const lockWait = 250 * time.Millisecond

func (s *sink) close() {
	s.a.Close()
	s.retry.Close()
}

// again tries once more what is parked. Nothing is applied behind it.
func (s *sink) again(ctx context.Context) error {
	if !s.waits() {
		return nil
	}
	s.a.Close() // the retrier needs the replication origin
	if err := s.retry.Turn(ctx); err != nil {
		return fmt.Errorf("try parked rows again: %w", err)
	}
	return nil
}

// apply writes changes in one transaction of the destination.
func (s *sink) apply(ctx context.Context, changes []wal.Change, at wal.Micros) error {
	if len(changes) == 0 {
		return nil
	}
	n := s.a.Checkpoint().EndLSN + 1
	return s.write(ctx, &wal.Transaction{CommitLSN: n, EndLSN: n, CommitTime: at, Changes: changes})
}

// applyPart writes a part of the transaction that ends with the last part: then everything is there, before that nothing.
func (s *sink) applyPart(ctx context.Context, changes []wal.Change, at wal.Micros, last bool) error {
	if s.batch == 0 {
		s.batch, s.part = s.a.Checkpoint().EndLSN+1, 0
	}
	number := s.batch
	tx := &wal.Transaction{CommitLSN: number, CommitTime: at, Changes: changes, Part: s.part, More: !last}
	s.part++
	if last {
		tx.EndLSN, s.batch = number, 0
	}
	if err := s.write(ctx, tx); err != nil {
		s.batch = 0
		return err
	}
	if last && s.a.Checkpoint().EndLSN < number {
		return apply.ErrStartAgain // it was read to its end for the sake of something else
	}
	return nil
}

func (s *sink) write(ctx context.Context, tx *wal.Transaction) error {
	next := s.a.Checkpoint()
	next.Epoch, next.Incarnation, next.FrameNo = s.epoch, max(1, next.Incarnation), next.FrameNo+1
	next.CommitTime = tx.CommitTime
	if !tx.More {
		next.EndLSN, next.Seen, next.Mark = tx.EndLSN, tx.EndLSN, wal.MarkOf(tx)
	}
	return s.a.Apply(ctx, []apply.Unit{{Transactions: []*wal.Transaction{tx}, Kind: conflict.Live, Next: next}})
}
