package quarantine

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// LeftOutSchema creates the table of which tables changes of an origin were left out here, because this region's configuration
// did not select them. The schema pgwaltz must exist. It may be run again. A row stays until the origin has been asked for the
// rows of the table, which is when it is selected; schema * stands for tables that are not named (Unnamed).
const LeftOutSchema = `create table if not exists pgwaltz.left_out (
  origin      text not null,
  schema_name text not null,
  table_name  text not null,
  primary key (origin, schema_name, table_name)
)`

// Unnamed stands for tables of which changes were left out, and that were too many to be named. In pgwaltz.left_out its
// name goes on with what the region selected then (UnnamedUnder): as long as that stays, none of them is selected.
var Unnamed = wal.RelationName{Schema: "*", Name: "*"}

// UnnamedUnder stands for such tables in pgwaltz.left_out, where a configuration selected what selection names.
func UnnamedUnder(selection string) wal.RelationName {
	return wal.RelationName{Schema: Unnamed.Schema, Name: Unnamed.Name + selection}
}

// IsUnnamed reports whether a name of pgwaltz.left_out stands for tables that are not named.
func IsUnnamed(n wal.RelationName) bool { return n.Schema == Unnamed.Schema }

// maxLeftOut bounds the names of one origin.
const maxLeftOut = 1000

// noteLeftOut notes that changes of a table were left out.
func noteLeftOut(ctx context.Context, c *pgx.Conn, origin string, table wal.RelationName, selection string) error {
	unnamed := UnnamedUnder(selection)
	if table == Unnamed {
		table = unnamed
	}
	_, err := c.Exec(ctx, `insert into pgwaltz.left_out (origin, schema_name, table_name)
select $1, case when room then $2 else $4 end, case when room then $3 else $5 end
from (select exists (select from pgwaltz.left_out where origin = $1 and schema_name = $2 and table_name = $3)
  or (select count(*) from pgwaltz.left_out where origin = $1) < $6) t(room)
on conflict do nothing`, origin, table.Schema, table.Name, unnamed.Schema, unnamed.Name, int64(maxLeftOut))
	if err != nil {
		return fmt.Errorf("note a table that is left out: %w", err)
	}
	return nil
}

// LeftOut lists the tables of which changes of an origin were left out.
func LeftOut(ctx context.Context, c *pgx.Conn, origin string) ([]wal.RelationName, error) {
	rows, err := c.Query(ctx, `select schema_name, table_name from pgwaltz.left_out where origin = $1 order by 1, 2`, origin)
	if err != nil {
		return nil, fmt.Errorf("read tables that were left out: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[wal.RelationName])
	if err != nil {
		return nil, fmt.Errorf("read tables that were left out: %w", err)
	}
	return list, nil
}

// TakenIn notes that an origin sends the rows of these tables again.
func TakenIn(ctx context.Context, c *pgx.Conn, origin string, tables []wal.RelationName) error {
	schemas, names := make([]string, len(tables)), make([]string, len(tables))
	for i, t := range tables {
		schemas[i], names[i] = t.Schema, t.Name
	}
	_, err := c.Exec(ctx, `delete from pgwaltz.left_out where origin = $1
  and (schema_name, table_name) in (select s, t from unnest($2::text[], $3::text[]) as u(s, t))`, origin, schemas, names)
	if err != nil {
		return fmt.Errorf("note tables that are taken in: %w", err)
	}
	return nil
}
