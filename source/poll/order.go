package poll

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

const foreignKeysSQL = `select n.nspname::text, c.relname::text, rn.nspname::text, r.relname::text from pg_catalog.pg_constraint k
join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_class r on r.oid = k.confrelid join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace where k.contype = 'f' and k.conrelid <> k.confrelid`

// ParentsFirst puts tables into an order in which what is referenced comes before what references it, as far as there is one.
// conn is the destination, whose foreign keys matter. Other than that the order stays.
func ParentsFirst(ctx context.Context, conn *pgx.Conn, tables []*Table) ([]*Table, error) {
	parents := map[wal.RelationName][]wal.RelationName{}
	rows, err := conn.Query(ctx, foreignKeysSQL)
	if err != nil {
		return nil, fmt.Errorf("read foreign keys: %w", err)
	}
	var child, parent wal.RelationName
	if _, err := pgx.ForEachRow(rows, []any{&child.Schema, &child.Name, &parent.Schema, &parent.Name}, func() error {
		parents[child] = append(parents[child], parent)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read foreign keys: %w", err)
	}
	byName := map[wal.RelationName]*Table{}
	for _, t := range tables {
		byName[t.Rel.Ref()] = t
	}
	var out []*Table
	seen := map[wal.RelationName]bool{}
	var visit func(t *Table)
	visit = func(t *Table) {
		if t == nil || seen[t.Rel.Ref()] {
			return
		}
		seen[t.Rel.Ref()] = true // before its parents: a circle of references ends here
		for _, p := range parents[t.Rel.Ref()] {
			visit(byName[p])
		}
		out = append(out, t)
	}
	for _, t := range tables {
		visit(t)
	}
	return out, nil
}
