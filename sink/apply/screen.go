package apply

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/rowkey"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Many rows may wait for a unique value each (23505). Which of them still meet a row that has
// theirs can be read without a transaction id, so only the others are tried.

// screenPage is how many changes are looked at in one query.
const screenPage = 500

// rule is a unique index or an exclusion constraint.
type rule struct {
	statement.Constraint
	columns []string // what it is over, "" for an expression
	needs   []string // the columns that it is over, and those of its expressions and its condition
}

// isKey reports whether the rule is over the key columns and nothing else.
func (x *rule) isKey(rel *wal.Relation) bool {
	key := rel.KeyColumns()
	if len(key) != len(x.columns) || x.Where != "" {
		return false
	}
	for _, c := range key {
		if !slices.Contains(x.columns, rel.Columns[c].Name) {
			return false
		}
	}
	return true
}

// rulesSQL reads the unique indexes of a table and its exclusion constraints.
const rulesSQL = `with x as materialized (
  select i.*, i.indkey::int2[] as atts, i.indclass::oid[] as classes, i.indcollation::oid[] as colls, con.conexclop
  from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid join pg_catalog.pg_am m on m.oid = c.relam
  left join pg_catalog.pg_constraint con on con.conindid = i.indexrelid and con.contype in ('p', 'u', 'x') and con.conexclop is not null
  where i.indrelid = $1::text::pg_catalog.regclass and i.indisvalid and (i.indisunique and m.amname = 'btree' or con.conexclop is not null)
)
select array(select pg_catalog.pg_get_indexdef(x.indexrelid, k.n, false)
      || coalesce((select pg_catalog.format(' collate %I.%I', n.nspname, l.collname) from pg_catalog.pg_collation l
        join pg_catalog.pg_namespace n on n.oid = l.collnamespace where l.oid = x.colls[k.n - 1]), '')
    from pg_catalog.generate_series(1, x.indnkeyatts) as k(n) order by k.n),
  array(select pg_catalog.format('%I.%s', n.nspname, o.oprname) from pg_catalog.generate_series(1, x.indnkeyatts) as k(n)
    join pg_catalog.pg_opclass c on c.oid = x.classes[k.n - 1]
    join pg_catalog.pg_operator o on o.oid = case when x.conexclop is not null then x.conexclop[k.n]
      else (select m.amopopr from pg_catalog.pg_amop m where m.amopfamily = c.opcfamily and m.amoplefttype = c.opcintype
        and m.amoprighttype = c.opcintype and m.amopstrategy = 3) end
    join pg_catalog.pg_namespace n on n.oid = o.oprnamespace order by k.n),
  coalesce(pg_catalog.pg_get_expr(x.indpred, x.indrelid), ''), coalesce((pg_catalog.to_jsonb(x) ->> 'indnullsnotdistinct')::bool, false),
  array(select coalesce(a.attname::text, '') from pg_catalog.generate_series(1, x.indnkeyatts) as k(n)
    left join pg_catalog.pg_attribute a on a.attrelid = x.indrelid and a.attnum = x.atts[k.n - 1] and a.attnum > 0 order by k.n),
  array(select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = x.indrelid and a.attnum > 0 and (a.attnum = any(x.atts[0:x.indnkeyatts - 1]) or a.attnum in (
    select d.refobjsubid from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = x.indexrelid
      and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = x.indrelid)) order by a.attnum)
from x`

// screen returns those of the given changes of one table that no unique value is in the way
// of. It reports false when that cannot be told.
func (r *Retrier) screen(ctx context.Context, k parked.Queue, ids []int64) (free []int64, ok bool, err error) {
	changes, err := parked.Read(ctx, r.a.conn, ids)
	if err != nil || len(changes) == 0 {
		return nil, false, err
	}
	blocked := map[int64]bool{}
	rows := slices.DeleteFunc(slices.Clone(changes), func(c *parked.Change) bool { return c.Waiting.Op == wal.Delete })
	if len(rows) > 0 {
		ok, err = r.inTheWay(ctx, k.Relation, rows, false, func(id, _ int64) { blocked[id] = true })
		if err != nil || !ok {
			return nil, false, err
		}
	}
	for _, c := range changes {
		if !blocked[c.ID] {
			free = append(free, c.ID)
		}
	}
	return free, true, nil
}

// inTheWay tells of each of some changes of one table that another row has a unique value of it, or excludes it. With rivals it
// says which of the changes is of the key of that row, 0 for none. It reports false when all that cannot be told.
func (r *Retrier) inTheWay(ctx context.Context, name wal.RelationName, changes []*parked.Change, rivals bool, found func(id, rival int64)) (bool, error) {
	a := r.a
	table, err := loadSchema(ctx, a.conn, name, a.cfg.Replica)
	if err != nil {
		if rowError(err) {
			err = nil
		}
		return false, err
	}
	rules, err := r.rules(ctx, quoted(name))
	if err != nil || len(rules) == 0 {
		return false, err
	}
	rel := changes[0].Waiting.Relation
	s := statement.Shape{Table: quoted(table.name), Only: table.plain} // rows of its children are under indexes of their own
	for _, c := range rel.KeyColumns() {
		i := slices.IndexFunc(table.key.Columns, func(k rowkey.Column) bool { return k.Name == rel.Columns[c].Name })
		if i < 0 {
			return false, nil
		}
		s.Key = append(s.Key, table.key.Columns[i].Param)
	}
	if rivals && len(s.Key) == 0 {
		return false, nil
	}
	for _, x := range rules {
		if x.isKey(rel) {
			continue // its own row
		}
		columns, ok := table.typed(x.needs, s.Key)
		if !ok {
			return false, nil
		}
		args, ok := screenArgs(changes, columns)
		if !ok {
			return false, nil
		}
		rows, err := a.conn.Query(ctx, statement.Taken(s, x.Constraint, columns, rivals), args...)
		if err != nil {
			return false, nil
		}
		if ok, err := pairs(rows, found); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

// stateExcluded is the SQLSTATE of changes that an exclusion constraint is in the way of.
const stateExcluded = "23P01"

// pairs reads rows of one number or two, NULL as 0. It reports false when the server refuses them.
func pairs(rows pgx.Rows, found func(one, two int64)) (bool, error) {
	defer rows.Close()
	for rows.Next() {
		var one int64
		two := new(int64)
		if err := rows.Scan([]any{&one, &two}[:len(rows.FieldDescriptions())]...); err != nil {
			break
		}
		if two == nil {
			two = new(int64)
		}
		found(one, *two)
	}
	rows.Close()
	if rows.Err() != nil && causeOf(rows.Err()) != causeRow {
		return false, rows.Err()
	}
	return rows.Err() == nil, nil // a value that the type does not take any more, say
}

// typed returns the named columns and those of a key, each once, with their types. It reports false when one is not there.
func (s *tableSchema) typed(names []string, key []statement.Param) (columns []statement.Param, ok bool) {
	names = slices.Clone(names)
	for _, p := range key {
		if !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
		}
	}
	for _, name := range names {
		at, known := s.index[name]
		if !known {
			return nil, false
		}
		columns = append(columns, statement.Param{Name: name, Type: s.columns[at].typ, Input: s.columns[at].input})
	}
	return columns, true
}

// rules reads the unique indexes of a table and its exclusion constraints.
func (r *Retrier) rules(ctx context.Context, table string) ([]rule, error) {
	rows, err := r.a.conn.Query(ctx, rulesSQL, table)
	if err != nil {
		return nil, fmt.Errorf("read unique indexes of %s: %w", table, err)
	}
	defer rows.Close()
	var out []rule
	for rows.Next() {
		var x rule
		var terms, operators []string
		if err := rows.Scan(&terms, &operators, &x.Where, &x.Nulls, &x.columns, &x.needs); err != nil {
			return nil, fmt.Errorf("read unique indexes of %s: %w", table, err)
		}
		if len(operators) != len(terms) {
			return nil, nil // what the index calls equal is not known
		}
		for i := range terms {
			x.Terms = append(x.Terms, statement.Term{Expr: terms[i], Operator: operators[i]})
		}
		out = append(out, x)
	}
	if causeOf(rows.Err()) == causeRow {
		return nil, nil // the table is gone
	}
	return out, rows.Err()
}

// screenArgs are the parameters of statement.Taken for some changes. It reports false when a value has no text form here.
func screenArgs(changes []*parked.Change, columns []statement.Param) ([]any, bool) {
	ids := make([]int64, len(changes))
	for i, c := range changes {
		ids[i] = c.ID
	}
	args := []any{ids}
	for _, p := range columns {
		values := make([]*string, len(changes))
		for i, c := range changes {
			text, ok := screenValue(&c.Waiting, p.Name)
			if !ok {
				return nil, false
			}
			values[i] = text
		}
		args = append(args, values)
	}
	return args, true
}

// screenValue is the text of one column of a waiting row; nil for NULL.
func screenValue(w *conflict.Waiting, column string) (*string, bool) {
	at := w.Relation.Column(column)
	if at < 0 || at >= len(w.Image) {
		return nil, false
	}
	if w.Image[at].Kind == wal.Null {
		return nil, true
	}
	text, ok := wal.AppendText(nil, w.Relation.Columns[at].OID, w.Image[at])
	if !ok {
		return nil, false
	}
	s := string(text)
	return &s, true
}

func quoted(n wal.RelationName) string {
	return statement.Quote(n.Schema) + "." + statement.Quote(n.Name)
}
