package copy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint/streamstore"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Schema makes the table that tells which tables are to be copied, and how far each copy is.
// It may be run again.
const Schema = `create table if not exists pgwaltz.copy (
  schema_name  text not null,
  table_name   text not null,
  state        text not null check (state in ('pending', 'running', 'done', 'off')),
  last_key     text,
  table_oid    oid,
  rows_done    bigint not null default 0,
  sent_incarnation bigint,
  sent_frame   bigint,
  applied_key  text,
  applied_rows bigint not null default 0,
  applied_at   timestamptz,
  started_at   timestamptz,
  finished_at  timestamptz,
  requested_at timestamptz,
  asked        boolean not null default false,
  reason       text,
  primary key (schema_name, table_name)
)`

// In each row, last_key and rows_done tell how far the table table_oid is in the stream, up to the frame
// sent_frame of sent_incarnation; applied_key and applied_rows how far every peer has durably
// applied it. state done means that all of it is in the stream, applied_at that all peers have it.
// asked: the copy is the work of a resync, and not one that a region begins by itself.
// requested_at names the request: what was read, sent or applied for an earlier one says nothing of this one.
// reason says why a table that is pending or running cannot be copied for now, or why it is off.
// Chunks that a stream has lost, and no peer has, are sent again: Reopened puts the copy back.

// State is the state of one table's copy.
type State string

// The states of a copy.
const (
	Pending State = "pending"
	Running State = "running"
	Done    State = "done"
	Off     State = "off" // it cannot be copied
)

// Job is one row of pgwaltz.copy.
type Job struct {
	Table   wal.RelationName
	State   State
	LastKey *string // the cursor behind the last chunk in the stream; nil before the first
	OID     uint32  // the table that LastKey was read from; 0: not known
	Rows    int64   // in the stream
	Applied int64   // rows that every peer has durably applied
	Whole   bool    // every peer has all of them
	// Requested is when the copy was asked for last.
	Requested time.Time
	Reason    string // why it does not go on, or is off
}

// Open reports whether the table still has to be copied.
func (j *Job) Open() bool { return j.State == Pending || j.State == Running }

// again puts a table back to the beginning.
const again = `on conflict (schema_name, table_name) do update set state = 'pending', last_key = null, rows_done = 0,
  sent_incarnation = null, sent_frame = null, applied_key = null, applied_rows = 0, applied_at = null, started_at = null, finished_at = null, requested_at = excluded.requested_at, reason = excluded.reason,
  asked = excluded.asked or c.asked and c.applied_at is null`

// RequestSQL is the statement that asks for a copy of the named tables from the beginning.
func RequestSQL(tables []wal.RelationName) string {
	rows := make([]string, len(tables))
	for i, t := range tables {
		rows[i] = fmt.Sprintf("(%s, %s, 'pending', pg_catalog.now())", pg.Literal(t.Schema), pg.Literal(t.Name))
	}
	return "insert into pgwaltz.copy as c (schema_name, table_name, state, requested_at) values " + strings.Join(rows, ", ") + "\n" + again
}

// Await asks for a copy of a table from the beginning, for a reason that keeps it from being copied
// now, unless one is asked for already of which nothing was read (saveBegun).
func Await(ctx context.Context, c Execer, t wal.RelationName, reason string) error {
	_, err := c.Exec(ctx, `insert into pgwaltz.copy as c (schema_name, table_name, state, requested_at, reason) values ($1, $2, 'pending', pg_catalog.now(), $3)
`+again+` where c.state <> 'pending' or c.last_key is not null`, t.Schema, t.Name, reason)
	if err != nil {
		return fmt.Errorf("ask for a copy of %s: %w", t, err)
	}
	return nil
}

// ErrNotPublished says that a table is not in the publication.
var ErrNotPublished = errors.New("the table is not published")

// Request asks for a copy of the named tables of a publication from the beginning, or of all
// of them when none is named. A name is written as status prints it; one without a schema means
// schema public. It returns how many tables will be copied. Errors: ErrNotPublished.
//
// It is for a resync: see CopyBack.
func Request(ctx context.Context, tx pgx.Tx, publication string, tables []string) (int, error) {
	const upsert = `insert into pgwaltz.copy as c (schema_name, table_name, state, requested_at, asked)
select schemaname, tablename, 'pending', pg_catalog.now(), true from pg_catalog.pg_publication_tables
where pubname = $1 and ($2::text is null or schemaname || '.' || tablename = $2) and ($3::text is null or schemaname = $3 and tablename = $4)
` + again
	if len(tables) == 0 {
		tag, err := tx.Exec(ctx, upsert, publication, nil, nil, nil)
		if err != nil {
			return 0, fmt.Errorf("request copy: %w", err)
		}
		return int(tag.RowsAffected()), nil
	}
	for _, t := range tables {
		args := []any{publication, &t, nil, nil}
		if name, ok := wal.ParseRelationName(t); ok {
			args = []any{publication, nil, &name.Schema, &name.Name}
		} else if !strings.Contains(t, ".") {
			t = "public." + t
		}
		tag, err := tx.Exec(ctx, upsert, args...)
		if err != nil {
			return 0, fmt.Errorf("request copy of %s: %w", t, err)
		}
		if tag.RowsAffected() == 0 {
			return 0, notPublished(ctx, tx, publication, t)
		}
	}
	return len(tables), nil
}

// CopyBack asks once more for the copies of a resync, after a peer has opened its stream anew behind a gap
// and this region has read up to there. knew is how far that peer had applied this region's stream when it
// found the gap: a copy that it had by then was made before, and has nothing to do with it. Any other was made
// to bring the peer what it had lost, perhaps before this region had read what the peer published and
// then lost: only a copy that is read now has all of that. It returns how many tables will be copied.
func CopyBack(ctx context.Context, c Execer, knew Place) (int, error) {
	tag, err := c.Exec(ctx, `update pgwaltz.copy set state = 'pending', last_key = null, rows_done = 0, sent_incarnation = null, sent_frame = null,
  applied_key = null, applied_rows = 0, applied_at = null, started_at = null, finished_at = null, requested_at = pg_catalog.now(), reason = null
where asked and (state in ('pending', 'running') or state = 'done' and (sent_incarnation is null or (sent_incarnation, sent_frame) > ($1::bigint, $2::bigint)))`,
		int64(knew.Incarnation), int64(knew.Frame))
	if err != nil {
		return 0, fmt.Errorf("request copy: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

// notPublished says why a table is not in the publication.
func notPublished(ctx context.Context, tx pgx.Tx, publication, table string) error {
	why := fmt.Errorf("request copy of %s from publication %q: %w", table, publication, ErrNotPublished)
	text := table
	if name, ok := wal.ParseRelationName(table); ok {
		text = pg.Quote(name.Schema) + "." + pg.Quote(name.Name)
	}
	var there bool
	var root *string
	err := tx.QueryRow(ctx, `select c.oid is not null, case when c.relispartition then pg_catalog.pg_partition_root(c.oid)::regclass::text end
from (select pg_catalog.to_regclass($1) as o) t left join pg_catalog.pg_class c on c.oid = t.o`, text).Scan(&there, &root)
	switch {
	case err != nil: // the name is no name, or the session has failed
	case root != nil:
		return fmt.Errorf("%w: it is a partition; name its root, %s", why, *root)
	case !there:
		return fmt.Errorf("%w: there is no such table", why)
	}
	return why
}

// Load returns what pgwaltz.copy says of all tables, those requested first in front.
func Load(ctx context.Context, c *pgx.Conn) ([]Job, error) {
	rows, err := c.Query(ctx, `select schema_name, table_name, state, last_key, coalesce(table_oid, 0)::int8, rows_done, applied_rows, applied_at is not null, coalesce(requested_at, 'epoch'), coalesce(reason, '') from pgwaltz.copy order by requested_at nulls first, schema_name, table_name`)
	if err != nil {
		return nil, fmt.Errorf("read copy state: %w", err)
	}
	jobs, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (j Job, err error) {
		var oid int64
		err = r.Scan(&j.Table.Schema, &j.Table.Name, &j.State, &j.LastKey, &oid, &j.Rows, &j.Applied, &j.Whole, &j.Requested, &j.Reason)
		j.OID = uint32(oid)
		return j, err
	})
	if err != nil {
		return nil, fmt.Errorf("read copy state: %w", err)
	}
	return jobs, nil
}

// errMoved says that the copy was put back, or asked for anew, while a chunk was under way.
var errMoved = errors.New("the copy begins again")

// ofRequest is a condition: the row is still the one of the request that a parameter names.
func ofRequest(parameter string) string {
	return "coalesce(requested_at, 'epoch') = " + parameter
}

// saveBegun notes that a copy of a table is about to be read: what changes from then on is not in it for sure. Where another table than that had the name when
// the last chunk was read, the copy begins again. Errors: errMoved.
func saveBegun(ctx context.Context, c *pgx.Conn, j *Job, table uint32) error {
	if j.LastKey != nil && j.OID != 0 && j.OID != table {
		if err := copyAgain(ctx, c, []wal.RelationName{j.Table}); err != nil {
			return err
		}
		return errMoved
	}
	tag, err := c.Exec(ctx, `update pgwaltz.copy set state = 'running', table_oid = $4::int8::oid
where schema_name = $1 and table_name = $2 and state in ('pending', 'running') and `+ofRequest("$3"), j.Table.Schema, j.Table.Name, j.Requested, int64(table))
	if err != nil {
		return fmt.Errorf("save copy state: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return errMoved
	}
	j.State, j.OID = Running, table
	return nil
}

// saveSent notes a chunk that is durable in the stream: j moves from the cursor before to its
// own. Errors: errMoved.
func saveSent(ctx context.Context, c *pgx.Conn, j *Job, before *string, at Place) error {
	tag, err := c.Exec(ctx, `update pgwaltz.copy set state = 'running', last_key = $3, rows_done = $4, sent_incarnation = $5, sent_frame = $6,
  started_at = coalesce(started_at, pg_catalog.now()), reason = null
where schema_name = $1 and table_name = $2 and state in ('pending', 'running') and last_key is not distinct from $7
  and `+ofRequest("$8")+` and `+streamstore.PresentSQL("$5"),
		j.Table.Schema, j.Table.Name, j.LastKey, j.Rows, int64(at.Incarnation), int64(at.Frame), before, j.Requested)
	if err != nil {
		return fmt.Errorf("save copy state: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return errMoved
	}
	return nil
}

// saveApplied notes a chunk that every peer has applied, unless the copy was put back behind it, or asked for anew.
func saveApplied(ctx context.Context, c *pgx.Conn, t wal.RelationName, s sent) error {
	_, err := c.Exec(ctx, `update pgwaltz.copy set applied_key = $3, applied_rows = $4,
  applied_at = case when state = 'done' and last_key is not distinct from $3 then pg_catalog.now() end
where schema_name = $1 and table_name = $2 and sent_incarnation = $5 and sent_frame >= $6 and applied_rows <= $4 and `+ofRequest("$7"),
		t.Schema, t.Name, s.cursor, s.rows, int64(s.at.Incarnation), int64(s.at.Frame), s.requested)
	if err != nil {
		return fmt.Errorf("save copy state: %w", err)
	}
	return nil
}

// saveFailed notes why a table cannot be copied for now. One of which nothing was sent has not begun.
func saveFailed(ctx context.Context, c *pgx.Conn, j *Job, reason string) error {
	_, err := c.Exec(ctx, `update pgwaltz.copy set reason = $3, state = case when last_key is null then 'pending' else state end
where schema_name = $1 and table_name = $2 and state in ('pending', 'running') and `+ofRequest("$4"), j.Table.Schema, j.Table.Name, reason, j.Requested)
	if err != nil {
		return fmt.Errorf("save copy state: %w", err)
	}
	return nil
}

// excluded is the reason of tables that the configuration leaves out.
const excluded = "left out with tables.exclude"

// SettleExcluded switches the copy of published tables off that the configuration leaves out, and
// asks for a copy of those that it does not leave out any more: what happened to them meanwhile
// was not published.
func SettleExcluded(ctx context.Context, c Session, publication string, out func(wal.RelationName) bool) error {
	rows, err := c.Query(ctx, `select schemaname::text, tablename::text, coalesce(state, '') = 'off' and coalesce(reason, '') = $2
from (select schemaname, tablename from pg_catalog.pg_publication_tables where pubname = $1
  union select schema_name, table_name from pgwaltz.copy) t
left join pgwaltz.copy on schema_name = schemaname and table_name = tablename`, publication, excluded)
	if err != nil {
		return fmt.Errorf("look for excluded tables: %w", err)
	}
	var leave, back []wal.RelationName
	var t wal.RelationName
	var is bool
	if _, err := pgx.ForEachRow(rows, []any{&t.Schema, &t.Name, &is}, func() error {
		switch now := out(t); {
		case now && !is:
			leave = append(leave, t)
		case is && !now:
			back = append(back, t)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("look for excluded tables: %w", err)
	}
	if len(back) > 0 {
		if _, err := c.Exec(ctx, RequestSQL(back)); err != nil {
			return fmt.Errorf("request copy: %w", err)
		}
	}
	return leaveOut(ctx, c, leave)
}

// LeaveOut switches off what Request has asked for in this transaction of tables that the configuration leaves out, and
// returns these.
func LeaveOut(ctx context.Context, tx pgx.Tx, out func(wal.RelationName) bool) ([]wal.RelationName, error) {
	rows, err := tx.Query(ctx, `select schema_name, table_name from pgwaltz.copy where state = 'pending' and requested_at = pg_catalog.now() order by 1, 2`)
	if err != nil {
		return nil, fmt.Errorf("look for excluded tables: %w", err)
	}
	asked, err := pgx.CollectRows(rows, pgx.RowToStructByPos[wal.RelationName])
	if err != nil {
		return nil, fmt.Errorf("look for excluded tables: %w", err)
	}
	leave := slices.DeleteFunc(asked, func(t wal.RelationName) bool { return !out(t) })
	return leave, leaveOut(ctx, tx, leave)
}

// leaveOut switches the copies of tables off.
func leaveOut(ctx context.Context, c Execer, tables []wal.RelationName) error {
	for _, t := range tables {
		if _, err := c.Exec(ctx, `insert into pgwaltz.copy (schema_name, table_name, state, reason, requested_at) values ($1, $2, 'off', $3, pg_catalog.now())
on conflict (schema_name, table_name) do update set state = 'off', reason = excluded.reason, applied_at = null`, t.Schema, t.Name, excluded); err != nil {
			return fmt.Errorf("switch the copy of %s off: %w", t, err)
		}
	}
	return nil
}

// saveEnd notes that all rows are in the stream, or, with a reason, that the table cannot be
// copied. at is where the stream is, for a copy that has sent nothing. Errors: errMoved.
func saveEnd(ctx context.Context, c *pgx.Conn, j *Job, state State, reason string, at Place) error {
	tag, err := c.Exec(ctx, `update pgwaltz.copy set state = $3, rows_done = $4, finished_at = pg_catalog.now(), reason = nullif($6, ''),
  applied_at = case when applied_key is not distinct from $5 then pg_catalog.now() end,
  sent_incarnation = coalesce(sent_incarnation, $7), sent_frame = case when sent_incarnation is null then $8 else sent_frame end
where schema_name = $1 and table_name = $2 and last_key is not distinct from $5 and `+ofRequest("$9"),
		j.Table.Schema, j.Table.Name, string(state), j.Rows, j.LastKey, reason, int64(at.Incarnation), int64(at.Frame), j.Requested)
	if err != nil {
		return fmt.Errorf("save copy state: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return errMoved
	}
	return nil
}

// Finish notes that every peer has durably applied the stream up to a frame, for copies whose
// last chunk lies below it. It is for those that no Copier follows any more, after a restart.
func Finish(ctx context.Context, c *pgx.Conn, at Place) error {
	_, err := c.Exec(ctx, `update pgwaltz.copy set applied_key = last_key, applied_rows = rows_done, applied_at = case when state = 'done' then pg_catalog.now() end
where applied_at is null and sent_incarnation = $1 and sent_frame <= $2 and state in ('running', 'done')`, int64(at.Incarnation), int64(at.Frame))
	if err != nil {
		return fmt.Errorf("save copy state: %w", err)
	}
	return nil
}

// Reopened puts copies back to what every peer has applied when the frames behind that are not
// in the stream any more: it is of another incarnation, or ends before them. The publisher calls
// it before it publishes anything.
func Reopened(ctx context.Context, c Execer, at Place) (tables int, err error) {
	tag, err := c.Exec(ctx, `update pgwaltz.copy set state = 'running', last_key = applied_key, rows_done = applied_rows,
  sent_incarnation = null, sent_frame = null, finished_at = null
where applied_at is null and state in ('running', 'done') and (sent_incarnation <> $1 or sent_frame > $2)`, int64(at.Incarnation), int64(at.Frame))
	if err != nil {
		return 0, fmt.Errorf("put copies back: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

// Session runs statements and queries; *pgx.Conn and pgx.Tx are Sessions.
type Session interface {
	Execer
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Execer runs one statement; *pgx.Conn and pgx.Tx are Execers.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}
