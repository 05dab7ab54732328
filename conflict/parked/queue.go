package parked

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Queue is what waits for the same reason: changes of one origin and table under one state.
type Queue struct {
	Origin   string
	Relation wal.RelationName
	State    string
}

// Size is how much waits in a queue.
type Size struct {
	Changes int64
	Oldest  time.Time
	Wanted  bool // an operator asked for another try
	// Definitions are those under which changes must not be tried again.
	Definitions []string
}

// Queues lists what waits, of one origin, or of all when origin is "".
func Queues(ctx context.Context, q Querier, origin string) (map[Queue]Size, error) {
	rows, err := q.Query(ctx, `select origin, schema_name, table_name, sqlstate, count(*), min(parked_at), bool_or(wanted),
  coalesce(array_agg(distinct definition) filter (where definition <> ''), '{}')
from pgwaltz.parked where $1 = '' or origin = $1 group by 1, 2, 3, 4`, origin)
	if err != nil {
		return nil, fmt.Errorf("list parked changes: %w", err)
	}
	defer rows.Close()
	out := map[Queue]Size{}
	for rows.Next() {
		var k Queue
		var s Size
		if err := rows.Scan(&k.Origin, &k.Relation.Schema, &k.Relation.Name, &k.State, &s.Changes, &s.Oldest, &s.Wanted, &s.Definitions); err != nil {
			return nil, fmt.Errorf("list parked changes: %w", err)
		}
		out[k] = s
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list parked changes: %w", err)
	}
	return out, nil
}

// pageBytes bounds what the changes of one page hold.
const pageBytes = 8 << 20

// Page returns the ids of a queue behind one, in order; with wanted only those that an
// operator asked for. Together they are small enough to be read at once; a single large one
// is returned alone.
func Page(ctx context.Context, q Querier, k Queue, after int64, limit int, wanted bool) ([]int64, error) {
	rows, err := q.Query(ctx, `select id from (
  select id, row_number() over w as n, sum(octet_length(event)) over w as size from (
    select id, event from pgwaltz.parked
    where origin = $1 and schema_name = $2 and table_name = $3 and sqlstate = $4 and id > $5 and (wanted or not $7)
    order by id limit $6) as page
  window w as (order by id)) as sized
where n = 1 or size <= $8 order by id`,
		k.Origin, k.Relation.Schema, k.Relation.Name, k.State, after, limit, wanted, int64(pageBytes))
	if err != nil {
		return nil, fmt.Errorf("list parked changes: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("list parked changes: %w", err)
	}
	return ids, nil
}

// Since is when the change was set aside that waits longest; 0 when none waits.
func Since(ctx context.Context, q Querier) (wal.Micros, error) {
	rows, err := q.Query(ctx, `select coalesce((extract(epoch from min(parked_at)) * 1000000)::int8, 0) from pgwaltz.parked`)
	if err != nil {
		return 0, fmt.Errorf("find the oldest parked change: %w", err)
	}
	at, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int64])
	if err != nil {
		return 0, fmt.Errorf("find the oldest parked change: %w", err)
	}
	return wal.Micros(at), nil
}

// Failure is a change that was tried again and failed again.
type Failure struct {
	ID             int64
	State, Message string
	Definition     string // as in Change
}

// Tried notes changes that failed again, in one statement.
func Tried(ctx context.Context, q Querier, failures []Failure) error {
	if len(failures) == 0 {
		return nil
	}
	ids, states, messages, definitions := make([]int64, len(failures)), make([]string, len(failures)), make([]string, len(failures)), make([]string, len(failures))
	for i, f := range failures {
		ids[i], states[i], messages[i], definitions[i] = f.ID, f.State, f.Message, f.Definition
	}
	_, err := q.Exec(ctx, `update pgwaltz.parked p set attempts = attempts + 1, retried_at = pg_catalog.now(), wanted = false, sqlstate = u.s, message = u.m, definition = u.d
from unnest($1::int8[], $2::text[], $3::text[], $4::text[]) as u(id, s, m, d) where p.id = u.id`, ids, states, messages, definitions)
	if err != nil {
		return fmt.Errorf("note failed retries: %w", err)
	}
	return nil
}

// Refused notes that nothing of a queue can be tried: its table is not here or does not fit.
func Refused(ctx context.Context, q Querier, k Queue) error {
	_, err := q.Exec(ctx, `update pgwaltz.parked set attempts = attempts + 1, retried_at = pg_catalog.now(), wanted = false
where origin = $1 and schema_name = $2 and table_name = $3 and sqlstate = $4 and wanted`,
		k.Origin, k.Relation.Schema, k.Relation.Name, k.State)
	if err != nil {
		return fmt.Errorf("note failed retries: %w", err)
	}
	return nil
}

// AnyWanted reports whether an operator asked for another try of some change.
func AnyWanted(ctx context.Context, q Querier) (bool, error) {
	rows, err := q.Query(ctx, `select exists (select from pgwaltz.parked where wanted)`)
	if err != nil {
		return false, fmt.Errorf("find wanted retries: %w", err)
	}
	ok, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
	if err != nil {
		return false, fmt.Errorf("find wanted retries: %w", err)
	}
	return ok, nil
}
