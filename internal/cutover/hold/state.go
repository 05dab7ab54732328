package hold

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/wal"
)

// schema makes the table. It is there from pause-write until abort, at the source.
const schema = `create table if not exists pgwaltz.cutover (
  region      text primary key,     -- the source
  peer        text not null,        -- the destination
  source      text not null,        -- system identifier/database
  destination text not null,
  left_alone  text[] not null,      -- roles whose writes are not paused, because the operator asked for it
  connect     boolean not null,     -- the right to connect is taken too
  began       timestamptz not null,
  deadline    timestamptz not null, -- when writes are given back
  drained     timestamptz,          -- nothing that began before the pause is open any more
  barrier     pg_lsn,               -- all writes are below it
  arrived     timestamptz,          -- they are at the destination
  applied     pg_lsn,               -- how far the destination's own notes were then; null where they could not be read
  timeline    int,                  -- of the destination then
  sequenced   timestamptz,          -- its sequences are ahead
  finished    timestamptz,
  made        text[]                -- what finish has made for the way back
)`

// newer are the columns that a table of an older version lacks.
const newer = `alter table pgwaltz.cutover add column if not exists applied pg_lsn, add column if not exists timeline int, add column if not exists made text[]`

// State is a cutover under way, or finished.
type State struct {
	Region, Peer        string
	Source, Destination string // system identifier/database
	LeftAlone           []string
	Connect             bool
	Began, Deadline     time.Time
	Drained             bool
	Barrier             wal.LSN // 0: not taken yet
	Arrived, Sequenced  bool
	Applied             wal.LSN // what the destination itself had noted when all had arrived; 0: not known
	Timeline            int     // of the destination then; 0: not known
	Finished            bool
	Made                []string // what finish has made, or was about to make, for the way back
	// Paused: writes are paused now. It is the function that says so: behind the deadline it gives them back, and is gone.
	Paused bool
}

// Load reads the state at the source; nil where there is no cutover.
func Load(ctx context.Context, q pg.Querier) (*State, error) {
	text, err := source(ctx, q)
	if err != nil {
		return nil, err
	}
	there, err := table(ctx, q)
	if err != nil || !there {
		if err == nil && holds(text) {
			err = errors.New("writes are paused here, and pgwaltz.cutover is gone: select pgwaltz.cutover_back_out(true) gives them back")
		}
		return nil, err
	}
	var s State
	var barrier, applied string
	err = q.QueryRow(ctx, `select region, peer, source, destination, left_alone, connect, began, case when deadline < 'infinity' then deadline else began end, drained is not null,
  coalesce(barrier, '0/0')::text, arrived is not null, sequenced is not null, finished is not null,
  coalesce(pg_catalog.to_jsonb(c) ->> 'applied', '0/0'), coalesce((pg_catalog.to_jsonb(c) ->> 'timeline')::int4, 0),
  array(select pg_catalog.jsonb_array_elements_text(case pg_catalog.jsonb_typeof(pg_catalog.to_jsonb(c) -> 'made') when 'array' then pg_catalog.to_jsonb(c) -> 'made' else '[]' end)) from pgwaltz.cutover c`).
		Scan(&s.Region, &s.Peer, &s.Source, &s.Destination, &s.LeftAlone, &s.Connect, &s.Began, &s.Deadline, &s.Drained, &barrier, &s.Arrived, &s.Sequenced, &s.Finished, &applied, &s.Timeline, &s.Made)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read pgwaltz.cutover: %w", err)
	}
	if s.Barrier, err = wal.ParseLSN(barrier); err != nil {
		return nil, err
	}
	if s.Applied, err = wal.ParseLSN(applied); err != nil {
		return nil, err
	}
	s.Paused = holds(text)
	return &s, nil
}

func table(ctx context.Context, q pg.Querier) (bool, error) { return Mine(ctx, q, "pgwaltz.cutover") }

// Mine reports whether a table is there. One with what would run with the rights of this session, or that this role does not own, is an
// error: somebody else may have made it.
func Mine(ctx context.Context, q pg.Querier, name string) (bool, error) {
	var safe bool
	err := q.QueryRow(ctx, `select pg_catalog.pg_has_role(current_user, c.relowner, 'usage') and c.relkind = 'r' and not c.relhasrules and not c.relhastriggers
from pg_catalog.pg_class c where c.oid = pg_catalog.to_regclass($1)`, name).Scan(&safe)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for %s: %w", name, err)
	case !safe:
		return false, fmt.Errorf("table %s is not one that a cutover of this role has made: run the command as its owner", name)
	}
	return true, nil
}

// note writes the row of a cutover that begins.
func note(ctx context.Context, q pg.Querier, o Options, deadline string) error {
	if _, err := q.Exec(ctx, schema); err != nil {
		return fmt.Errorf("make pgwaltz.cutover: %w", err)
	}
	if _, err := table(ctx, q); err != nil {
		return err
	}
	if _, err := q.Exec(ctx, newer); err != nil {
		return fmt.Errorf("make pgwaltz.cutover: %w", err)
	}
	if _, err := q.Exec(ctx, `delete from pgwaltz.cutover`); err != nil {
		return fmt.Errorf("write pgwaltz.cutover: %w", err)
	}
	_, err := q.Exec(ctx, `insert into pgwaltz.cutover (region, peer, source, destination, left_alone, connect, began, deadline)
values ($1, $2, $3, $4, $5, $6, pg_catalog.clock_timestamp(), $7::text::timestamptz)`, o.Region, o.Peer, o.Source, o.Destination, o.Except, o.Connect, deadline)
	if err != nil {
		return fmt.Errorf("write pgwaltz.cutover: %w", err)
	}
	return nil
}

// Step is a step of a cutover that is done.
type Step string

// Steps, in their order.
const (
	Drained   Step = "drained"
	Sequenced Step = "sequenced"
)

// Done notes that a step is done. Writes must be paused still: else it is ErrOver, and nothing is noted.
func Done(ctx context.Context, conn *pgx.Conn, s Step) error {
	return locked(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `update pgwaltz.cutover set `+string(s)+` = pg_catalog.clock_timestamp()`)
		return err
	})
}

// Arrive notes that all is at the destination: how far its own notes are (0: not known), and its timeline.
func Arrive(ctx context.Context, conn *pgx.Conn, applied wal.LSN, timeline int) error {
	return locked(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, newer); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `update pgwaltz.cutover set arrived = pg_catalog.clock_timestamp(), applied = nullif($1, '0/0')::text::pg_lsn, timeline = $2`, applied.String(), timeline)
		return err
	})
}

// Make notes what is about to be made for the way back, besides what was noted before; nil forgets it. Behind Finish it changes nothing.
func Make(ctx context.Context, conn *pgx.Conn, what []string) error {
	if what == nil {
		_, err := conn.Exec(ctx, `update pgwaltz.cutover set made = null where finished is null`)
		return err
	}
	return locked(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, newer); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `update pgwaltz.cutover set made = array(select distinct w from pg_catalog.unnest(coalesce(made, '{}') || $1::text[]) w order by 1) where finished is null`, what)
		return err
	})
}

// Bar notes the position below which all writes are.
func Bar(ctx context.Context, conn *pgx.Conn, at wal.LSN) error {
	return locked(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `update pgwaltz.cutover set barrier = $1::text::pg_lsn, arrived = null`, at.String())
		return err
	})
}

// Extend gives the pause another deadline, until d from now.
func Extend(ctx context.Context, conn *pgx.Conn, d time.Duration) error {
	return locked(ctx, conn, func(tx pgx.Tx) error {
		var now time.Time
		if err := tx.QueryRow(ctx, `select pg_catalog.clock_timestamp()`).Scan(&now); err != nil {
			return err
		}
		return until(ctx, tx, stamp(now.Add(d)))
	})
}

// Finish lets the pause stay for good. Writes must be paused still: else it is ErrOver.
func Finish(ctx context.Context, conn *pgx.Conn) error {
	return locked(ctx, conn, func(tx pgx.Tx) error {
		if err := until(ctx, tx, never); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `update pgwaltz.cutover set finished = coalesce(finished, pg_catalog.clock_timestamp())`)
		return err
	})
}

func until(ctx context.Context, tx pgx.Tx, deadline string) error {
	if err := move(ctx, tx, deadline); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `update pgwaltz.cutover set deadline = $1::text::timestamptz`, deadline)
	return err
}

// ErrOver: the deadline of the pause has passed. Writes are given back, or will be at once.
var ErrOver = errors.New("the time of the write pause was over")

// locked runs f in a transaction in which nobody can give writes back, while they are paused and the deadline has not passed.
func locked(ctx context.Context, conn *pgx.Conn, f func(pgx.Tx) error) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // it is over
	if _, err := tx.Exec(ctx, `select pg_catalog.pg_advisory_xact_lock(7497080, 1)`); err != nil {
		return err
	}
	text, err := source(ctx, tx)
	if err != nil {
		return err
	}
	var over bool
	if err := tx.QueryRow(ctx, `select coalesce((select deadline < pg_catalog.clock_timestamp() from pgwaltz.cutover), true)`).Scan(&over); err != nil {
		return err
	}
	if !holds(text) || over {
		return ErrOver
	}
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// Forget removes what a cutover has noted at the source. Writes must have been given back.
func Forget(ctx context.Context, q pg.Querier) error {
	if there, err := table(ctx, q); err != nil || !there {
		return err
	}
	if _, err := q.Exec(ctx, `drop table if exists pgwaltz.cutover`); err != nil {
		return fmt.Errorf("drop pgwaltz.cutover: %w", err)
	}
	return nil
}
