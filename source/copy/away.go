package copy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A table without stamp columns whose changes were left out has rows of which nothing says when they were written: they would count as old as
// those that they have replaced, which the other regions still have. So before it is copied, it is looked through for such rows, and they get
// entries as the decoding would have made them, as far as that can be known (tombstone.Away).
//
// That is done while changes are stamped, and applied. What is found is announced (Index.Blind): who stamps a later change of such a row waits until
// its entry is written, and the entry lies behind all that is stamped. Rows are looked at again behind that. No lock of a
// row is taken; some pages are one transaction. Done again it changes nothing, so it begins anew after a crash.

// awayPages is how many pages of a table are looked through in one transaction; awayTries how often they are tried again, awayRest apart.
const (
	awayPages = 64
	awayTries = 300
	awayRest  = 100 * time.Millisecond
)

// awayWait is what a table waits for: that all transactions below next are over, and then, that everything below a position is merged.
type awayWait struct {
	next  uint64
	until tombstone.Horizon // rows of transactions before it are looked at; none while its XID is 0
	all   []absence         // what was noted before that: what is noted later may be of rows behind it
	below wal.LSN
	since time.Time
}

// awayTold is after how long the log and the status say that a copy waits, and AwaitsLook is for what: no failure.
const (
	awayTold   = 10 * time.Second
	AwaitsLook = "changes of it were left out; the copy waits until all transactions are over that were open when it was asked for, in any database of the server, and all of them is merged"
)

// family is a table with what holds its rows.
type family struct {
	oid, root uint32           // root is oid, or the table that it is a partition of
	name      wal.RelationName // of root
	leaves    []leaf
}

func (f *family) relids() []uint32 {
	all := []uint32{f.oid, f.root}
	for _, l := range f.leaves {
		all = append(all, l.oid)
	}
	return all
}

// lookedThrough reports whether the rows of a table have their times. Where changes of it were left out it waits until all own changes that were
// read of it are merged, and looks it through. Other tables are copied meanwhile.
func (c *Copier) lookedThrough(ctx context.Context, j *Job) (bool, error) {
	if c.cfg.Merged == nil {
		return true, nil
	}
	w := c.aways[j.Table]
	var f family
	var all []absence
	err := c.cfg.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		if f, err = familyOf(ctx, conn, j.Table); err != nil || f.oid == 0 {
			return err
		}
		if all, err = loadAbsent(ctx, conn, f.relids()); err != nil || len(all) == 0 {
			return err
		}
		if is, err := Published(ctx, conn, c.cfg.Publication, f.name); err != nil || !is {
			all = nil // its copy fails for that, and changes are left out still
			return err
		}
		if w == nil {
			w = &awayWait{since: time.Now()}
			if w.next, err = tombstone.ReadNext(ctx, conn); err != nil {
				return err
			}
			c.aways[j.Table] = w
		}
		if w.until.XID != 0 {
			return nil
		}
		h, below, err := tombstone.ReadHorizon(ctx, conn)
		if err == nil && h.XID >= w.next {
			w.until, w.below, w.all = h, below, all
		}
		return err
	})
	if err != nil {
		return false, err
	}
	if len(all) == 0 {
		delete(c.aways, j.Table)
		return true, nil
	}
	if w.until.XID == 0 || !c.cfg.Merged(w.below) {
		if j.Reason == AwaitsLook || time.Since(w.since) <= awayTold {
			return false, nil
		}
		c.cfg.Log.Info("a copy waits", "relation", j.Table.String(), "reason", AwaitsLook)
		return false, c.cfg.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return saveFailed(ctx, conn, j, AwaitsLook) })
	}
	delete(c.aways, j.Table)
	if err := c.away(ctx, j, &f, w.all, w.until); err != nil {
		c.hangUp() // it may be within a transaction
		return false, fmt.Errorf("look for rows of %s whose changes were left out: %w", j.Table, err)
	}
	// What was noted since is looked for in another turn.
	return !slices.ContainsFunc(all, func(a absence) bool { return !slices.ContainsFunc(w.all, a.same) }), nil
}

// familyOf finds a table; the zero value where there is none.
func familyOf(ctx context.Context, conn *pgx.Conn, t wal.RelationName) (f family, err error) {
	err = conn.QueryRow(ctx, `select c.oid, r.oid, rn.nspname::text, r.relname::text from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_class r on r.oid = coalesce(pg_catalog.pg_partition_root(c.oid)::oid, c.oid) join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p')`, t.Schema, t.Name).Scan(&f.oid, &f.root, &f.name.Schema, &f.name.Name)
	if errors.Is(err, pgx.ErrNoRows) {
		return family{}, nil
	}
	if err != nil {
		return f, fmt.Errorf("look for table %s: %w", t, err)
	}
	f.leaves, err = leavesOf(ctx, conn, f.oid)
	return f, err
}

// away looks a table through, and forgets that changes of it were left out.
func (c *Copier) away(ctx context.Context, j *Job, f *family, all []absence, until tombstone.Horizon) error {
	conn, err := c.session(ctx)
	if err != nil {
		return err
	}
	noted := 0
	p, err := newPlan(ctx, conn, j.Table, c.cfg.Stamps, c.cfg.Tracked)
	switch {
	case errors.Is(err, errNoKey) || err == nil && (p == nil || !p.cols.Stampless()):
		// Its rows have no key to be known by, or carry their stamps.
	case err == nil:
		noted, err = c.awayTable(ctx, conn, p, f, all, until)
	}
	if err != nil {
		return err // nor could it be copied; it is looked through when that is mended
	}
	// The table of a partition is looked through by itself.
	own := make([]absence, 0, len(all))
	for _, a := range all {
		if a.relid != f.root || f.root == f.oid {
			own = append(own, a)
		}
	}
	err = c.cfg.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if err := endAbsent(ctx, tx, own, until); err != nil {
				return err
			}
			return pruneAbsent(ctx, tx)
		})
	})
	if err == nil {
		c.cfg.Log.Info("rows whose changes were left out have their times now", "relation", j.Table.String(), "rows", noted)
	}
	return err
}

// awayTable looks the partitions of a table through, or the table itself.
func (c *Copier) awayTable(ctx context.Context, conn *pgx.Conn, p *plan, f *family, all []absence, until tombstone.Horizon) (noted int, err error) {
	if err := p.settle(ctx, c.cfg.Index, c.cfg.Named); err != nil {
		return 0, err
	}
	for _, l := range f.leaves {
		since, known, any := oldest(all, f.oid, f.root, l.oid)
		if !any {
			continue
		}
		c.cfg.Log.Info("rows whose changes were left out are looked for", "relation", leafName(p, l), "since_known", known)
		g := tombstone.Gap{Tracked: c.cfg.Tracked.On, Region: c.cfg.Region, Away: &tombstone.Away{Since: since, Known: known, Open: tombstone.ParseSnapshot(since.Snap), Holder: c.holder()}}
		condition := until.BeforeSQL() + " and " + since.BehindSQL()
		if !known {
			condition = until.BeforeSQL()
		}
		n, err := c.awayLeaf(ctx, conn, p, l, &g, lookSQL(p, l, &g, condition))
		if noted += n; err != nil {
			return noted, err
		}
	}
	return noted, nil
}

// leafName names a partition, or the table.
func leafName(p *plan, l leaf) string {
	if p.oid == l.oid {
		return p.rel.String()
	}
	return l.name
}

// holder names who writes entries here, in the index.
func (c *Copier) holder() string { return c.cfg.Region + "/away" }

// awayLeaf looks one table, or one partition, through.
func (c *Copier) awayLeaf(ctx context.Context, conn *pgx.Conn, p *plan, l leaf, g *tombstone.Gap, sql string) (noted int, err error) {
	at := unreadAt{relid: l.oid}
	for tries := 0; !at.done; {
		n, next, err := c.awayPages(ctx, conn, p, l, g, sql, at)
		if code := pg.Code(err); (errors.Is(err, tombstone.ErrRaced) || code == "55P03" || code == "40P01") && tries < awayTries && !conn.IsClosed() {
			tries++
			if err := pause.For(ctx, awayRest); err != nil {
				return noted, err
			}
			continue
		}
		if err != nil {
			return noted, err
		}
		noted, at, tries = noted+n, next, 0
		if err := failpoint.Hit("away_pages"); err != nil {
			return noted, err
		}
	}
	return noted, nil
}

// awayPages looks some pages through, in one transaction, and returns where it is then. Errors: tombstone.ErrRaced.
func (c *Copier) awayPages(ctx context.Context, conn *pgx.Conn, p *plan, l leaf, g *tombstone.Gap, sql string, at unreadAt) (noted int, _ unreadAt, err error) {
	if err := c.findOut(ctx); err != nil {
		return 0, at, err
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return 0, at, fmt.Errorf("begin: %w", err)
	}
	x, holder, pid, ending := c.cfg.Index, c.holder(), conn.PgConn().PID(), false
	defer func() {
		if err == nil {
			x.Settle(holder, true)
			return
		}
		if ending && conn.IsClosed() {
			x.Lose(holder, pid) // nobody knows whether it was committed
			return
		}
		tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // the session is closed where that fails
		x.Settle(holder, false)
	}()
	// Changes that are stamped from an entry may be published before this returns: it is on disk then.
	if _, err := tx.Exec(ctx, "set local synchronous_commit = local; set local lock_timeout = '500ms'"); err != nil {
		return 0, at, err
	}
	filenode, blocks, err := measure(ctx, tx, l)
	if err != nil {
		return 0, at, err
	}
	if at.filenode != filenode {
		at.filenode, at.block = filenode, 0
	}
	from, end := at.block, min(at.block+awayPages, blocks)
	if from < end {
		if noted, err = c.awayRows(ctx, conn, tx, p, g, sql, from, end); err != nil {
			return 0, at, err
		}
	}
	at.block, at.done, ending = end, end >= blocks, true
	if err := tx.Commit(ctx); err != nil {
		return 0, at, fmt.Errorf("commit: %w", err)
	}
	return noted, at, nil
}

// awayRows notes the rows of some pages.
func (c *Copier) awayRows(ctx context.Context, conn *pgx.Conn, tx pgx.Tx, p *plan, g *tombstone.Gap, sql string, from, to int64) (int, error) {
	rows, err := lookAt(ctx, conn, p, sql, from, to)
	if err != nil {
		return 0, err
	}
	missed, err := g.Missed(ctx, tx, p.ledger, rows)
	if err != nil || len(missed) == 0 {
		return 0, err
	}
	keys, is := make([]string, len(missed)), make(map[string]bool, len(missed))
	for i, u := range missed {
		keys[i], is[u.Key] = u.Key, true
	}
	x := c.cfg.Index
	lsn, ok := x.Blind(c.holder(), conn.PgConn().PID(), p.ledger, keys)
	if !ok {
		return 0, fmt.Errorf("the WAL is being read again: %w", tombstone.ErrRaced)
	}
	now, err := tombstone.ReadSnapshot(ctx, tx)
	if err != nil {
		return 0, err
	}
	if x.Unseen(now.InProgress) {
		return 0, fmt.Errorf("a transaction is stamped and not visible: %w", tombstone.ErrRaced)
	}
	if rows, err = lookAt(ctx, conn, p, sql, from, to); err != nil {
		return 0, err
	}
	again := rows[:0]
	for _, u := range rows {
		if is[u.Key] {
			again = append(again, u)
		}
	}
	g.End = lsn + 1
	noted, _, err := g.Regain(ctx, tx, x, p.ledger, again)
	return noted, err
}

// findOut waits until the server has ended a transaction whose commit was not answered.
func (c *Copier) findOut(ctx context.Context) error {
	for {
		pid := c.cfg.Index.Lost(c.holder())
		if pid == 0 {
			return nil
		}
		var there bool
		err := c.cfg.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			return conn.QueryRow(ctx, `select exists (select from pg_catalog.pg_stat_activity where pid = $1)`, int64(pid)).Scan(&there)
		})
		if err != nil {
			return fmt.Errorf("wait for the end of a transaction: %w", err)
		}
		if !there {
			c.cfg.Index.Found(c.holder())
			return nil
		}
		if err := pause.For(ctx, awayRest); err != nil {
			return err
		}
	}
}
