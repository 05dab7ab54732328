package parked

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// ApartState is the SQLSTATE of changes that name a table here while they belong into another one, because tables have swapped
// their names in one region only. They wait under names that no table has (Apart), so that they meet nothing that waits for another
// table, and table_oid is the one that they belong into. They are not tried before Rejoin.
const ApartState = "PW007"

// Apart is the name under which changes wait that came by a name, and are of a table of an origin, known by its number there.
func Apart(n wal.RelationName, origin string, table uint32) wal.RelationName {
	return wal.RelationName{Schema: n.Schema, Name: fmt.Sprintf("%s [%d of %s]", n.Name, table, origin)}
}

// ParseApart returns the name by which such changes came, and the table of their origin. It reports false for any other name.
func ParseApart(n wal.RelationName) (came wal.RelationName, table uint32, ok bool) {
	at := strings.LastIndex(n.Name, " [")
	if at < 0 {
		return came, 0, false
	}
	if _, err := fmt.Sscanf(n.Name[at:], " [%d of ", &table); err != nil {
		return came, 0, false
	}
	return wal.RelationName{Schema: n.Schema, Name: n.Name[:at]}, table, true
}

// Group is the changes that wait under one such name.
type Group struct {
	Origin string
	Name   wal.RelationName // Apart
	Table  uint32           // here
	// Is is what the table is called here now; empty when it is gone.
	Is wal.RelationName
}

// Groups lists what waits so, up to a limit: where there is more, others each time.
func Groups(ctx context.Context, q Querier, limit int) ([]Group, error) {
	rows, err := q.Query(ctx, `select p.origin, p.schema_name, p.table_name, p.table_oid::int8, coalesce(n.nspname::text, ''), coalesce(c.relname::text, '') from (
  select distinct origin, schema_name, table_name, table_oid from pgwaltz.parked where sqlstate = $1) as p
left join pg_catalog.pg_class c on c.oid = p.table_oid and c.relkind in ('r', 'p') left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
order by pg_catalog.random() limit $2`, ApartState, limit)
	if err != nil {
		return nil, fmt.Errorf("look for changes of tables that have swapped their names: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (g Group, err error) {
		var table int64
		err = r.Scan(&g.Origin, &g.Name.Schema, &g.Name.Name, &table, &g.Is.Schema, &g.Is.Name)
		g.Table = uint32(table)
		return g, err
	})
	if err != nil {
		return nil, fmt.Errorf("look for changes of tables that have swapped their names: %w", err)
	}
	return list, nil
}

// SetApart lets a change wait by itself, under name, for the table that it belongs into. Where another one waits so under its key, it stays as it is.
func SetApart(ctx context.Context, q Querier, id int64, name wal.RelationName, table uint32, message string, x *Index) error {
	rows, err := q.Query(ctx, `update pgwaltz.parked p set schema_name = $2, table_name = $3, table_oid = $4::int8::oid, sqlstate = $5, message = $6, wanted = false,
  attempts = attempts + 1, retried_at = pg_catalog.now() where p.id = $1
  and not exists (select from pgwaltz.parked o where o.schema_name = $2 and o.table_name = $3 and o.key = p.key)
returning p.key`, id, name.Schema, name.Name, int64(table), ApartState, message)
	if err != nil {
		return fmt.Errorf("set a change apart: %w", err)
	}
	var key string
	if _, err := pgx.ForEachRow(rows, []any{&key}, func() error { x.Put(name, key); return nil }); err != nil {
		return fmt.Errorf("set a change apart: %w", err)
	}
	if _, err := q.Exec(ctx, `update pgwaltz.parked set wanted = false where id = $1 and wanted`, id); err != nil {
		return fmt.Errorf("set a change apart: %w", err)
	}
	return nil
}

// Rejoin lets the changes of a group wait under the name of a table here, and for that; state is under which. They are tried again. Where something
// waits there under the same key, they stay until that is gone. It returns the tables that any of them belong to. With more, there may be others: it is called again.
func Rejoin(ctx context.Context, q Querier, g *Group, name wal.RelationName, table uint32, state string, x *Index) (tables []wal.RelationName, more bool, err error) {
	return follow(ctx, q, x, `, table_oid = $4::int8::oid, sqlstate = $5`, []any{int64(table), state}, `from pgwaltz.parked p, (values ($4::text, $5::text)) as u(s, t)
where p.origin = $1 and p.schema_name = $2 and p.table_name = $3 and p.sqlstate = $6 and `+free, g.Origin, g.Name.Schema, g.Name.Name, name.Schema, name.Name, ApartState)
}
