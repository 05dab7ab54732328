package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// column is a column as the generator of rows sees it.
type column struct {
	name      string
	number    int16
	typ       string // of its base type, as format_type prints it
	category  string // pg_type.typcategory
	length    int    // of varchar(n), char(n), bit(n); 0 is unlimited
	precision int    // of numeric(p,s); 0 is unlimited
	scale     int
	choices   []string // the labels of an enum; what a check allows
	notNull   bool
	skip      bool // generated: the server fills it in
	always    bool // identity GENERATED ALWAYS
	indexed   bool // by any index: its values are short
	fixed     bool // in a key or unique index: its value depends on the number of the row alone
	checks    []string
}

// reference is a foreign key.
type reference struct {
	parent   string // schema.table, quoted
	columns  []int16
	parents  []int16
	deferred bool // points to a table that is filled later: NULL at first
}

// table is a table as the generator of rows sees it.
type table struct {
	sql        string // schema.table, quoted
	schema     string
	columns    []*column
	key        []int16 // primary key
	references []reference
	referenced bool
	tag        int16 // a table without a key: the column that tells its rows apart
	checks     []string
}

// path makes a session find what the application of the table calls by name, as its own sessions do.
func (t *table) path() string {
	return "set local search_path = " + pgx.Identifier{t.schema}.Sanitize()
}

func (t *table) column(number int16) *column {
	i := slices.IndexFunc(t.columns, func(c *column) bool { return c.number == number })
	if i < 0 {
		return nil
	}
	return t.columns[i]
}

// catalog is what a database holds, parents before children.
type catalog struct {
	tables []*table
	byName map[string]*table
}

const tablesSQL = `select format('%I.%I', n.nspname, c.relname), n.nspname::text,
  coalesce((select conkey from pg_constraint k where k.conrelid = c.oid and contype = 'p'), '{}'),
  exists (select from pg_constraint k where k.confrelid = c.oid and contype = 'f' and k.conrelid <> c.oid),
  coalesce((select array_agg(pg_get_constraintdef(oid)) from pg_constraint k where k.conrelid = c.oid and contype = 'c'), '{}')
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and not c.relispartition and n.nspname !~ '^(pg_|information_schema$|pgwaltz$)' order by 1`

// A column counts as fixed where any unique index refers to it, in an expression or a condition too.
const columnsSQL = `select a.attname::text, a.attnum, format_type(b.oid, null), b.typcategory::text,
  case when b.oid in ('varchar'::regtype, 'bpchar'::regtype) and m.typmod > 4 then m.typmod - 4
       when b.oid in ('bit'::regtype, 'varbit'::regtype) and m.typmod > 0 then m.typmod else 0 end,
  case when b.oid = 'numeric'::regtype and m.typmod > 4 then (m.typmod - 4) >> 16 else 0 end,
  case when b.oid = 'numeric'::regtype and m.typmod > 4 then (m.typmod - 4) & 2047 else 0 end,
  coalesce((select array_agg(enumlabel::text order by enumsortorder) from pg_enum e where e.enumtypid = b.oid), '{}'),
  a.attnotnull or t.typnotnull, a.attgenerated <> '', a.attidentity = 'a',
  exists (select from pg_index i where i.indrelid = a.attrelid and (a.attnum = any(i.indkey::int2[]) or exists (select from pg_depend d
    where d.classid = 'pg_class'::regclass and d.objid = i.indexrelid and d.refobjid = a.attrelid and d.refobjsubid = a.attnum))),
  exists (select from pg_index i where i.indrelid = a.attrelid and (i.indisunique or i.indisexclusion) and
    (a.attnum = any(i.indkey::int2[]) or exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = i.indexrelid
       and d.refobjid = a.attrelid and d.refobjsubid = a.attnum))),
  coalesce((select array_agg(pg_get_constraintdef(oid)) from pg_constraint k where k.conrelid = a.attrelid and contype = 'c' and a.attnum = any(conkey)), '{}')
    || coalesce((select array_agg(pg_get_constraintdef(oid)) from pg_constraint k where k.contypid = t.oid), '{}')
from pg_attribute a join pg_type t on t.oid = a.atttypid
cross join lateral (with recursive up(oid, base, typmod) as (select t.oid, t.typbasetype, a.atttypmod
    union all select d.oid, d.typbasetype, case when up.typmod > 0 then up.typmod else o.typtypmod end from up join pg_type o on o.oid = up.oid join pg_type d on d.oid = up.base where up.base <> 0)
  select oid, typmod from up where base = 0) m
join pg_type b on b.oid = m.oid
where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped order by a.attnum`

const referencesSQL = `select format('%I.%I', n.nspname, c.relname), k.conkey, k.confkey
from pg_constraint k join pg_class c on c.oid = k.confrelid join pg_namespace n on n.oid = c.relnamespace
where k.conrelid = to_regclass($1) and k.contype = 'f' order by k.oid`

// loadCatalog reads all tables of the application.
func loadCatalog(ctx context.Context, conn *pgx.Conn) (*catalog, error) {
	c := &catalog{byName: map[string]*table{}}
	rows, err := conn.Query(ctx, tablesSQL)
	if err != nil {
		return nil, fmt.Errorf("read tables: %w", err)
	}
	var all []*table
	t := table{}
	if _, err := pgx.ForEachRow(rows, []any{&t.sql, &t.schema, &t.key, &t.referenced, &t.checks}, func() error {
		one := t
		all = append(all, &one)
		c.byName[one.sql] = &one
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read tables: %w", err)
	}
	for _, t := range all {
		if err := t.load(ctx, conn); err != nil {
			return nil, err
		}
	}
	c.sort(all)
	return c, nil
}

func (t *table) load(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, columnsSQL, t.sql)
	if err != nil {
		return fmt.Errorf("read columns of %s: %w", t.sql, err)
	}
	c := column{}
	if _, err := pgx.ForEachRow(rows, []any{&c.name, &c.number, &c.typ, &c.category, &c.length, &c.precision, &c.scale, &c.choices, &c.notNull, &c.skip, &c.always, &c.indexed, &c.fixed, &c.checks}, func() error {
		one := c
		t.columns = append(t.columns, &one)
		return nil
	}); err != nil {
		return fmt.Errorf("read columns of %s: %w", t.sql, err)
	}
	if rows, err = conn.Query(ctx, referencesSQL, t.sql); err != nil {
		return fmt.Errorf("read foreign keys of %s: %w", t.sql, err)
	}
	r := reference{}
	if _, err := pgx.ForEachRow(rows, []any{&r.parent, &r.columns, &r.parents}, func() error {
		t.references = append(t.references, r)
		return nil
	}); err != nil {
		return fmt.Errorf("read foreign keys of %s: %w", t.sql, err)
	}
	if len(t.key) == 0 {
		t.chooseTag()
	}
	return nil
}

// chooseTag picks the column that tells the rows of a table without a key apart: the one that
// has the most values.
func (t *table) chooseTag() {
	best := -1
	for _, c := range t.columns {
		rank := 0
		switch {
		case c.skip || t.refers(c.number):
			continue
		case c.category == "N" && c.typ != "smallint":
			rank = 3
		case c.category == "S" && (c.length == 0 || c.length > 8):
			rank = 2
		case c.category == "N" || c.category == "D":
			rank = 1
		}
		if rank > best {
			best, t.tag = rank, c.number
		}
	}
	if c := t.column(t.tag); c != nil {
		c.fixed = true
	}
}

// refers reports whether a column is part of a foreign key.
func (t *table) refers(number int16) bool {
	return slices.ContainsFunc(t.references, func(r reference) bool { return slices.Contains(r.columns, number) })
}

// sort puts parents before children. In a circle, a foreign key that points to a later table is
// left NULL.
func (c *catalog) sort(all []*table) {
	placed := map[string]bool{}
	for len(all) > 0 {
		i := slices.IndexFunc(all, func(t *table) bool {
			return !slices.ContainsFunc(t.references, func(r reference) bool { return r.parent != t.sql && !placed[r.parent] })
		})
		i = max(i, 0)
		t := all[i]
		for j := range t.references {
			t.references[j].deferred = t.references[j].parent != t.sql && !placed[t.references[j].parent]
		}
		placed[t.sql] = true
		c.tables = append(c.tables, t)
		all = slices.Delete(all, i, i+1)
	}
}
