package copy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/adapter/rowkey"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Unread looks tables without stamp columns through for rows that this region wrote in a gap of its own WAL. When such a row was
// written stands in pgwaltz.tombstone, and gets there by the decoding; of what is written in a gap nobody decodes anything, so the
// row would count as old as the one that it has replaced, which another region still has. Behind it the rows
// have what the decoding would have given them, as far as it can be known (tombstone.Gap), and whoever reads them finds it: the copy that
// follows, and the applier. Tables with a stamp column need nothing.
//
// It is done before anything behind the gap is stamped. Each table is read once, in the order of its pages, some pages in a
// transaction, which also holds what is noted of their rows and how far it came; so it goes on there after a crash. It takes no lock of
// a row, and of a table only to read. Tables that cannot be read are named and left as they are.
type Unread struct {
	Connect     func(ctx context.Context) (*pgx.Conn, error)
	Stamps      func(wal.RelationName) StampColumns
	Index       *tombstone.Index
	Named       Named
	Tracked     tombstone.Tracked
	Publication string
	LeftOut     func(wal.RelationName) bool
	Gap         tombstone.Gap
	Horizon     tombstone.Horizon
	// Told is told what is being read: a table, and how much of its pages is done.
	Told   func(table string, done, of int64)
	Public func(error) string
	Log    *slog.Logger
}

// unreadPages is how many pages of a table are read in one transaction: 4 MiB, some ten thousand rows.
const unreadPages = 512

// Run looks all published tables through. It may be run again, and goes on where it was.
func (u *Unread) Run(ctx context.Context) error {
	conn, err := u.Connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	// What was committed in front of the slot is in no WAL that is read, and has to be seen.
	if err := awaitWriters(ctx, func(ctx context.Context, f func(context.Context, *pgx.Conn) error) error { return f(ctx, conn) }); err != nil {
		return err
	}
	if err := beginUnread(ctx, conn, u.Gap.End); err != nil {
		return err
	}
	tables, err := u.tables(ctx, conn)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if u.LeftOut(t) {
			continue
		}
		if err := u.table(ctx, conn, t); err != nil {
			if ctx.Err() != nil || conn.IsClosed() || pg.Disconnected(err) || passes(err) {
				return fmt.Errorf("look for rows of %s that were written in the gap: %w", t, err)
			}
			u.Log.Warn("a table is not looked through for rows that were written in the gap: they count as old as the rows that they have replaced",
				"relation", t.String(), "reason", u.Public(err))
		}
	}
	return u.end(ctx, conn, tables)
}

// passes reports an error after which the same may succeed: another session was in the way, or a failure is injected.
func passes(err error) bool {
	switch code := pg.Code(err); code {
	case "55P03", "40P01", "40001", "57014":
		return true
	default:
		return strings.HasPrefix(code, "53") || errors.Is(err, tombstone.ErrRaced) || errors.Is(err, failpoint.ErrInjected)
	}
}

// tables are the published ones.
func (u *Unread) tables(ctx context.Context, conn *pgx.Conn) ([]wal.RelationName, error) {
	rows, err := conn.Query(ctx, `select schemaname::text, tablename::text from pg_catalog.pg_publication_tables where pubname = $1 order by 1, 2`, u.Publication)
	if err != nil {
		return nil, fmt.Errorf("list published tables: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[wal.RelationName])
	if err != nil {
		return nil, fmt.Errorf("list published tables: %w", err)
	}
	return found, nil
}

// end notes that all is looked through. What is stamped from here on is above all times that were noted.
func (u *Unread) end(ctx context.Context, conn *pgx.Conn, tables []wal.RelationName) error {
	var noted int64
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) (err error) {
		var high wal.Micros
		if noted, high, err = endUnread(ctx, tx, u.Gap.End); err != nil {
			return err
		}
		if noted > 0 {
			if err := copyAgain(ctx, tx, tables); err != nil {
				return err
			}
		}
		before, err := tombstone.LoadClock(ctx, tx, u.Gap.End)
		if err != nil || high <= before {
			return err
		}
		return tombstone.SaveClock(ctx, tx, u.Gap.End, high)
	})
	if err != nil {
		return fmt.Errorf("end the look for rows that were written in the gap: %w", err)
	}
	u.Log.Info("rows of tables without stamp columns that may have been written in the gap have their times now", "rows", noted, "lsn", u.Gap.End.String())
	return nil
}

// leaf is a table or a partition that holds rows.
type leaf struct {
	oid  uint32
	name string // quoted
}

// table looks one published table through.
func (u *Unread) table(ctx context.Context, conn *pgx.Conn, name wal.RelationName) error {
	p, err := newPlan(ctx, conn, name, u.Stamps, u.Tracked)
	if errors.Is(err, errNoKey) || err == nil && (p == nil || !p.cols.Stampless()) {
		return nil // its rows have no key to be known by, or carry their stamps
	}
	if err != nil {
		return err
	}
	if err := p.settle(ctx, u.Index, u.Named); err != nil {
		return err
	}
	leaves, err := leavesOf(ctx, conn, p.oid)
	if err != nil {
		return err
	}
	for _, l := range leaves {
		if err := u.leaf(ctx, conn, p, l); err != nil {
			return err
		}
	}
	return nil
}

// leavesOf lists what holds the rows of a table: the table itself, or its partitions.
func leavesOf(ctx context.Context, conn *pgx.Conn, oid uint32) ([]leaf, error) {
	rows, err := conn.Query(ctx, `select c.oid, n.nspname::text, c.relname::text from (
  select $1::oid as oid union select relid from pg_catalog.pg_partition_tree($1::oid) where isleaf) as t
join pg_catalog.pg_class c on c.oid = t.oid join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind = 'r' order by 1`, oid)
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (l leaf, err error) {
		var schema, name string
		err = r.Scan(&l.oid, &schema, &name)
		l.name = pg.QuoteTable(schema, name)
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	return found, nil
}

// leaf looks one table, or one partition, through.
func (u *Unread) leaf(ctx context.Context, conn *pgx.Conn, p *plan, l leaf) error {
	at, err := loadUnread(ctx, conn, l.oid)
	if err != nil || at.done {
		return err
	}
	sql := lookSQL(p, l, &u.Gap, u.Horizon.BehindSQL())
	for tries := 0; !at.done; {
		next, err := u.pages(ctx, conn, p, l, sql, at)
		if errors.Is(err, tombstone.ErrRaced) && tries < 10 {
			tries++
			continue
		}
		if err != nil {
			return err
		}
		at, tries = next, 0
		if err := failpoint.Hit("unread_pages"); err != nil {
			return err
		}
	}
	return nil
}

// lookSQL reads the rows of a range of pages under a condition: their keys, and who wrote them when.
func lookSQL(p *plan, l leaf, g *tombstone.Gap, condition string) string {
	var b strings.Builder
	b.WriteString("select ")
	for _, i := range p.rel.PrimaryKey {
		b.WriteString("t." + pg.Quote(p.rel.Columns[i].Name) + ", ")
	}
	wrote := p.shape.Time
	if wrote == "" {
		wrote = "null::int8"
	}
	fmt.Fprintf(&b, "t.xmin::text, %s, %s, %s, %s from only %s as t where t.ctid >= $1::tid and t.ctid < $2::tid and %s",
		wrote, g.CommittedSQL(), g.EndedSQL(), g.AppliedSQL(), l.name, condition)
	return b.String()
}

// pages looks some pages through, in one transaction, and returns where it is then. A table that was written anew begins again: what was
// noted stays so.
func (u *Unread) pages(ctx context.Context, conn *pgx.Conn, p *plan, l leaf, sql string, at unreadAt) (unreadAt, error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return at, fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // after a commit it does nothing
	if _, err := tx.Exec(ctx, "set local synchronous_commit = off"); err != nil {
		return at, err
	}
	filenode, blocks, err := measure(ctx, tx, l)
	if err != nil {
		return at, err
	}
	if at.filenode != filenode {
		at.filenode, at.block = filenode, 0
	}
	u.Told(p.rel.String(), at.block, blocks)
	noted, high := 0, wal.MinMicros
	end := min(at.block+unreadPages, blocks)
	if at.block < end {
		rows, err := lookAt(ctx, conn, p, sql, at.block, end)
		if err != nil {
			return at, err
		}
		if noted, high, err = u.Gap.Regain(ctx, tx, u.Index, p.ledger, rows); err != nil {
			return at, err
		}
	}
	// Pages that are added behind the end hold rows that are read from the WAL.
	at.block, at.done = end, end >= blocks
	if err := saveUnread(ctx, tx, at, u.Gap.End, noted, high); err != nil {
		return at, err
	}
	if err := tx.Commit(ctx); err != nil {
		return at, fmt.Errorf("commit: %w", err)
	}
	return at, nil
}

// measure says in which file the rows of a table are, and how many pages it has. The lock that a reader takes keeps the pages where
// they are until the end of the transaction.
func measure(ctx context.Context, tx pgx.Tx, l leaf) (filenode uint32, blocks int64, err error) {
	if _, err := tx.Exec(ctx, "lock table only "+l.name+" in access share mode"); err != nil {
		return 0, 0, fmt.Errorf("lock %s: %w", l.name, err)
	}
	err = tx.QueryRow(ctx, `select pg_catalog.pg_relation_filenode($1::oid), pg_catalog.pg_relation_size($1::oid) / pg_catalog.current_setting('block_size')::int8`, l.oid).Scan(&filenode, &blocks)
	if err != nil {
		return 0, 0, fmt.Errorf("measure %s: %w", l.name, err)
	}
	return filenode, blocks, nil
}

// lookAt reads the rows of the pages from one to another (lookSQL).
func lookAt(ctx context.Context, conn *pgx.Conn, p *plan, sql string, from, to int64) ([]tombstone.Unread, error) {
	tid := func(block int64) []byte { return []byte("(" + strconv.FormatInt(block, 10) + ",0)") }
	rr := conn.PgConn().ExecParams(ctx, sql, [][]byte{tid(from), tid(to)}, nil, nil, nil)
	var found []tombstone.Unread
	var changes []wal.Change
	for rr.NextRow() {
		v := rr.Values()
		row := make(wal.Tuple, len(p.rel.Columns))
		for i := range row {
			row[i].Kind = wal.Null
		}
		n := len(p.rel.PrimaryKey)
		for i, value := range tupleOf(v[:n]) {
			row[p.rel.PrimaryKey[i]] = value
		}
		one := tombstone.Unread{Wrote: microsOf(v[n+1]), Committed: microsOf(v[n+2]), Ended: microsOf(v[n+3]), Applied: string(v[n+4]) == "t"}
		var err error
		if one.Writer, err = tombstone.ParseWriter(v[n]); err != nil {
			rr.Close()
			return nil, fmt.Errorf("read %s: %w", p.rel, err)
		}
		found, changes = append(found, one), append(changes, wal.Change{Op: wal.Insert, Relation: p.rel, New: row})
	}
	if _, err := rr.Close(); err != nil {
		return nil, fmt.Errorf("read %s: %w", p.rel, err)
	}
	if p.rel.Asks() {
		asked := make([]*wal.Change, len(changes))
		for i := range changes {
			asked[i] = &changes[i]
		}
		if err := rowkey.Fill(ctx, conn, p.key, p.rel, asked); err != nil {
			return nil, err
		}
	}
	for i := range found {
		found[i].Key = string(changes[i].AppendKey(nil))
	}
	return found, nil
}

// microsOf reads a time that may be NULL.
func microsOf(text []byte) wal.Micros {
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return wal.MinMicros
	}
	return wal.Micros(n)
}

// awaitWriters waits until every transaction that might have committed in the WAL before the slot began, and yet be invisible to a
// new snapshot, is over. Do runs a short statement.
func awaitWriters(ctx context.Context, do func(ctx context.Context, f func(context.Context, *pgx.Conn) error) error) error {
	var limit string
	err := do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `select pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text`).Scan(&limit)
	})
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	patience := time.Now().Add(20 * time.Second)
	for time.Now().Before(patience) {
		var ok bool
		err := do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			return conn.QueryRow(ctx, `select pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) >= $1::text::pg_catalog.xid8
  or not exists (select from pg_catalog.pg_stat_activity where wait_event = 'SyncRep')`, limit).Scan(&ok)
		})
		if err != nil {
			return fmt.Errorf("read snapshot: %w", err)
		}
		if ok {
			break
		}
		if err := pause.For(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
