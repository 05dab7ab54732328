package copy

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// UnreadSchema makes the table that says how far the tables without stamp columns were looked through for rows that were
// written in a gap (Unread). It may be run again. relid is a table or a partition, filenode and block say how far it is read;
// that of relid 0 says, with done, that all of them were looked through for the gap that ends at slot. high is the highest time
// that was noted.
const UnreadSchema = `create table if not exists pgwaltz.unread (
  relid    oid primary key,
  slot     pg_lsn not null,
  filenode oid not null default 0,
  block    bigint not null default 0,
  noted    bigint not null default 0,
  high     bigint,
  done     boolean not null default false
)`

// unreadAt is how far a table or partition is looked through.
type unreadAt struct {
	relid, filenode uint32
	block           int64
	done            bool
}

// UnreadDone reports whether all tables were looked through for the gap that ends at a position.
func UnreadDone(ctx context.Context, c Querier, slot wal.LSN) (done bool, err error) {
	err = c.QueryRow(ctx, `select exists (select from pgwaltz.unread where relid = 0 and done and slot = $1::text::pg_lsn)`, slot.String()).Scan(&done)
	if err != nil {
		return false, fmt.Errorf("ask which tables were looked through: %w", err)
	}
	return done, nil
}

// beginUnread forgets how far the tables were looked through for another gap.
func beginUnread(ctx context.Context, c Execer, slot wal.LSN) error {
	if _, err := c.Exec(ctx, `delete from pgwaltz.unread where slot <> $1::text::pg_lsn`, slot.String()); err != nil {
		return fmt.Errorf("begin to look tables through: %w", err)
	}
	return nil
}

// endUnread notes that all tables are looked through, on disk with everything that was noted. It returns how many rows were noted, and
// the highest time of those.
func endUnread(ctx context.Context, tx pgx.Tx, slot wal.LSN) (noted int64, high wal.Micros, err error) {
	if _, err := tx.Exec(ctx, "set local synchronous_commit = local"); err != nil {
		return 0, 0, fmt.Errorf("end to look tables through: %w", err)
	}
	var at *int64
	err = tx.QueryRow(ctx, `with gone as (
  delete from pgwaltz.unread where relid <> 0 returning noted, high
), done as (
  insert into pgwaltz.unread (relid, slot, done) values (0, $1::text::pg_lsn, true) on conflict (relid) do update set slot = excluded.slot, done = true
)
select coalesce(sum(noted), 0)::int8, max(high) from gone`, slot.String()).Scan(&noted, &at)
	if err != nil {
		return 0, 0, fmt.Errorf("end to look tables through: %w", err)
	}
	if high = wal.MinMicros; at != nil {
		high = wal.Micros(*at)
	}
	return noted, high, nil
}

// copyAgain makes copies of tables begin once more that are under way, or were asked for: what they have read has not the times that
// rows have by now.
func copyAgain(ctx context.Context, c Execer, tables []wal.RelationName) error {
	schemas, names := make([]string, len(tables)), make([]string, len(tables))
	for i, t := range tables {
		schemas[i], names[i] = t.Schema, t.Name
	}
	_, err := c.Exec(ctx, `update pgwaltz.copy set state = 'pending', last_key = null, rows_done = 0, sent_incarnation = null, sent_frame = null,
  applied_key = null, applied_rows = 0, applied_at = null, started_at = null, finished_at = null, requested_at = pg_catalog.clock_timestamp(), reason = null
where (schema_name, table_name) in (select * from unnest($1::text[], $2::text[])) and state in ('pending', 'running')`, schemas, names)
	if err != nil {
		return fmt.Errorf("request copy: %w", err)
	}
	return nil
}

// loadUnread reads how far a table or partition is looked through.
func loadUnread(ctx context.Context, c Querier, relid uint32) (at unreadAt, err error) {
	at.relid = relid
	err = c.QueryRow(ctx, `select filenode, block, done from pgwaltz.unread where relid = $1`, relid).Scan(&at.filenode, &at.block, &at.done)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return at, fmt.Errorf("ask how far a table was looked through: %w", err)
	}
	return at, nil
}

// saveUnread notes how far one is looked through, in the transaction that noted its rows.
func saveUnread(ctx context.Context, c Execer, at unreadAt, slot wal.LSN, noted int, high wal.Micros) error {
	var most *int64
	if noted > 0 && high != wal.MinMicros {
		n := int64(high)
		most = &n
	}
	_, err := c.Exec(ctx, `insert into pgwaltz.unread as u (relid, slot, filenode, block, noted, high, done) values ($1, $2::text::pg_lsn, $3, $4, $5, $6, $7)
on conflict (relid) do update set slot = excluded.slot, filenode = excluded.filenode, block = excluded.block, noted = u.noted + excluded.noted,
  high = greatest(u.high, excluded.high), done = excluded.done`, at.relid, slot.String(), at.filenode, at.block, int64(noted), most, at.done)
	if err != nil {
		return fmt.Errorf("note how far a table was looked through: %w", err)
	}
	return nil
}
