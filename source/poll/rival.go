package poll

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// unique is a unique index of the destination that is not the primary key.
type unique struct {
	terms, operators []string
	where            string
	nulls            bool // NULLs are not distinct
}

const uniqueSQL = `with x as materialized (
  select i.*, i.indclass::oid[] as classes, i.indcollation::oid[] as colls from pg_catalog.pg_index i
  where i.indrelid = $1::text::pg_catalog.regclass and i.indisunique and i.indisvalid and not i.indisprimary)
select array(select pg_catalog.pg_get_indexdef(x.indexrelid, k.n, false)
      || coalesce((select pg_catalog.format(' collate %I.%I', n.nspname, l.collname) from pg_catalog.pg_collation l
        join pg_catalog.pg_namespace n on n.oid = l.collnamespace where l.oid = x.colls[k.n - 1]), '')
    from pg_catalog.generate_series(1, x.indnkeyatts) as k(n) order by k.n),
  array(select pg_catalog.format('%I.%s', n.nspname, o.oprname) from pg_catalog.generate_series(1, x.indnkeyatts) as k(n)
    join pg_catalog.pg_opclass c on c.oid = x.classes[k.n - 1]
    join pg_catalog.pg_amop m on m.amopfamily = c.opcfamily and m.amoplefttype = c.opcintype and m.amoprighttype = c.opcintype and m.amopstrategy = 3
    join pg_catalog.pg_operator o on o.oid = m.amopopr join pg_catalog.pg_namespace n on n.oid = o.oprnamespace order by k.n),
  coalesce(pg_catalog.pg_get_expr(x.indpred, x.indrelid), ''), coalesce((pg_catalog.to_jsonb(x) ->> 'indnullsnotdistinct')::bool, false)
from x`

// Rival is a row of the destination that has a unique value of another row, which stands at place Of in what was asked. Whole is all of it as
// JSON, with the columns that are not copied.
type Rival struct {
	Of    int
	Row   wal.Tuple
	Whole []byte
}

// Rivals reads the rows of the destination that have a unique value of one of the given rows of the source under another primary key. It reports
// false where that cannot be told: an index is over a column that is not copied, or a value is none of its type there.
func (t *Table) Rivals(ctx context.Context, destination *pgx.Conn, rows []wal.Tuple) (rivals []Rival, ok bool, err error) {
	list, err := t.uniques(ctx, destination)
	if err != nil || len(rows) == 0 {
		return nil, err == nil, err
	}
	args := make([][]byte, len(t.names))
	for i := range t.names {
		column := make([]*string, len(rows))
		for n, row := range rows {
			if row[i].Kind == wal.Text {
				s := string(row[i].Bytes)
				column[n] = &s
			}
		}
		if args[i], err = destination.TypeMap().Encode(pgtype.TextArrayOID, pgtype.TextFormatCode, column, nil); err != nil {
			return nil, false, fmt.Errorf("look for rivals of rows of %s: %w", t.Rel, err)
		}
	}
	types, err := t.typesThere(ctx, destination)
	if err != nil {
		return nil, false, err
	}
	for _, u := range list {
		rr := destination.PgConn().ExecParams(ctx, t.rivalSQL(u, types), args, nil, nil, nil)
		for rr.NextRow() {
			values := rr.Values()
			n, err := strconv.Atoi(string(values[0]))
			if err != nil || n < 1 || n > len(rows) {
				rr.Close()
				return nil, false, fmt.Errorf("look for rivals of rows of %s: row %d is none of those asked for", t.Rel, n)
			}
			last := len(values) - 1
			rivals = append(rivals, Rival{n - 1, tuple(values[1:last]), slices.Clone(values[last])})
		}
		if _, err := rr.Close(); err != nil {
			if code := pg.Code(err); strings.HasPrefix(code, "22") || strings.HasPrefix(code, "42") {
				return nil, false, nil
			}
			return nil, false, fmt.Errorf("look for rivals of rows of %s: %w", t.Rel, err)
		}
	}
	return rivals, true, nil
}

func (t *Table) uniques(ctx context.Context, destination *pgx.Conn) (list []unique, err error) {
	rows, err := destination.Query(ctx, uniqueSQL, t.to.Table)
	if err != nil {
		return nil, fmt.Errorf("read unique indexes of %s: %w", t.Rel, err)
	}
	var u unique
	_, err = pgx.ForEachRow(rows, []any{&u.terms, &u.operators, &u.where, &u.nulls}, func() error {
		list = append(list, u)
		u = unique{}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read unique indexes of %s: %w", t.Rel, err)
	}
	return list, nil
}

// typesThere are the types of the copied columns in the destination.
func (t *Table) typesThere(ctx context.Context, destination *pgx.Conn) ([]string, error) {
	d, err := pg.LoadTable(ctx, destination, t.Rel.Schema, t.Rel.Name)
	if err != nil {
		return nil, err
	}
	types := make([]string, len(t.names))
	for i, n := range t.names {
		types[i] = "text"
		if c := d.Column(n); c != nil {
			types[i] = c.TypeName
		}
	}
	return types, nil
}

// rivalSQL finds the rows that have what the rows in the parameters have, each column one array. Terms stand in queries of their own, where nothing
// but the columns of one row can be meant.
func (t *Table) rivalSQL(u unique, types []string) string {
	var given, columns, casts, terms, same, other strings.Builder
	for i, n := range t.names {
		name := statement.Quote(n)
		fmt.Fprintf(&given, "%s$%d::text[]", comma(i), i+1)
		fmt.Fprintf(&columns, ", %s", name)
		fmt.Fprintf(&casts, ", v%d::%s as %s", i, types[i], name)
	}
	for i, e := range u.terms {
		fmt.Fprintf(&terms, ", %s as %s", e, statement.Quote(fmt.Sprintf("pgwaltz term %d", i)))
		name := statement.Quote(fmt.Sprintf("pgwaltz term %d", i))
		and := " and "
		if i == 0 {
			and = ""
		}
		fmt.Fprintf(&same, "%s(y.%[2]s operator(%[3]s) x.%[2]s", and, name, u.operators[i])
		if u.nulls {
			fmt.Fprintf(&same, " or y.%[1]s is null and x.%[1]s is null", name)
		}
		same.WriteString(")")
	}
	for i, k := range t.Rel.PrimaryKey {
		if i > 0 {
			other.WriteString(" and ")
		}
		name := statement.Quote(t.names[k])
		fmt.Fprintf(&other, "y.%[1]s = x.%[1]s", name)
	}
	where := ""
	if u.where != "" {
		where = " where " + u.where
	}
	var shown strings.Builder
	for _, n := range t.names {
		fmt.Fprintf(&shown, ", y.%s", statement.Quote(n))
	}
	numbers := make([]string, len(t.names))
	for i := range numbers {
		numbers[i] = fmt.Sprintf("v%d", i)
	}
	table := t.to.Table
	if t.to.Only {
		table = "only " + table
	}
	return fmt.Sprintf(`select x."pgwaltz row"%s, y."pgwaltz whole" from (select "pgwaltz row"%s%s from (select "pgwaltz row"%s from unnest(%s) with ordinality as u(%s, "pgwaltz row")) n%s) x
join (select *%s, pg_catalog.to_jsonb(z)::text as "pgwaltz whole" from %s as z%s) y on %s and not (%s)`,
		shown.String(), columns.String(), terms.String(), casts.String(), given.String(), strings.Join(numbers, ", "), where, terms.String(), table, where, same.String(), other.String())
}

func comma(i int) string {
	if i == 0 {
		return ""
	}
	return ", "
}

// RowsThere reads the rows of these keys from the destination, nil where there is none.
func (t *Table) RowsThere(ctx context.Context, destination *pgx.Conn, keys [][]string) ([]wal.Tuple, error) {
	return t.rowsOf(ctx, destination, t.to, keys)
}

// Rows reads the rows of these keys from the source, nil where there is none.
func (t *Table) Rows(ctx context.Context, source *pgx.Conn, keys [][]string) ([]wal.Tuple, error) {
	return t.rowsOf(ctx, source, t.from, keys)
}

// Present says which of the rows' keys the source has.
func (t *Table) Present(ctx context.Context, source *pgx.Conn, rows []wal.Tuple) ([]bool, error) {
	return t.present(ctx, source, t.from, rows)
}

// KeyOf is the primary key of a row.
func (t *Table) KeyOf(row wal.Tuple) []string { return t.keyOf(row) }

// Deletes makes deletes of rows as the destination has them. at is the source's clock at the reading.
func (t *Table) Deletes(ctx context.Context, destination *pgx.Conn, rows []wal.Tuple, at wal.Micros) ([]wal.Change, error) {
	return t.deletes(ctx, destination, rows, at)
}

const referencingSQL = `select n.nspname::text, c.relname::text, array(select a.attname::text from pg_catalog.unnest(f.conkey) with ordinality k(num, ord)
    join pg_catalog.pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.num order by k.ord),
  array(select a.attname::text from pg_catalog.unnest(f.confkey) with ordinality k(num, ord) join pg_catalog.pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.num order by k.ord)
from pg_catalog.pg_constraint f join pg_catalog.pg_class c on c.oid = f.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where f.contype = 'f' and f.confrelid = $1::text::pg_catalog.regclass and f.conparentid = 0`

// Referenced says of each of some rows of the destination which table there has rows that reference it, "" for none. A table that the role may not
// read counts as one that has.
func (t *Table) Referenced(ctx context.Context, destination *pgx.Conn, rows []wal.Tuple) ([]string, error) {
	type reference struct {
		schema, table string
		from, to      []string
	}
	var list []reference
	found, err := destination.Query(ctx, referencingSQL, t.to.Table)
	if err != nil {
		return nil, fmt.Errorf("read what references %s: %w", t.Rel, err)
	}
	var r reference
	if _, err := pgx.ForEachRow(found, []any{&r.schema, &r.table, &r.from, &r.to}, func() error {
		list = append(list, r)
		r = reference{}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read what references %s: %w", t.Rel, err)
	}
	types, err := t.typesThere(ctx, destination)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(rows))
	for _, r := range list {
		var on, key []string
		for i := range r.from {
			on = append(on, fmt.Sprintf("c.%s = p.%s", statement.Quote(r.from[i]), statement.Quote(r.to[i])))
		}
		for i, k := range t.Rel.PrimaryKey {
			key = append(key, fmt.Sprintf("p.%s = $%d::text::%s", statement.Quote(t.names[k]), i+1, types[k]))
		}
		sql := fmt.Sprintf("select exists (select from %s p join %s c on %s where %s)", t.to.Table, pg.QuoteTable(r.schema, r.table), strings.Join(on, " and "), strings.Join(key, " and "))
		for n, row := range rows {
			var args []any
			for _, k := range t.keyOf(row) {
				args = append(args, k)
			}
			var is bool
			err := destination.QueryRow(ctx, sql, args...).Scan(&is)
			if err != nil && pg.Code(err) != "42501" {
				return nil, fmt.Errorf("look for rows that reference %s: %w", t.Rel, err)
			}
			if is || err != nil {
				out[n] = r.schema + "." + r.table
			}
		}
	}
	return out, nil
}
