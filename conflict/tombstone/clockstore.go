package tombstone

import (
	"context"
	"fmt"

	"github.com/pgwaltz/pgwaltz/wal"
)

// ClockSchema is the DDL of what Clock needs at the beginning of a decoding: the highest time of
// this region's transactions below a position.
const ClockSchema = `create table if not exists pgwaltz.clock (
  lsn pg_lsn primary key,
  at  bigint not null
)`

// LoadClock reads the highest time of the transactions below a position at which a decoding
// begins; 0 when there was none.
func LoadClock(ctx context.Context, q Querier, from wal.LSN) (wal.Micros, error) {
	rows, err := q.Query(ctx, `select at from pgwaltz.clock where lsn <= $1::text::pg_lsn order by lsn desc limit 1`, from.String())
	if err != nil {
		return 0, fmt.Errorf("read the clock of the WAL: %w", err)
	}
	defer rows.Close()
	var at int64
	for rows.Next() {
		if err := rows.Scan(&at); err != nil {
			return 0, fmt.Errorf("read the clock of the WAL: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("read the clock of the WAL: %w", err)
	}
	return wal.Micros(at), nil
}

// ClockAt is the highest time of the transactions below a position, as it is stored.
type ClockAt struct {
	LSN  wal.LSN
	High wal.Micros
}

// StoredClock reads what is stored from a position on, rising, behind what LoadClock says of that
// position.
func StoredClock(ctx context.Context, q Querier, from wal.LSN) ([]ClockAt, error) {
	high, err := LoadClock(ctx, q, from)
	if err != nil {
		return nil, err
	}
	out := []ClockAt{{from, high}}
	rows, err := q.Query(ctx, `select (lsn - '0/0'::pg_lsn)::int8, at from pgwaltz.clock where lsn > $1::text::pg_lsn order by lsn`, from.String())
	if err != nil {
		return nil, fmt.Errorf("read the clock of the WAL: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var lsn, at int64
		if err := rows.Scan(&lsn, &at); err != nil {
			return nil, fmt.Errorf("read the clock of the WAL: %w", err)
		}
		out = append(out, ClockAt{wal.LSN(lsn), wal.Micros(at)})
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the clock of the WAL: %w", err)
	}
	return out, nil
}

// SaveClock stores the highest time of the transactions below a position. It has to be on disk
// before the position is confirmed.
func SaveClock(ctx context.Context, q Querier, at wal.LSN, high wal.Micros) error {
	_, err := q.Exec(ctx, `insert into pgwaltz.clock as c (lsn, at) values ($1::text::pg_lsn, $2) on conflict (lsn) do update set at = excluded.at where c.at <> excluded.at`,
		at.String(), int64(high))
	if err != nil {
		return fmt.Errorf("store the clock of the WAL: %w", err)
	}
	return nil
}

// adoptClock is Adopt for the clock. Of a region that was moved, what is stamped from now on is above all
// times of before. Times that a restored server has lost do not count: what lies below them has its own.
const adoptClock = `with gone as (
  delete from pgwaltz.clock where lsn > '0/0' and ($1 or lsn > pg_catalog.pg_current_wal_insert_lsn()) returning at
)
insert into pgwaltz.clock as c (lsn, at) select '0/0', max(at) from gone where $1 having count(*) > 0
on conflict (lsn) do update set at = greatest(c.at, excluded.at)`

// TrimClock removes what no decoding can begin with any more: the slot never goes back to a
// position in front of horizon.
func TrimClock(ctx context.Context, q Querier, horizon wal.LSN) error {
	_, err := q.Exec(ctx, `delete from pgwaltz.clock where lsn < (select max(lsn) from pgwaltz.clock where lsn <= $1::text::pg_lsn)`, horizon.String())
	if err != nil {
		return fmt.Errorf("trim the clock of the WAL: %w", err)
	}
	return nil
}
