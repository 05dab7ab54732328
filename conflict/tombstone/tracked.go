package tombstone

import (
	"context"
	"fmt"
	"strconv"
)

// TrackedSchema is the DDL of the row that says since when the server keeps commit times.
const TrackedSchema = `create table if not exists pgwaltz.tracked (
  system_id  numeric primary key,
  since      bigint not null,
  began_at   timestamptz not null default now()
)`

// Tracked says of which rows the server knows when this region wrote them: those of transactions
// from an id on, as long as track_commit_timestamp is on. What wrote rows before that was not
// published from here, or is written down in their entries.
type Tracked struct {
	On    bool
	Since uint64
}

// Track finds out whether the server keeps commit times, and notes since when. lost reports that it
// did and does not any more: then nothing is known of the time of rows written meanwhile.
func Track(ctx context.Context, q Querier, systemID uint64) (t Tracked, lost bool, err error) {
	rows, err := q.Query(ctx, `with setting as (
  select pg_catalog.current_setting('track_commit_timestamp') = 'on' as tracks
), gone as (
  delete from pgwaltz.tracked where system_id <> $1::text::numeric or not (select tracks from setting) returning system_id
), begun as (
  insert into pgwaltz.tracked (system_id, since)
  select $1::text::numeric, pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::int8 from setting where tracks
  on conflict do nothing returning since
)
select tracks, coalesce((select since from pgwaltz.tracked where system_id = $1::text::numeric), (select since from begun), 0),
  exists (select from gone where system_id = $1::text::numeric)
from setting`, strconv.FormatUint(systemID, 10))
	if err != nil {
		return t, false, fmt.Errorf("find out whether commit times are kept: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var since int64
		if err := rows.Scan(&t.On, &since, &lost); err != nil {
			return t, false, fmt.Errorf("find out whether commit times are kept: %w", err)
		}
		t.Since = uint64(since)
	}
	if err := rows.Err(); err != nil {
		return t, false, fmt.Errorf("find out whether commit times are kept: %w", err)
	}
	return t, lost, nil
}

// Untrack forgets since when commit times are kept, where the rows came by a dump: the times of the transactions
// that restored them are not when they were written.
func Untrack(ctx context.Context, q Querier) error {
	if _, err := q.Exec(ctx, `delete from pgwaltz.tracked`); err != nil {
		return fmt.Errorf("forget since when commit times are kept: %w", err)
	}
	return nil
}

// SQL is an expression over a row t: when this region's own transaction wrote it, in microseconds;
// NULL when an applier did, or nothing is known. "" where the server does not know.
//
// The age of a transaction is counted from the id of the one that asks. So that of one which began
// later, and wrote the row before it was locked, is below 0. The server itself knows nothing of ids that
// lie ahead of all others, as those of rows that are older than the count of ids seem to.
func (t Tracked) SQL() string {
	if !t.On {
		return ""
	}
	since := `pg_catalog.age('` + strconv.FormatUint(t.Since%(1<<32), 10) + `'::xid)`
	return `(select (extract(epoch from o."timestamp") * 1000000)::int8 from pg_catalog.pg_xact_commit_timestamp_origin(t.xmin) as o where o.roident = 0
  and pg_catalog.age(t.xmin) <= case when ` + since + ` < 0 then 2147483647 else ` + since + ` end)`
}
