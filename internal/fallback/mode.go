package fallback

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Schema creates the table; the schema pgwaltz must exist. It may be run again. Only a switch makes it: a
// region that was never switched has none.
const Schema = `create table if not exists pgwaltz.mode (
  region  text primary key,
  mode    text,                  -- stream, native or pglogical; null where there was no switch yet
  settled boolean not null,      -- false while the switch to it is under way
  since   timestamptz not null,  -- when that switch began
  prepared pg_lsn,               -- mode pglogical: from here on its replication set is in the WAL
  by      text,                  -- the region whose process has switched it by itself; null: a person has
  auto    boolean not null default false -- the region's process takes part in automatic switches
);
alter table pgwaltz.mode add column if not exists by text;
alter table pgwaltz.mode add column if not exists auto boolean not null default false`

// Row is the mode that the last switch has chosen.
type Row struct {
	Mode    config.Mode
	Settled bool // the switch is finished
	Since   time.Time
	By      string // the region whose process has switched it by itself; "" for a person
}

// Auto reports whether nobody but the regions' own processes has a part in the mode: they may switch it again.
func (r *Row) Auto() bool { return r != nil && r.By != "" }

// Load reads the region's row; nil where the region was never switched.
func Load(ctx context.Context, q pg.Querier, region string) (*Row, error) {
	var r Row
	var there bool
	// Asked first, so that a region that was never switched has no error in the server's log.
	if err := q.QueryRow(ctx, `select pg_catalog.to_regclass('pgwaltz.mode') is not null`).Scan(&there); err != nil {
		return nil, fmt.Errorf("look for pgwaltz.mode: %w", err)
	}
	if !there {
		return nil, nil
	}
	err := q.QueryRow(ctx, `select mode, settled, since, coalesce(pg_catalog.to_jsonb(m) ->> 'by', '') from pgwaltz.mode m where region = $1 and mode is not null`, region).Scan(&r.Mode, &r.Settled, &r.Since, &r.By)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read pgwaltz.mode: %w", err)
	}
	return &r, nil
}

// Prepared is the position behind which what a region commits can be decoded for pglogical; 0 where there is none. The table must
// exist.
func Prepared(ctx context.Context, q pg.Querier, region string) (wal.LSN, error) {
	var text string
	if err := q.QueryRow(ctx, `select coalesce((select prepared::text from pgwaltz.mode where region = $1), '0/0')`, region).Scan(&text); err != nil {
		return 0, fmt.Errorf("read pgwaltz.mode: %w", err)
	}
	return wal.ParseLSN(text)
}

// InEffect is the mode of a region whose row is r; nil is no row.
func InEffect(cfg *config.Config, r *Row) config.Mode {
	if r == nil {
		return cfg.Mode
	}
	return r.Mode
}

// HalfDoneError says that a switch was cut off.
type HalfDoneError struct{ Mode config.Mode }

func (e *HalfDoneError) Error() string {
	return fmt.Sprintf("the switch to mode %s was cut off", e.Mode)
}

// Hint is what finishes it.
func (e *HalfDoneError) Hint() string {
	return fmt.Sprintf("pgwaltz mode switch %s --config FILE", e.Mode)
}

// SwitchedError says that the region is in another mode than the one in which somebody works for it.
type SwitchedError struct{ Mode config.Mode }

func (e *SwitchedError) Error() string {
	return fmt.Sprintf("this region was switched to mode %s: start again", e.Mode)
}

// BeginSQL notes that a switch to mode is under way; since stays that of an earlier try. by is the region whose process switches by
// itself, "" for a person.
func BeginSQL(region string, mode config.Mode, by string) string {
	who := "null"
	if by != "" {
		who = pg.Literal(by)
	}
	return fmt.Sprintf(`insert into pgwaltz.mode as m (region, mode, settled, since, by) values (%s, %s, false, pg_catalog.now(), %s)
on conflict (region) do update set settled = false, since = case when m.mode is not distinct from excluded.mode and not m.settled then m.since else excluded.since end, mode = excluded.mode, by = excluded.by`,
		pg.Literal(region), pg.Literal(string(mode)), who)
}

// PreparedSQL notes that the region's replication set is in the WAL from now on. It leaves the mode as it is.
func PreparedSQL(region string) string {
	return fmt.Sprintf(`insert into pgwaltz.mode (region, settled, since, prepared) values (%s, true, pg_catalog.now(), pg_catalog.pg_current_wal_insert_lsn())
on conflict (region) do update set prepared = excluded.prepared`, pg.Literal(region))
}

// UnpreparedSQL forgets it.
func UnpreparedSQL(region string) string {
	return "update pgwaltz.mode set prepared = null where region = " + pg.Literal(region)
}

// SettleSQL notes that the switch to mode is finished, unless another one has been asked for meanwhile.
func SettleSQL(region string, mode config.Mode) string {
	return fmt.Sprintf("update pgwaltz.mode set settled = true where region = %s and mode = %s", pg.Literal(region), pg.Literal(string(mode)))
}

// GrantSQL lets the role of run read it.
func GrantSQL(role string) string { return "grant select on pgwaltz.mode to " + pg.Quote(role) }
