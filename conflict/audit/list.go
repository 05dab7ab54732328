package audit

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Querier is what this package needs of a connection, pool or transaction of pgx.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// ErrNotFound is returned by Get when there is no such row.
var ErrNotFound = errors.New("no such conflict")

// Filter narrows List. The zero value of a field does not narrow.
type Filter struct {
	Table   string // "users" or "public.users"
	Key     string // a value of any key column, or the whole key as a JSON object
	Type    string
	Verdict string
	Since   time.Time // detected at or after
	Until   time.Time // detected before
	AfterID int64     // rows with a greater id, oldest first: for following the log
	Limit   int       // at most so many rows; 0 means 100
}

const columns = `id, event_id::text, detected_at, coalesce(region, ''), coalesce(schema_name, ''), coalesce(table_name, ''),
 key::text, coalesce(type, ''), coalesce(verdict, ''), coalesce(reason, ''),
 coalesce(winner, ''), coalesce(loser, ''), coalesce(local_stamp, ''), coalesce(remote_stamp, ''), coalesce(base_stamp, ''),
 local_row::text, remote_row::text, coalesce(origin, ''), coalesce(origin_xid, 0), coalesce(commit_lsn::text, ''), commit_time,
 coalesce(local_xid, 0), coalesce(local_lsn::text, '')`

// List returns the rows that fit, newest first, or oldest first when AfterID is set.
func List(ctx context.Context, q Querier, f Filter) ([]Row, error) {
	sql, args := f.statement()
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("list conflicts: %w", err)
	}
	list, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return nil, fmt.Errorf("list conflicts: %w", err)
	}
	return list, nil
}

// Get returns one row by its id (a number) or event id (a UUID).
func Get(ctx context.Context, q Querier, id string) (Row, error) {
	where, arg := "event_id::text = $1", any(strings.ToLower(id))
	if n, err := strconv.ParseInt(id, 10, 64); err == nil {
		where, arg = "id = $1", n
	}
	rows, err := q.Query(ctx, "SELECT "+columns+" FROM pgwaltz.conflict WHERE "+where, arg)
	if err != nil {
		return Row{}, fmt.Errorf("read conflict %s: %w", id, err)
	}
	row, err := pgx.CollectExactlyOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		return Row{}, fmt.Errorf("read conflict %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return Row{}, fmt.Errorf("read conflict %s: %w", id, err)
	}
	return row, nil
}

func (f Filter) statement() (string, []any) {
	var where []string
	var args []any
	// Every condition names its argument as $n; a condition may use it more than once.
	add := func(condition string, arg any) {
		args = append(args, arg)
		where = append(where, strings.ReplaceAll(condition, "$n", "$"+strconv.Itoa(len(args))))
	}
	if name, ok := wal.ParseRelationName(f.Table); ok {
		add("schema_name = $n", name.Schema)
		add("table_name = $n", name.Name)
	} else if schema, table, ok := strings.Cut(f.Table, "."); ok {
		add("schema_name = $n", schema)
		add("table_name = $n", table)
	} else if f.Table != "" {
		add("table_name = $n", f.Table)
	}
	if f.Key != "" {
		if strings.HasPrefix(strings.TrimSpace(f.Key), "{") {
			add("key = $n::text::jsonb", f.Key)
		} else {
			add("EXISTS (SELECT FROM jsonb_each_text(key) AS k WHERE k.value = $n)", f.Key)
		}
	}
	if f.Type != "" {
		add("type = $n", f.Type)
	}
	if f.Verdict != "" {
		add("verdict = $n", f.Verdict)
	}
	if !f.Since.IsZero() {
		add("detected_at >= $n", f.Since)
	}
	if !f.Until.IsZero() {
		add("detected_at < $n", f.Until)
	}
	order := "DESC"
	if f.AfterID > 0 {
		add("id > $n", f.AfterID)
		order = "ASC"
	}
	sql := "SELECT " + columns + " FROM pgwaltz.conflict"
	if len(where) > 0 {
		sql += " WHERE " + strings.Join(where, " AND ")
	}
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	return sql + " ORDER BY id " + order + " LIMIT " + strconv.Itoa(limit), args
}

func scan(row pgx.CollectableRow) (Row, error) {
	var r Row
	var key, local, remote *string
	err := row.Scan(&r.ID, &r.EventID, &r.DetectedAt, &r.Region, &r.Schema, &r.Table, &key, &r.Type, &r.Verdict, &r.Reason,
		&r.Winner, &r.Loser, &r.LocalStamp, &r.RemoteStamp, &r.BaseStamp, &local, &remote, &r.Origin, &r.OriginXID,
		&r.CommitLSN, &r.CommitTime, &r.LocalXID, &r.LocalLSN)
	r.Key, r.LocalRow, r.RemoteRow = jsonOf(key), jsonOf(local), jsonOf(remote)
	return r, err
}

func jsonOf(s *string) JSON {
	if s == nil {
		return nil
	}
	return JSON(*s)
}
