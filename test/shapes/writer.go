package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// column is a column that a writer may write, as the catalog has it now.
type column struct {
	name string
	kind kind
	big  bool
}

// writer writes the tables of one region, one transaction after the other. It is used by one goroutine.
type writer struct {
	region *harness.Region
	rnd    *rand.Rand
	tables []*table
	kinds  map[string]kind
	keys   int

	conn      *pgx.Conn
	done      int            // transactions that were committed
	refused   map[string]int // SQLSTATE -> how often
	lastWords map[string]string
}

func newWriter(r *harness.Region, seed, n uint64, tables []*table, all []kind, keys int) *writer {
	return &writer{region: r, rnd: rand.New(rand.NewPCG(seed, n)), tables: tables, kinds: byType(all), keys: keys, refused: map[string]int{}, lastWords: map[string]string{}}
}

// run writes until the context ends.
func (w *writer) run(ctx context.Context, gap time.Duration) {
	defer w.close()
	for ctx.Err() == nil {
		err := w.transaction(ctx, w.tables[w.rnd.IntN(len(w.tables))])
		w.note(ctx, err)
		if harness.Pause(ctx, time.Duration(w.rnd.Int64N(int64(2*gap)))) != nil {
			return
		}
	}
}

func (w *writer) note(ctx context.Context, err error) {
	var pe *pgconn.PgError
	switch {
	case err == nil:
		w.done++
	case ctx.Err() != nil:
	case errors.As(err, &pe):
		w.refused[pe.Code]++
		w.lastWords[pe.Code] = pe.Message + " " + pe.Where
	default:
		w.refused["connection"]++
		w.close()
	}
}

func (w *writer) close() {
	if w.conn != nil {
		_ = w.conn.Close(context.Background())
		w.conn = nil
	}
}

// connect opens the session of the writer where it is closed.
func (w *writer) connect(ctx context.Context) error {
	if w.conn != nil && !w.conn.IsClosed() {
		return nil
	}
	c, err := w.region.Cluster.Connect(ctx, w.region.Database)
	if err != nil {
		return err
	}
	w.conn = c
	_, err = c.Exec(ctx, "set lock_timeout = '5s'; set statement_timeout = '30s'; set timezone = 'UTC'")
	return err
}

// transaction writes one to four statements, most of them to one table.
func (w *writer) transaction(ctx context.Context, t *table) error {
	if err := w.connect(ctx); err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, w.conn, func(tx pgx.Tx) error {
		for i := range 1 + w.rnd.IntN(4) {
			if i > 0 && w.rnd.IntN(3) == 0 {
				t = w.tables[w.rnd.IntN(len(w.tables))]
			}
			if w.rnd.IntN(8) > 0 {
				if err := w.statement(ctx, tx, t); err != nil {
					return err
				}
				continue
			}
			lost := errors.New("rolled back to the savepoint")
			err := pgx.BeginFunc(ctx, tx, func(sub pgx.Tx) error {
				if err := w.statement(ctx, sub, t); err != nil {
					return err
				}
				return lost
			})
			if err != nil && !errors.Is(err, lost) {
				return err
			}
		}
		if w.rnd.IntN(30) == 0 {
			return errors.New("rolled back")
		}
		return nil
	})
}

// first inserts a row of key n.
func (w *writer) first(ctx context.Context, t *table, n int) error {
	if err := w.connect(ctx); err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, w.conn, func(tx pgx.Tx) error {
		cols, err := w.columns(ctx, tx, t)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, w.insert(t, cols, n))
		return err
	})
}

// columns reads what the table looks like now.
func (w *writer) columns(ctx context.Context, tx pgx.Tx, t *table) ([]column, error) {
	rows, err := tx.Query(ctx, `select a.attname, format_type(a.atttypid, case when a.atttypid in ('bpchar'::regtype, 'varchar'::regtype, 'numeric'::regtype, 'bit'::regtype, 'varbit'::regtype) then a.atttypmod else -1 end)
  || case when a.attcollation = 'public.ci'::regcollation then ' COLLATE public.ci' else '' end
from pg_attribute a where a.attrelid = $1::regclass and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' order by a.attname`, t.name)
	if err != nil {
		return nil, err
	}
	var out []column
	var name, typ string
	_, err = pgx.ForEachRow(rows, []any{&name, &typ}, func() error {
		if name == "version" || name == "updated_at" || strings.HasPrefix(name, "num") {
			return nil
		}
		k, ok := w.kinds[typ]
		if !ok {
			return fmt.Errorf("table %s: nobody knows how to write type %q", t.name, typ)
		}
		out = append(out, column{name, k, strings.HasPrefix(name, "big")})
		return nil
	})
	return out, err
}

// where names the row of key n, in any spelling.
func (w *writer) where(t *table, n int) string {
	var out []string
	for i, k := range t.keys {
		out = append(out, fmt.Sprintf("k%d = %s", i, w.keyValue(t, i, k, n)))
	}
	return strings.Join(out, " and ")
}

// keyValue spells part i of key n.
func (w *writer) keyValue(t *table, i int, k kind, n int) string {
	if i > 0 {
		n /= 3
	}
	lit := k.spell(w.rnd, n)
	if strings.HasPrefix(lit, "'") {
		lit += "::" + strings.TrimSuffix(k.typ, " COLLATE public.ci")
	}
	return lit
}

func (w *writer) value(c column) string {
	switch {
	case w.rnd.IntN(6) == 0:
		return "null"
	case c.big:
		return large(w.rnd)
	}
	return c.kind.spell(w.rnd, w.rnd.IntN(10))
}

func isKey(t *table, name string) bool {
	return len(name) == 2 && name[0] == 'k' && int(name[1]-'0') < len(t.keys)
}

// statement writes one row, or none, or all.
func (w *writer) statement(ctx context.Context, tx pgx.Tx, t *table) error {
	cols, err := w.columns(ctx, tx, t)
	if err != nil {
		return err
	}
	n := w.rnd.IntN(w.keys)
	var sql string
	switch x := w.rnd.IntN(100); {
	case x < 40:
		sql = w.insert(t, cols, n)
	case x < 52:
		sql = "delete from " + t.name + " where " + w.where(t, n)
	case x < 58: // to another key, which may be taken
		sql = w.update(t, cols, n, w.rnd.IntN(w.keys))
	case x < 62: // the same key in another spelling
		sql = w.update(t, cols, n, n)
	case x < 64:
		sql = "update " + t.name + " set mark = mark" + " where " + w.where(t, n)
	case x < 66:
		sql = "update " + t.name + " set mark = 'all' || " + fmt.Sprint(w.rnd.IntN(10))
	case x < 69 && t.late: // all rows move at once
		if typ := t.keys[0].typ; typ != "smallint" && typ != "integer" && typ != "bigint" && typ != "numeric" {
			return nil
		}
		sql = "update " + t.name + " set k0 = k0 + 1 where k0 < 9"
		if w.rnd.IntN(2) == 0 {
			sql = "update " + t.name + " set k0 = 8 - k0 where k0 <= 8"
		}
	default:
		sql = w.update(t, cols, n, -1)
	}
	_, err = tx.Exec(ctx, sql)
	if err != nil {
		return fmt.Errorf("%s: %w", sql[:min(len(sql), 300)], err)
	}
	return nil
}

func (w *writer) insert(t *table, cols []column, n int) string {
	var names, vals, set []string
	for _, c := range cols {
		val := ""
		if isKey(t, c.name) {
			i := int(c.name[1] - '0')
			val = w.keyValue(t, i, t.keys[i], n)
		} else {
			if w.rnd.IntN(4) == 0 {
				continue
			}
			val = w.value(c)
			set = append(set, quoted(c.name)+" = excluded."+quoted(c.name))
		}
		names, vals = append(names, quoted(c.name)), append(vals, val)
	}
	if t.stamps == given {
		names, vals = append(names, "version", "updated_at"), append(vals, fmt.Sprint(w.rnd.IntN(6)), w.someTime())
	}
	sql := fmt.Sprintf("insert into %s (%s) values (%s)", t.name, strings.Join(names, ", "), strings.Join(vals, ", "))
	switch {
	case t.late: // such a key settles nothing
		return sql
	case w.rnd.IntN(2) == 0 || len(set) == 0:
		return sql + " on conflict do nothing"
	}
	keys := make([]string, len(t.keys))
	for i := range keys {
		keys[i] = fmt.Sprintf("k%d", i)
	}
	return sql + " on conflict (" + strings.Join(keys, ", ") + ") do update set " + strings.Join(append(set, w.stamps(t)...), ", ")
}

// update changes the row of key n; to is the key that it gets, or -1.
func (w *writer) update(t *table, cols []column, n, to int) string {
	set := w.stamps(t)
	for _, c := range cols {
		if isKey(t, c.name) {
			if to >= 0 {
				i := int(c.name[1] - '0')
				set = append(set, c.name+" = "+w.keyValue(t, i, t.keys[i], to))
			}
		} else if w.rnd.IntN(2) == 0 {
			set = append(set, quoted(c.name)+" = "+w.value(c))
		}
	}
	if len(set) == 0 {
		set = []string{"mark = 'm'"}
	}
	return "update " + t.name + " set " + strings.Join(set, ", ") + " where " + w.where(t, n)
}

// stamps are what the application says of version and time.
func (w *writer) stamps(t *table) []string {
	switch t.stamps {
	case given:
		switch w.rnd.IntN(5) {
		case 0:
			return nil
		case 1:
			return []string{fmt.Sprintf("version = %d", w.rnd.IntN(6))}
		case 2:
			return []string{"updated_at = " + w.someTime()}
		}
		return []string{fmt.Sprintf("version = coalesce(%s.version, 0) + 1", t.name), "updated_at = clock_timestamp()"}
	case versioned:
		return []string{fmt.Sprintf("version = coalesce(%s.version, 0) + 1", t.name)}
	case timed:
		return []string{"updated_at = clock_timestamp()"}
	}
	return nil
}

// rising are stamps that rise, in tables without a trigger that sees to it.
func rising(t *table) []string {
	var out []string
	if t.stamps == given || t.stamps == versioned {
		out = append(out, "version = coalesce(version, 0) + 100")
	}
	if t.stamps == given || t.stamps == timed {
		out = append(out, "updated_at = clock_timestamp()")
	}
	return out
}

func (w *writer) someTime() string {
	if w.rnd.IntN(12) == 0 {
		return "'infinity'"
	}
	return fmt.Sprintf("timestamptz '2026-01-01 00:00+00' + interval '%d seconds'", w.rnd.IntN(20))
}
