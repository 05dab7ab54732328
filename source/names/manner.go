package names

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Manner is how a table was published when all of its changes were known to be in the stream. It outlives
// the process, so that what a publication left out meanwhile is noticed afterwards.
type Manner struct {
	// At is another text whenever the publication was altered, or the table was taken out of it and put back.
	At string
	// Filter is the row filter and the list of columns that are meant to be, as the catalog has them.
	Filter string
	// Leaves: its partitions are named instead of the table, and are meant to be.
	Leaves bool
}

// Manners returns what SetManners was told.
func Manners(ctx context.Context, q Querier) (map[wal.RelationName]Manner, error) {
	rows, err := q.Query(ctx, `select schema_name, table_name, manner, filter, leaves from pgwaltz.name where manner is not null`)
	if err != nil {
		return nil, fmt.Errorf("read how tables were published: %w", err)
	}
	out := map[wal.RelationName]Manner{}
	var n wal.RelationName
	var m Manner
	if _, err := pgx.ForEachRow(rows, []any{&n.Schema, &n.Name, &m.At, &m.Filter, &m.Leaves}, func() error { out[n] = m; return nil }); err != nil {
		return nil, fmt.Errorf("read how tables were published: %w", err)
	}
	return out, nil
}

// SetManners notes how tables are published; what is known of others stays.
func SetManners(ctx context.Context, q Querier, tables map[wal.RelationName]Manner) error {
	var schemas, names, at, filters []string
	var leaves []bool
	for n, m := range tables {
		schemas, names, at, filters, leaves = append(schemas, n.Schema), append(names, n.Name), append(at, m.At), append(filters, m.Filter), append(leaves, m.Leaves)
	}
	_, err := q.Exec(ctx, `insert into pgwaltz.name as k (schema_name, table_name, manner, filter, leaves)
select s, t, a, f, l from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bool[]) as u(s, t, a, f, l)
on conflict (schema_name, table_name) do update set manner = excluded.manner, filter = excluded.filter, leaves = excluded.leaves`, schemas, names, at, filters, leaves)
	if err != nil {
		return fmt.Errorf("note how tables are published: %w", err)
	}
	return nil
}

// AcceptManners forgets how tables were published: as they are at the next look they are meant to be.
func AcceptManners(ctx context.Context, q Querier) error {
	if _, err := q.Exec(ctx, `update pgwaltz.name set manner = null where manner is not null`); err != nil {
		return fmt.Errorf("accept how tables are published: %w", err)
	}
	return nil
}
