// Package streamstore keeps what the database remembers of the region's own stream, in table
// pgwaltz.stream. Only this package writes that table.
package streamstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Schema creates the table; the schema pgwaltz must exist. It may be run again.
const Schema = `create table if not exists pgwaltz.stream (
  region              text primary key,
  incarnation         bigint not null,
  reopened            bigint not null default 0,
  loose_frame         bigint not null default 0,
  loosened            bigint not null default 0,
  system_id           text,
  timeline            int,
  slot                text,
  gap_from            pg_lsn,
  gap_to              pg_lsn,
  gap_at              timestamptz,
  gap_why             text,
  gap_history         boolean not null default false,
  newcomer            boolean not null default false,
  passed              pg_lsn,
  exclusions          text,
  resync_requested_at timestamptz,
  resynced_at         timestamptz
)`

// Conn runs statements; *pgx.Conn and pgx.Tx are Conns.
type Conn interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Row is what is stored.
type Row struct {
	checkpoint.Stored
	// Resynced is when an operator asked for a copy of all tables last; zero for never.
	Resynced time.Time
}

// Load reads the region's row; the zero Row when there is none.
func Load(ctx context.Context, c Conn, region string) (Row, error) {
	var r Row
	var n, reopened, loose, loosened, passed int64
	var system string
	var timeline int32
	var resynced *time.Time
	err := c.QueryRow(ctx, `select incarnation, reopened, coalesce(system_id, '0'), coalesce(timeline, 0), coalesce(slot, ''),
  gap_at is not null, resync_requested_at is not null, resynced_at, gap_history, coalesce(gap_why, ''), loose_frame, loosened, newcomer,
  (coalesce(passed, '0/0') - '0/0'::pg_lsn)::int8
from pgwaltz.stream where region = $1`, region).Scan(&n, &reopened, &system, &timeline, &r.Epoch.Slot, &r.Gap, &r.Resync, &resynced, &r.History, &r.Why, &loose, &loosened, &r.Newcomer, &passed)
	if errors.Is(err, pgx.ErrNoRows) {
		return Row{}, nil
	}
	if err != nil {
		return Row{}, fmt.Errorf("read stream row: %w", err)
	}
	if r.Epoch.SystemID, err = strconv.ParseUint(system, 10, 64); err != nil {
		return Row{}, fmt.Errorf("read stream row: system identifier: %w", err)
	}
	r.Epoch.Timeline, r.Incarnation, r.Reopened = uint32(timeline), uint32(n), uint32(reopened)
	r.Loose, r.Loosened = uint64(loose), uint32(loosened)
	r.Passed = wal.LSN(passed)
	if resynced != nil {
		r.Resynced = *resynced
	}
	return r, nil
}

// PresentSQL is a condition for statements of other tables: the incarnation that a parameter names
// is the present one.
func PresentSQL(parameter string) string {
	return `exists (select from pgwaltz.stream where incarnation = ` + parameter + `)`
}

// ErrFenced: the row holds this incarnation or a later one. Another sidecar of the region has begun it meanwhile.
var ErrFenced = errors.New("the incarnation was begun by someone else")

// Begin stores a new incarnation, in the caller's transaction: before any peer can see its
// number. With reopen it admits the gap, which is closed by it, and what was passed before is forgotten. Errors: ErrFenced, and nothing is changed.
func Begin(ctx context.Context, c Conn, region string, incarnation uint32, e wal.Epoch, reopen bool) error {
	tag, err := c.Exec(ctx, `insert into pgwaltz.stream as s (region, incarnation, system_id, timeline, slot, reopened)
values ($1, $2::bigint, $3, $4, $5, case when $6 then $2::bigint else 0 end)
on conflict (region) do update set incarnation = excluded.incarnation, system_id = excluded.system_id, timeline = excluded.timeline, slot = excluded.slot,
  reopened = case when $6 then excluded.incarnation else s.reopened end,
  passed = case when not $6 and s.slot = excluded.slot then s.passed end,
  loose_frame = 0, gap_from = null, gap_to = null, gap_at = null, gap_why = null, gap_history = false, newcomer = false, resync_requested_at = null
where s.incarnation < excluded.incarnation`,
		region, int64(incarnation), strconv.FormatUint(e.SystemID, 10), int32(e.Timeline), e.Slot, reopen)
	if err != nil {
		return fmt.Errorf("save stream row: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("save stream row: incarnation %d: %w", incarnation, ErrFenced)
	}
	return nil
}

// Settle forgets a request, and a gap, that turned out to need no new incarnation.
func Settle(ctx context.Context, c Conn, region string) error {
	_, err := c.Exec(ctx, `update pgwaltz.stream set gap_from = null, gap_to = null, gap_at = null, gap_why = null, gap_history = false, resync_requested_at = null where region = $1`, region)
	if err != nil {
		return fmt.Errorf("save stream row: %w", err)
	}
	return nil
}

// NoteGap records a gap between what was published and what the slot can give; the time of
// the first note stays. history says that the server was restored from an older state. first is true when
// none was noted yet.
func NoteGap(ctx context.Context, c Conn, region string, from, to wal.LSN, history bool, why string) (first bool, err error) {
	err = c.QueryRow(ctx, `insert into pgwaltz.stream as s (region, incarnation, gap_from, gap_to, gap_at, gap_why, gap_history)
values ($1, 0, $2::text::pg_lsn, $3::text::pg_lsn, pg_catalog.now(), $4, $5)
on conflict (region) do update set gap_from = excluded.gap_from, gap_to = excluded.gap_to, gap_at = coalesce(s.gap_at, excluded.gap_at), gap_why = excluded.gap_why,
  gap_history = s.gap_history or excluded.gap_history
returning gap_at = pg_catalog.now()`,
		region, from.String(), to.String(), why, history).Scan(&first)
	if err != nil {
		return false, fmt.Errorf("record gap: %w", err)
	}
	return first, nil
}

// NoteNewcomer records that a peer which has applied nothing needs an incarnation to begin with. It
// reports whether that is new: then the tables have to be copied.
func NoteNewcomer(ctx context.Context, c Conn, region string) (bool, error) {
	tag, err := c.Exec(ctx, `update pgwaltz.stream set newcomer = true where region = $1 and not newcomer`, region)
	if err != nil {
		return false, fmt.Errorf("save stream row: %w", err)
	}
	return tag.RowsAffected() > 0, nil
}

// NoteLoose records that frames of an incarnation up to one are purged although not every peer
// has committed them.
func NoteLoose(ctx context.Context, c Conn, region string, incarnation uint32, frame uint64) error {
	_, err := c.Exec(ctx, `update pgwaltz.stream set loose_frame = $3, loosened = incarnation where region = $1 and incarnation = $2`, region, int64(incarnation), int64(frame))
	if err != nil {
		return fmt.Errorf("save stream row: %w", err)
	}
	return nil
}

// NotePassed records a position that was confirmed and that every peer has applied (checkpoint.Stored), while an
// incarnation is the present one. It is never lowered. It need not be on disk: what a crash forgets is published again.
func NotePassed(ctx context.Context, c Conn, region string, incarnation uint32, passed wal.LSN) error {
	_, err := c.Exec(ctx, `update pgwaltz.stream set passed = $3::text::pg_lsn where region = $1 and incarnation = $2 and coalesce(passed, '0/0') < $3::text::pg_lsn`,
		region, int64(incarnation), passed.String())
	if err != nil {
		return fmt.Errorf("save stream row: %w", err)
	}
	return nil
}

// RequestResync notes that an operator wants all tables copied again, and a gap admitted where
// there is one. It returns the gap's reason, or "" when none is noted.
func RequestResync(ctx context.Context, c Conn, region string) (why string, err error) {
	err = c.QueryRow(ctx, `insert into pgwaltz.stream as s (region, incarnation, resync_requested_at, resynced_at) values ($1, 0, pg_catalog.now(), pg_catalog.now())
on conflict (region) do update set resync_requested_at = excluded.resync_requested_at, resynced_at = excluded.resynced_at
returning case when s.gap_at is not null then coalesce(s.gap_why, 'noted by a peer') else '' end`, region).Scan(&why)
	if err != nil {
		return "", fmt.Errorf("request resync: %w", err)
	}
	return why, nil
}
