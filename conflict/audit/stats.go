package audit

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
)

// Stats sums up the whole log, as far as retention has left it.
type Stats struct {
	Total     int64            `json:"total"`
	ByType    map[string]int64 `json:"by_type"`
	ByVerdict map[string]int64 `json:"by_verdict"`
	LastAt    *time.Time       `json:"last_at,omitempty"`
	Last      string           `json:"last,omitempty"` // type and table of the newest
}

// ReadStats counts the log. It reads the whole table: for operators, not for every second.
func ReadStats(ctx context.Context, q Querier) (Stats, error) {
	s, _, err := ReadNewest(ctx, q)
	if err == nil {
		err = s.Count(ctx, q, math.MaxInt64)
	}
	return s, err
}

// ReadNewest reads the newest record alone, and its id; 0 where there is none. Count says how many there are up to it.
func ReadNewest(ctx context.Context, q Querier) (s Stats, id int64, err error) {
	s = Stats{ByType: map[string]int64{}, ByVerdict: map[string]int64{}}
	rows, err := q.Query(ctx, `SELECT id, detected_at, concat(type, ' on ', schema_name, '.', table_name) FROM pgwaltz.conflict ORDER BY id DESC LIMIT 1`)
	if err != nil {
		return s, 0, fmt.Errorf("read last conflict: %w", err)
	}
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{&id, &at, &s.Last}, func() error {
		s.LastAt = &at
		return nil
	}); err != nil {
		return s, 0, fmt.Errorf("read last conflict: %w", err)
	}
	return s, id, nil
}

// Count adds the records up to an id. It reads the whole table.
func (s *Stats) Count(ctx context.Context, q Querier, upTo int64) error {
	rows, err := q.Query(ctx, `SELECT coalesce(type, ''), coalesce(verdict, ''), count(*) FROM pgwaltz.conflict WHERE id <= $1 GROUP BY 1, 2`, upTo)
	if err != nil {
		return fmt.Errorf("count conflicts: %w", err)
	}
	var kind, verdict string
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&kind, &verdict, &n}, func() error {
		s.Total += n
		s.ByType[kind] += n
		s.ByVerdict[verdict] += n
		return nil
	}); err != nil {
		return fmt.Errorf("count conflicts: %w", err)
	}
	return nil
}

// CountOrphans counts the rows that a deleted one left behind (conflict.Orphan); 0 where the session's role may not read the log. It has an index of its own (OrphansSQL).
func CountOrphans(ctx context.Context, q Querier) (int, error) {
	rows, err := q.Query(ctx, `select case when pg_catalog.has_table_privilege('pgwaltz.conflict', 'select')
  then (select pg_catalog.count(*) from pgwaltz.conflict where type = 'fk_orphan') else 0 end`)
	if err != nil {
		return 0, fmt.Errorf("count orphans: %w", err)
	}
	n, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
	if err != nil {
		return 0, fmt.Errorf("count orphans: %w", err)
	}
	return n, nil
}
