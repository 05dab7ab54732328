package apply

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Many rows may wait for a unique value each (23505). Which of them still meet a row that has
// theirs can be read without a transaction id, so only the others are tried.

// screenPage is how many changes are looked at in one query.
const screenPage = 500

// uniqueIndex is an index whose columns are plain columns.
type uniqueIndex struct {
	columns   []string
	predicate string // "" for none
}

// isKey reports whether the index is over the key columns and nothing else.
func (x *uniqueIndex) isKey(rel *wal.Relation) bool {
	key := rel.KeyColumns()
	if len(key) != len(x.columns) || x.predicate != "" {
		return false
	}
	for _, c := range key {
		if !slices.Contains(x.columns, rel.Columns[c].Name) {
			return false
		}
	}
	return true
}

const uniqueSQL = `select (select pg_catalog.array_agg(a.attname::text order by k.n)
    from pg_catalog.unnest(i.indkey::int2[]) with ordinality k(num, n)
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.num where k.n <= i.indnkeyatts),
  coalesce(pg_catalog.pg_get_expr(i.indpred, i.indrelid), '')
from pg_catalog.pg_index i
where i.indrelid = $1::text::pg_catalog.regclass and i.indisunique and i.indisvalid and i.indexprs is null`

// screen returns those of the given changes of one table that no unique value is in the way
// of. It reports false when that cannot be told.
func (r *Retrier) screen(ctx context.Context, k parked.Queue, ids []int64) (free []int64, ok bool, err error) {
	a := r.a
	changes, err := parked.Read(ctx, a.conn, ids)
	if err != nil || len(changes) == 0 {
		return nil, false, err
	}
	table, err := loadSchema(ctx, a.conn, k.Relation, a.cfg.Replica)
	if err != nil {
		if rowError(err) {
			err = nil
		}
		return nil, false, err
	}
	indexes, err := r.uniqueIndexes(ctx, quoted(k.Relation))
	if err != nil || len(indexes) == 0 {
		return nil, false, err
	}
	blocked := map[int64]bool{}
	for _, x := range indexes {
		if x.isKey(changes[0].Waiting.Relation) {
			continue // its own row
		}
		sql, args, ok := screenQuery(table, x, changes)
		if !ok {
			return nil, false, nil
		}
		rows, err := a.conn.Query(ctx, sql, args...)
		if err != nil {
			return nil, false, nil
		}
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				break
			}
			blocked[id] = true
		}
		rows.Close()
		if rows.Err() != nil {
			if causeOf(rows.Err()) != causeRow {
				return nil, false, rows.Err()
			}
			return nil, false, nil // an operator that is not found here, say
		}
	}
	for _, c := range changes {
		if !blocked[c.ID] {
			free = append(free, c.ID)
		}
	}
	return free, true, nil
}

func (r *Retrier) uniqueIndexes(ctx context.Context, table string) ([]uniqueIndex, error) {
	rows, err := r.a.conn.Query(ctx, uniqueSQL, table)
	if err != nil {
		return nil, fmt.Errorf("read unique indexes of %s: %w", table, err)
	}
	defer rows.Close()
	var out []uniqueIndex
	for rows.Next() {
		var x uniqueIndex
		if err := rows.Scan(&x.columns, &x.predicate); err != nil {
			return nil, fmt.Errorf("read unique indexes of %s: %w", table, err)
		}
		out = append(out, x)
	}
	if causeOf(rows.Err()) == causeRow {
		return nil, nil // the table is gone
	}
	return out, rows.Err()
}

// screenQuery finds the changes whose values another row of the table has in the index's
// columns: $1 are their ids, then an array of texts for each column. It reports false when a
// value has no text form here.
func screenQuery(table *tableSchema, x uniqueIndex, changes []*parked.Change) (string, []any, bool) {
	rel := changes[0].Waiting.Relation
	columns := slices.Clone(x.columns)
	for _, c := range rel.KeyColumns() {
		columns = append(columns, rel.Columns[c].Name)
	}
	ids := make([]int64, len(changes))
	args := []any{ids}
	var sources, names, same, itself []string
	for n, name := range columns {
		at, known := table.index[name]
		if !known {
			return "", nil, false
		}
		values := make([]*string, len(changes))
		for i, c := range changes {
			ids[i] = c.ID
			text, ok := screenValue(&c.Waiting, name)
			if !ok {
				return "", nil, false
			}
			values[i] = text
		}
		args = append(args, values)
		source := fmt.Sprintf("v%d", n)
		names, sources = append(names, source), append(sources, fmt.Sprintf("$%d::text[]", n+2))
		equal := fmt.Sprintf("t.%s = u.%s::%s", statement.Quote(name), source, table.columns[at].typ)
		if n < len(x.columns) {
			same = append(same, equal)
		} else {
			itself = append(itself, equal)
		}
	}
	if x.predicate != "" {
		same = append(same, "("+x.predicate+")")
	}
	only := ""
	if table.plain {
		only = "only " // rows of its children are under indexes of their own
	}
	sql := "select u.id from unnest($1::int8[], " + strings.Join(sources, ", ") + ") as u(id, " + strings.Join(names, ", ") + ")" +
		" where exists (select from " + only + quoted(table.name) + " as t where " + strings.Join(same, " and ")
	if len(itself) > 0 {
		sql += " and (" + strings.Join(itself, " and ") + ") is not true"
	}
	return sql + ")", args, true
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
