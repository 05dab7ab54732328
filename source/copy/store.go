package copy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Schema makes the table that tells which tables are to be copied, and how far each copy is.
// It may be run again.
const Schema = `create table if not exists pgwaltz.copy (
  schema_name  text not null,
  table_name   text not null,
  state        text not null check (state in ('pending', 'running', 'done', 'off')),
  last_key     text,
  rows_done    bigint not null default 0,
  started_at   timestamptz,
  finished_at  timestamptz,
  requested_at timestamptz,
  primary key (schema_name, table_name)
)`

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
	LastKey *string // the cursor behind the last chunk that is done; nil before the first
	Rows    int64   // in chunks that are done
}

// Open reports whether the table still has to be copied.
func (j *Job) Open() bool { return j.State == Pending || j.State == Running }

// again puts a table back to the beginning.
const again = `on conflict (schema_name, table_name) do update set state = 'pending', last_key = null, rows_done = 0,
  started_at = null, finished_at = null, requested_at = excluded.requested_at`

// RequestSQL is the statement that asks for a copy of the named tables from the beginning.
func RequestSQL(tables []wal.RelationName) string {
	rows := make([]string, len(tables))
	for i, t := range tables {
		rows[i] = fmt.Sprintf("(%s, %s, 'pending', pg_catalog.now())", pg.Literal(t.Schema), pg.Literal(t.Name))
	}
	return "insert into pgwaltz.copy (schema_name, table_name, state, requested_at) values " + strings.Join(rows, ", ") + "\n" + again
}

// ErrNotPublished says that a table is not in the publication.
var ErrNotPublished = errors.New("the table is not published")

// Request asks for a copy of the named tables of a publication from the beginning, or of all
// of them when none is named. A name without a schema means schema public. It returns how
// many tables will be copied. Errors: ErrNotPublished.
func Request(ctx context.Context, tx pgx.Tx, publication string, tables []string) (int, error) {
	const upsert = `insert into pgwaltz.copy (schema_name, table_name, state, requested_at)
select schemaname, tablename, 'pending', pg_catalog.now() from pg_catalog.pg_publication_tables
where pubname = $1 and ($2::text is null or schemaname || '.' || tablename = $2)
` + again
	if len(tables) == 0 {
		tag, err := tx.Exec(ctx, upsert, publication, nil)
		if err != nil {
			return 0, fmt.Errorf("request copy: %w", err)
		}
		return int(tag.RowsAffected()), nil
	}
	for _, t := range tables {
		if !strings.Contains(t, ".") {
			t = "public." + t
		}
		tag, err := tx.Exec(ctx, upsert, publication, t)
		if err != nil {
			return 0, fmt.Errorf("request copy of %s: %w", t, err)
		}
		if tag.RowsAffected() == 0 {
			return 0, fmt.Errorf("request copy of %s from publication %q: %w", t, publication, ErrNotPublished)
		}
	}
	return len(tables), nil
}

// load returns all rows, those requested first in front.
func load(ctx context.Context, c *pgx.Conn) ([]Job, error) {
	rows, err := c.Query(ctx, `select schema_name, table_name, state, last_key, rows_done from pgwaltz.copy order by requested_at nulls first, schema_name, table_name`)
	if err != nil {
		return nil, fmt.Errorf("read copy state: %w", err)
	}
	jobs, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (j Job, err error) {
		err = r.Scan(&j.Table.Schema, &j.Table.Name, &j.State, &j.LastKey, &j.Rows)
		return j, err
	})
	if err != nil {
		return nil, fmt.Errorf("read copy state: %w", err)
	}
	return jobs, nil
}

// saveProgress notes the chunks that are done, unless the copy was requested anew meanwhile.
func saveProgress(ctx context.Context, c *pgx.Conn, j *Job) error {
	_, err := c.Exec(ctx, `update pgwaltz.copy set state = 'running', last_key = $3, rows_done = $4, started_at = coalesce(started_at, pg_catalog.now())
where schema_name = $1 and table_name = $2 and state in ('pending', 'running')`, j.Table.Schema, j.Table.Name, j.LastKey, j.Rows)
	if err != nil {
		return fmt.Errorf("save copy state: %w", err)
	}
	return nil
}

// saveEnd notes that a copy is over.
func saveEnd(ctx context.Context, c *pgx.Conn, j *Job, state State) error {
	_, err := c.Exec(ctx, `update pgwaltz.copy set state = $3, rows_done = $4, finished_at = pg_catalog.now() where schema_name = $1 and table_name = $2`,
		j.Table.Schema, j.Table.Name, string(state), j.Rows)
	if err != nil {
		return fmt.Errorf("save copy state: %w", err)
	}
	return nil
}
