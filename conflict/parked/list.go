package parked

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// ErrNotFound is returned by Get when there is no such row.
var ErrNotFound = errors.New("no such parked change")

// Filter chooses parked changes. The zero value of a field does not narrow.
type Filter struct {
	IDs    []int64
	Table  string // "users" or "public.users"
	Origin string
	State  string // SQLSTATE
	// Rows leaves out deletes, changes of tables without a key, and what is held here because the origin may have lost it: a copy from the
	// origin brings all else, as far as it still has it.
	Rows  bool
	Limit int // at most so many rows in List; 0 means 100
}

// Narrow reports whether the filter chooses anything but all.
func (f Filter) Narrow() bool {
	return len(f.IDs) > 0 || f.Table != "" || f.Origin != "" || f.State != "" || f.Rows
}

func (f Filter) where() (string, []any) {
	where := []string{"true"}
	var args []any
	add := func(condition string, arg any) {
		args = append(args, arg)
		where = append(where, strings.ReplaceAll(condition, "$n", fmt.Sprintf("$%d", len(args))))
	}
	if len(f.IDs) > 0 {
		add("id = any($n::int8[])", f.IDs)
	}
	if name, ok := wal.ParseRelationName(f.Table); ok {
		add("schema_name = $n", name.Schema)
		add("(table_name = $n or sqlstate = '"+ApartState+"' and pg_catalog.starts_with(table_name, $n || ' ['))", name.Name)
	} else if f.Table != "" {
		add("($n in (table_name, schema_name || '.' || table_name) or sqlstate = '"+ApartState+"' and pg_catalog.starts_with(table_name, $n || ' ['))", f.Table)
	}
	if f.Origin != "" {
		add("origin = $n", f.Origin)
	}
	if f.State != "" {
		add("sqlstate = $n", f.State)
	}
	if f.Rows {
		where = append(where, "op <> 'delete' and pg_catalog.left(key, 1) <> '@' and not held")
	}
	return strings.Join(where, " and "), args
}

// Row is one parked change as people see it.
type Row struct {
	ID        int64      `json:"id"`
	Origin    string     `json:"origin"`
	Schema    string     `json:"schema"`
	Table     string     `json:"table"`
	Key       string     `json:"key"`
	Op        string     `json:"op"`
	State     string     `json:"sqlstate"`
	Message   string     `json:"message"`
	CommitLSN string     `json:"commit_lsn"`
	ParkedAt  time.Time  `json:"parked_at"`
	RetriedAt *time.Time `json:"retried_at,omitempty"`
	Attempts  int        `json:"attempts"`
	Image     string     `json:"row,omitempty"` // JSON; only Get fills it
}

const rowColumns = `id, origin, schema_name, table_name, key, coalesce(op, ''), coalesce(sqlstate, ''), coalesce(message, ''), coalesce(commit_lsn::text, ''), parked_at, retried_at, attempts`

func scanRow(row pgx.CollectableRow) (r Row, err error) {
	err = row.Scan(&r.ID, &r.Origin, &r.Schema, &r.Table, &r.Key, &r.Op, &r.State, &r.Message, &r.CommitLSN, &r.ParkedAt, &r.RetriedAt, &r.Attempts)
	return r, err
}

// List returns the rows that fit, oldest first.
func List(ctx context.Context, q Querier, f Filter) ([]Row, error) {
	where, args := f.where()
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	rows, err := q.Query(ctx, fmt.Sprintf("select %s from pgwaltz.parked where %s order by id limit %d", rowColumns, where, limit), args...)
	if err != nil {
		return nil, fmt.Errorf("list parked changes: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanRow)
	if err != nil {
		return nil, fmt.Errorf("list parked changes: %w", err)
	}
	return list, nil
}

// Get returns one row with its image.
func Get(ctx context.Context, q Querier, id int64) (Row, error) {
	list, err := List(ctx, q, Filter{IDs: []int64{id}})
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Row{}, fmt.Errorf("read parked change %d: %w", id, err)
	}
	rows, err := q.Query(ctx, `select coalesce(row::text, '') from pgwaltz.parked where id = $1`, id)
	if err != nil {
		return Row{}, fmt.Errorf("read parked change %d: %w", id, err)
	}
	images, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return Row{}, fmt.Errorf("read parked change %d: %w", id, err)
	}
	if len(images) > 0 {
		list[0].Image = images[0]
	}
	return list[0], nil
}

// Want asks the sidecar to try changes again at once, and returns which.
func Want(ctx context.Context, q Querier, f Filter) ([]int64, error) {
	where, args := f.where()
	rows, err := q.Query(ctx, "update pgwaltz.parked set wanted = true where "+where+" returning id", args...)
	if err != nil {
		return nil, fmt.Errorf("ask for a retry: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("ask for a retry: %w", err)
	}
	return ids, nil
}

// Waiting counts those of the given changes that are parked, and of these the ones that were
// not tried since Want.
func Waiting(ctx context.Context, q Querier, ids []int64) (still, untried int, err error) {
	rows, err := q.Query(ctx, `select count(*)::int, (count(*) filter (where wanted))::int from pgwaltz.parked where id = any($1::int8[])`, ids)
	if err != nil {
		return 0, 0, fmt.Errorf("look at the retry: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&still, &untried); err != nil {
			return 0, 0, fmt.Errorf("look at the retry: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return 0, 0, fmt.Errorf("look at the retry: %w", err)
	}
	return still, untried, nil
}

// EachKey calls f with each key of a table that something waits for.
func EachKey(ctx context.Context, q Querier, table wal.RelationName, f func(key string) error) error {
	rows, err := q.Query(ctx, `select key from pgwaltz.parked where schema_name = $1 and table_name = $2 and pg_catalog.left(key, 1) <> '@'`, table.Schema, table.Name)
	if err != nil {
		return fmt.Errorf("list parked keys of %s: %w", table, err)
	}
	var key string
	if _, err := pgx.ForEachRow(rows, []any{&key}, func() error { return f(key) }); err != nil {
		return fmt.Errorf("list parked keys of %s: %w", table, err)
	}
	return nil
}

// Counts says how many changes of each origin wait.
func Counts(ctx context.Context, q Querier) (map[string]int64, error) {
	rows, err := q.Query(ctx, `select origin, pg_catalog.count(*) from pgwaltz.parked group by origin`)
	if err != nil {
		return nil, fmt.Errorf("count parked changes: %w", err)
	}
	counts := map[string]int64{}
	var origin string
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&origin, &n}, func() error { counts[origin] = n; return nil }); err != nil {
		return nil, fmt.Errorf("count parked changes: %w", err)
	}
	return counts, nil
}

// Discard removes changes for good, and writes each into the audit log with the verdict
// discard, in one statement. into is audit.DiscardInto. It returns how many.
func Discard(ctx context.Context, q Querier, f Filter, region, into string) (int, error) {
	where, args := f.where()
	args = append(args, region)
	sql := fmt.Sprintf(`with gone as (delete from pgwaltz.parked where %s returning *)
%s
select pg_catalog.gen_random_uuid(), $%d, schema_name, table_name, pg_catalog.to_jsonb(key), 'parked', 'discard', 'sqlstate ' || coalesce(sqlstate, ''), row, origin, commit_lsn
from gone`, where, into, len(args))
	tag, err := q.Exec(ctx, sql, args...)
	if err != nil {
		return 0, fmt.Errorf("discard parked changes: %w", err)
	}
	return int(tag.RowsAffected()), nil
}
