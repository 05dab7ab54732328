package poll

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

const (
	// pageBytes bounds the memory of one page, but for a single row that is larger.
	pageBytes = 8 << 20
	// Overlap is how far behind the last reading the time column is looked at again.
	Overlap = 10 * time.Minute
	// SweepEvery is how often all that changed is looked for where the time column is used otherwise.
	SweepEvery = time.Hour
	// farthest is how many transaction ids lie between two readings at most: further away they cannot be compared.
	farthest = 1_500_000_000
)

// Snapshot is where a reading stood: every transaction below XMin had ended, and the source's clock said At.
type Snapshot struct{ XMin, At string }

// Barrier is a transaction id above all that began until now: a snapshot whose XMin is not below it shows them all (Passed).
func Barrier(ctx context.Context, conn *pgx.Conn) (id string, err error) {
	if err := conn.QueryRow(ctx, `select pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text`).Scan(&id); err != nil {
		return "", fmt.Errorf("read the source's snapshot: %w", err)
	}
	return id, nil
}

// Passed reports whether every transaction below a barrier had ended.
func (s Snapshot) Passed(barrier string) bool {
	now, err := strconv.ParseUint(s.XMin, 10, 64)
	then, berr := strconv.ParseUint(barrier, 10, 64)
	return err == nil && berr == nil && now >= then
}

// Shown reports whether the snapshot of conn's transaction shows what all of these transactions have written. The WAL tells of a commit before
// the server shows it, long before where it waits for a standby.
func Shown(ctx context.Context, conn *pgx.Conn, ids []wal.XID) (bool, error) {
	list := make([]int64, len(ids))
	for i, x := range ids {
		list[i] = int64(x)
	}
	var hidden bool
	// The WAL has the low half of each id. It is that of the one nearest to xmax, above or below.
	err := conn.QueryRow(ctx, `with s as (select pg_catalog.pg_current_snapshot() as s), m as (select s, pg_catalog.pg_snapshot_xmax(s)::text::numeric as top from s),
near as (select s, top, (x - top % 4294967296 + 4294967296) % 4294967296 as d from m, pg_catalog.unnest($1::int8[]) as x)
select exists (select from near where not pg_catalog.pg_visible_in_snapshot((case when d < 2147483648 then top + d else top + d - 4294967296 end)::text::xid8, s))`, list).Scan(&hidden)
	if err != nil {
		return false, fmt.Errorf("read the source's snapshot: %w", err)
	}
	return !hidden, nil
}

// Now reads the snapshot of the transaction or statement.
func Now(ctx context.Context, conn *pgx.Conn) (s Snapshot, err error) {
	err = conn.QueryRow(ctx, `select pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text, pg_catalog.statement_timestamp()::text`).Scan(&s.XMin, &s.At)
	if err != nil {
		return s, fmt.Errorf("read the source's snapshot: %w", err)
	}
	return s, nil
}

// Reaches reports whether changes since the older snapshot can be told by xmin.
func (s Snapshot) Reaches(older Snapshot) bool {
	now, err := strconv.ParseUint(s.XMin, 10, 64)
	was, werr := strconv.ParseUint(older.XMin, 10, 64)
	return err == nil && werr == nil && now >= was && now-was < farthest
}

// Time is the source's clock at the snapshot.
func (s Snapshot) Time() wal.Micros {
	t, err := time.Parse("2006-01-02 15:04:05.999999-07", s.At)
	if err != nil {
		return wal.MinMicros
	}
	return wal.MicrosOf(t)
}

// Pager reads a table by pages in the order of its key, in snapshots of their own.
type Pager struct {
	table *Table
	limit int // rows of a page
	next  int
}

// Pages reads at most limit rows at once, fewer where rows are large.
func (t *Table) Pages(limit int) *Pager { return &Pager{t, limit, limit} }

// Page reads the rows behind a key, nil for the first ones. last is the key of the last row; no rows: the table is at its end.
func (p *Pager) Page(ctx context.Context, conn *pgx.Conn, after []string) (rows []wal.Tuple, last []string, err error) {
	return p.read(ctx, conn, p.table.from, after)
}

func (p *Pager) read(ctx context.Context, conn *pgx.Conn, shape statement.Shape, after []string) (rows []wal.Tuple, last []string, err error) {
	var args [][]byte
	for _, k := range after {
		args = append(args, []byte(k))
	}
	args = append(args, strconv.AppendInt(nil, int64(p.next), 10))
	rr := conn.PgConn().ExecParams(ctx, statement.Page(shape, p.table.names, after != nil), args, nil, nil, nil)
	rows, cut := take(rr, pageBytes)
	if _, err := rr.Close(); err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", p.table.Rel, err)
	}
	p.next = min(2*p.next, p.limit)
	if cut {
		p.next = len(rows)
	}
	return rows, p.table.lastKey(rows), nil
}

// take copies rows out of the connection's buffer, at least one and no more than bytes allow.
func take(rr *pgconn.ResultReader, bytes int) (rows []wal.Tuple, cut bool) {
	size := 0
	for rr.NextRow() {
		if size > bytes {
			return rows, true
		}
		row := tuple(rr.Values())
		size += row.Size() + 32*len(row)
		rows = append(rows, row)
	}
	return rows, false
}

// tuple copies values out of the connection's buffer.
func tuple(values [][]byte) wal.Tuple {
	row := make(wal.Tuple, len(values))
	for i, v := range values {
		if v == nil {
			row[i].Kind = wal.Null
			continue
		}
		row[i] = wal.Value{Kind: wal.Text, Bytes: append(make([]byte, 0, len(v)), v...)}
	}
	return row
}

func (t *Table) lastKey(rows []wal.Tuple) (key []string) {
	if len(rows) == 0 {
		return nil
	}
	return t.keyOf(rows[len(rows)-1])
}

func (t *Table) keyOf(row wal.Tuple) (key []string) {
	for _, k := range t.Rel.PrimaryKey {
		key = append(key, string(row[k].Bytes))
	}
	return key
}

// ByTime reports whether the next reading goes by the time column.
func (t *Table) ByTime(s *State, now time.Time) bool { return t.timed && now.Sub(s.Swept) < SweepEvery }

// Changed reads the rows that were written since the state's snapshot, within the open transaction of conn, and gives them to f in
// pieces of at most limit rows.
func (t *Table) Changed(ctx context.Context, conn *pgx.Conn, s *State, byTime bool, limit int, f func([]wal.Tuple) error) error {
	return t.changed(ctx, conn, t.names, s, byTime, limit, f)
}

// changed is Changed for some columns.
func (t *Table) changed(ctx context.Context, conn *pgx.Conn, names []string, s *State, byTime bool, limit int, f func([]wal.Tuple) error) error {
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = "t." + statement.Quote(n)
	}
	sql := "declare pgwaltz_changed no scroll cursor for select " + strings.Join(list, ", ") + " from " + t.fromSQL + " as t where "
	arg := s.Seen.At
	if byTime {
		sql += "t." + statement.Quote(UpdatedAtColumn) + " >= $1::timestamptz - interval '" + strconv.Itoa(int(Overlap.Seconds())) + " seconds' order by t." + statement.Quote(UpdatedAtColumn)
		for i := range t.key.Columns {
			sql += ", t." + statement.Quote(t.key.Columns[i].Name)
		}
	} else {
		arg = lowXID(s.Seen.XMin)
		sql += "pg_catalog.age(t.xmin) between 0 and pg_catalog.age($1::text::xid)"
	}
	// A cursor takes no parameters over the extended protocol in every version; the value is a number or a time of the server's own.
	sql = strings.Replace(sql, "$1", "'"+strings.ReplaceAll(arg, "'", "")+"'", 1)
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("read what changed in %s: %w", t.Rel, err)
	}
	var held []wal.Tuple
	size, fetch := 0, 50
	for {
		rr := conn.PgConn().ExecParams(ctx, "fetch forward "+strconv.Itoa(min(fetch, limit-len(held)))+" from pgwaltz_changed", nil, nil, nil, nil)
		rows, _ := take(rr, math.MaxInt)
		if _, err := rr.Close(); err != nil {
			return fmt.Errorf("read what changed in %s: %w", t.Rel, err)
		}
		bytes := 0
		for _, row := range rows {
			bytes += row.Size() + 32*len(row)
		}
		held, size = append(held, rows...), size+bytes
		if len(held) > 0 && (len(rows) == 0 || len(held) >= limit || size >= pageBytes) {
			if err := f(held); err != nil {
				return err
			}
			held, size = nil, 0
		}
		if len(rows) == 0 {
			break
		}
		// The next ones are about as large.
		fetch = max(1, min(pageBytes/max(1, bytes/len(rows)), 1000))
	}
	_, err := conn.Exec(ctx, "close pgwaltz_changed")
	return err
}

// lowXID is what age knows of a transaction id with its epoch.
func lowXID(x string) string {
	n, err := strconv.ParseUint(x, 10, 64)
	if err != nil {
		return "3"
	}
	return strconv.FormatUint(uint64(uint32(n)), 10)
}
