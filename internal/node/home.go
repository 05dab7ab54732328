package node

import (
	"context"
	"fmt"
	"strconv"
)

// HomeSchema creates the table that says where the tables of schema pgwaltz are; the schema must exist. It may be
// run again. A dump takes the row along, and so tells that it was restored elsewhere: also in another database of
// the same server, whose identifier tells nothing.
const HomeSchema = `create table if not exists pgwaltz.home (
  one       boolean primary key default true check (one),
  system_id numeric not null,
  database  oid not null
)`

const hereSQL = `$1::text::numeric, (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())`

// Elsewhere reports whether the tables were in another database when a sidecar was here last (Settle): of another
// server, or another one of this server. A database that was renamed is no other one.
func Elsewhere(ctx context.Context, c Conn, systemID uint64) (other bool, err error) {
	err = c.QueryRow(ctx, `select exists (select from pgwaltz.home where (system_id, database) <> (`+hereSQL+`))`, strconv.FormatUint(systemID, 10)).Scan(&other)
	if err != nil {
		return false, fmt.Errorf("look where schema pgwaltz was before: %w", err)
	}
	return other, nil
}

// Settle notes that the tables are here, once everything in them that depends on the place is adopted.
func Settle(ctx context.Context, c Conn, systemID uint64) error {
	_, err := c.Exec(ctx, `insert into pgwaltz.home as h (system_id, database) select `+hereSQL+`
on conflict (one) do update set system_id = excluded.system_id, database = excluded.database where (h.system_id, h.database) <> (excluded.system_id, excluded.database)`,
		strconv.FormatUint(systemID, 10))
	if err != nil {
		return fmt.Errorf("note where schema pgwaltz is: %w", err)
	}
	return nil
}
