package copy

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// parentsFirst orders jobs so that a table comes behind those that its foreign keys name, where
// no circle forbids it; otherwise the order stays.
func parentsFirst(jobs []Job, parents map[wal.RelationName][]wal.RelationName) []Job {
	depth := map[wal.RelationName]int{}
	var visit func(t wal.RelationName) int
	visit = func(t wal.RelationName) int {
		if d, ok := depth[t]; ok {
			return d
		}
		depth[t] = 0 // a circle ends here
		d := 0
		for _, p := range parents[t] {
			if p != t {
				d = max(d, visit(p)+1)
			}
		}
		depth[t] = d
		return d
	}
	out := slices.Clone(jobs)
	slices.SortStableFunc(out, func(a, b Job) int { return visit(a.Table) - visit(b.Table) })
	return out
}

// foreignKeys tells for each table which ones it refers to.
func foreignKeys(ctx context.Context, c *pgx.Conn) (map[wal.RelationName][]wal.RelationName, error) {
	rows, err := c.Query(ctx, `select n.nspname::text, r.relname::text, pn.nspname::text, p.relname::text from pg_catalog.pg_constraint f
join pg_catalog.pg_class r on r.oid = f.conrelid join pg_catalog.pg_namespace n on n.oid = r.relnamespace
join pg_catalog.pg_class p on p.oid = f.confrelid join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace
where f.contype = 'f' order by 1, 2, 3, 4`)
	if err != nil {
		return nil, fmt.Errorf("read foreign keys: %w", err)
	}
	out := map[wal.RelationName][]wal.RelationName{}
	var child, parent wal.RelationName
	if _, err := pgx.ForEachRow(rows, []any{&child.Schema, &child.Name, &parent.Schema, &parent.Name}, func() error {
		out[child] = append(out[child], parent)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read foreign keys: %w", err)
	}
	return out, nil
}
