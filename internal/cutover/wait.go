package cutover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Waiting is what Wait is told.
type Waiting struct {
	Timeout time.Duration
	// Probe is a table (id text primary key, at timestamptz) that the path carries: a row goes through it. "" for none.
	Probe string
	// AllowParked lets changes be parked at the destination.
	AllowParked bool
}

// lookEvery is how often the destination is asked.
const lookEvery = 100 * time.Millisecond

// Wait returns when all that was committed at the source before the pause is at the destination. It takes a position of the source's
// WAL behind it first. It changes nothing but its own notes; when the time is over writes stay paused until the deadline.
func (e *Ends) Wait(ctx context.Context, w Waiting) (wal.LSN, error) {
	s, err := e.paused(ctx)
	if err != nil {
		return 0, err
	}
	if !s.Drained {
		return 0, &NotPausedError{}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, w.Timeout, fmt.Errorf("not within %s", w.Timeout))
	defer cancel()
	at, err := e.mark(ctx)
	if err != nil {
		return 0, err
	}
	if err := hold.Bar(ctx, e.Source.Conn, at); err != nil {
		return 0, over(err)
	}
	if err := failpoint.Hit("cutover.barred"); err != nil {
		return 0, err
	}
	applied, err := e.arrive(ctx, at, w)
	if err == nil {
		err = e.forgot(s, applied) // of an earlier run
	}
	if err != nil {
		return 0, err
	}
	if w.Probe != "" {
		if err := e.probe(ctx, w.Probe); err != nil {
			return 0, err
		}
	}
	// Who was given rights meanwhile may have written behind the position.
	if err := hold.Tight(ctx, e.Source.Conn, e.Source.Ours, s.LeftAlone); err != nil {
		return 0, err
	}
	if err := hold.Arrive(ctx, e.Source.Conn, applied, int(e.Destination.Sys.Timeline)); err != nil {
		return 0, over(err)
	}
	return at, failpoint.Hit("cutover.arrived")
}

func over(err error) error {
	if errors.Is(err, hold.ErrOver) {
		return &NotPausedError{Over: true}
	}
	return err
}

// mark writes a message into the source's WAL, behind everything that was committed, and returns its position. All three modes pass it over; it
// moves their positions beyond itself.
func (e *Ends) mark(ctx context.Context) (wal.LSN, error) {
	var text string
	if err := e.Source.Conn.QueryRow(ctx, `select pg_catalog.pg_logical_emit_message(true, 'pgwaltz_cutover', '')::text`).Scan(&text); err != nil {
		return 0, fmt.Errorf("mark the source's position: %w", err)
	}
	return wal.ParseLSN(text)
}

// arrive waits until the position is applied at the destination, and returns how far the destination's own notes are then.
func (e *Ends) arrive(ctx context.Context, at wal.LSN, w Waiting) (wal.LSN, error) {
	last := "the destination was not asked yet"
	for {
		p, err := e.look(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			return 0, err
		case err != nil:
		case p.broken != "":
			last = p.broken
		case p.open != "":
			last = p.open
		case p.at <= at:
			last = fmt.Sprintf("the destination has the source's WAL up to %s, and %s is wanted", p.at, at)
		case p.mode == config.ModeNative && p.came <= at:
			last = fmt.Sprintf("the subscription at the destination itself has received the source's WAL up to %s, and %s is wanted", p.came, at)
		case p.parked > 0 && !w.AllowParked:
			last = fmt.Sprintf("%d changes of the source are parked at the destination (pgwaltz parked list)", p.parked)
		default:
			return p.applied, nil
		}
		if ctx.Err() == nil {
			err = pause.For(ctx, lookEvery)
		}
		if ctx.Err() != nil {
			return 0, fmt.Errorf("wait for the destination: %w; %s", context.Cause(ctx), last)
		}
		if err != nil {
			return 0, err
		}
	}
}

// probe writes a row at the source and waits until it is at the destination. It is deleted again.
func (e *Ends) probe(ctx context.Context, table string) error {
	var id, quoted string
	err := e.Source.Conn.QueryRow(ctx, `select pg_catalog.gen_random_uuid()::text, coalesce((select pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = pg_catalog.to_regclass($1)), '')`, table).Scan(&id, &quoted)
	switch {
	case err != nil:
		return fmt.Errorf("look for the probe table: %w", err)
	case quoted == "":
		return &UsageError{fmt.Sprintf("there is no table %s at the source", table), "--probe SCHEMA.TABLE, with columns id text primary key, at timestamptz"}
	}
	if _, err := e.Source.Conn.Exec(ctx, `insert into `+quoted+` (id, at) values ($1, pg_catalog.now())`, id); err != nil {
		return fmt.Errorf("write a row to %s: %w", table, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if e.Source.again(ctx) == nil {
			_, _ = e.Source.Conn.Exec(ctx, `delete from `+quoted+` where id = $1`, id) // a row that is left does no harm
		}
	}()
	if err := failpoint.Hit("cutover.probed"); err != nil {
		return err
	}
	for {
		var there bool
		if err := e.Destination.Conn.QueryRow(ctx, `select exists (select from `+quoted+` where id = $1)`, id).Scan(&there); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("wait for a row of %s: %w", table, context.Cause(ctx))
			}
			return fmt.Errorf("look for a row of %s: %w", table, err)
		}
		if there {
			return nil
		}
		if err := pause.For(ctx, lookEvery); err != nil {
			return fmt.Errorf("wait for a row of %s: %w", table, err)
		}
	}
}
