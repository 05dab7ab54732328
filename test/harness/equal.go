package harness

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// pinned are the settings under which rows become text on both sides.
const pinned = `set timezone='UTC'; set datestyle='ISO'; set intervalstyle='postgres'; set extra_float_digits=1; set bytea_output='hex'; set search_path=''; set row_security=off`

// Equal compares tables of all regions by an ordered hash of all rows: the columns that
// both sides have, without generated ones. A third region is compared with A. The error names tables and counts, and for
// small tables the rows that differ (test data, never a user's).
func (p *Pair) Equal(ctx context.Context, tables ...string) error {
	var errs []error
	a, err := p.A.Cluster.Connect(ctx, p.A.Database)
	if err != nil {
		return fmt.Errorf("compare regions: %w", err)
	}
	defer a.Close(ctx)
	for _, r := range p.Peers(p.A) {
		b, err := r.Cluster.Connect(ctx, r.Database)
		if err != nil {
			return fmt.Errorf("compare regions: %w", err)
		}
		defer b.Close(ctx)
		for _, t := range tables {
			if err := equalTable(ctx, a, b, r.Side, strings.TrimSpace(t)); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

type tableShape struct {
	name    string // quoted, with schema
	columns map[string]bool
	order   []string
}

func shapeOf(ctx context.Context, c *pgx.Conn, table string) (tableShape, error) {
	s := tableShape{columns: map[string]bool{}}
	rows, err := c.Query(ctx, `select (case when c.relkind = 'r' then 'only ' else '' end) || format('%I.%I', n.nspname, c.relname), quote_ident(a.attname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
where c.oid = to_regclass($1) order by a.attnum`, table)
	if err != nil {
		return s, err
	}
	var col string
	_, err = pgx.ForEachRow(rows, []any{&s.name, &col}, func() error {
		s.columns[col] = true
		s.order = append(s.order, col)
		return nil
	})
	if err != nil {
		return s, err
	}
	if s.name == "" {
		// A table without columns is a table all the same.
		err = c.QueryRow(ctx, `select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass($1)`, table).Scan(&s.name)
	}
	return s, err
}

func equalTable(ctx context.Context, a, b *pgx.Conn, side, table string) error {
	for _, c := range []*pgx.Conn{a, b} {
		if _, err := c.Exec(ctx, `reset all`); err != nil {
			return fmt.Errorf("compare %s: %w", table, err)
		}
	}
	sa, err := shapeOf(ctx, a, table)
	if err != nil {
		return fmt.Errorf("compare %s: find it on A: %w", table, err)
	}
	sb, err := shapeOf(ctx, b, table)
	if err != nil {
		return fmt.Errorf("compare %s: find it on %s: %w", table, side, err)
	}
	var cols []string
	for _, c := range sa.order {
		if sb.columns[c] {
			cols = append(cols, c)
		}
	}
	na, ha, err := hashTable(ctx, a, sa.name, cols)
	if err != nil {
		return fmt.Errorf("compare %s on A: %w", table, err)
	}
	nb, hb, err := hashTable(ctx, b, sb.name, cols)
	if err != nil {
		return fmt.Errorf("compare %s on %s: %w", table, side, err)
	}
	if na == nb && ha == hb {
		return nil
	}
	return fmt.Errorf("table %s differs: %d rows on A, %d on %s%s", table, na, nb, side, difference(ctx, a, b, side, sa.name, sb.name, cols, na+nb))
}

func rowText(cols []string) string {
	return "row(" + strings.Join(cols, ",") + ")::text"
}

func hashTable(ctx context.Context, c *pgx.Conn, name string, cols []string) (n int64, hash string, err error) {
	if _, err := c.Exec(ctx, pinned); err != nil {
		return 0, "", err
	}
	// The sort order of the hashes must not depend on a database's collation.
	err = c.QueryRow(ctx, `select count(*), pg_catalog.md5(coalesce(pg_catalog.string_agg(h, '' order by h collate "C"), ''))
from (select pg_catalog.md5(`+rowText(cols)+`) h from `+name+`) x`).Scan(&n, &hash)
	return n, hash, err
}

// difference shows up to three rows that only one side has.
func difference(ctx context.Context, a, b *pgx.Conn, side, na, nb string, cols []string, total int64) string {
	if total > 300_000 {
		return ""
	}
	left, err1 := allRows(ctx, a, na, cols)
	right, err2 := allRows(ctx, b, nb, cols)
	if err1 != nil || err2 != nil {
		return ""
	}
	return onlyIn("A", left, right) + onlyIn(side, right, left)
}

func allRows(ctx context.Context, c *pgx.Conn, name string, cols []string) (map[string]int, error) {
	rows, err := c.Query(ctx, `select `+rowText(cols)+` from `+name)
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	var s string
	_, err = pgx.ForEachRow(rows, []any{&s}, func() error { out[s]++; return nil })
	return out, err
}

func onlyIn(side string, x, y map[string]int) string {
	n, text := 0, ""
	for row, k := range x {
		if y[row] >= k {
			continue
		}
		if n++; n <= 3 {
			if len(row) > 120 {
				row = row[:120] + "…"
			}
			text += " " + row
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; %d only on %s:%s", n, side, text)
}
