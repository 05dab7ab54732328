package tombstone

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// HorizonSchema is the DDL of the row that says up to which transaction this database knows of its own WAL. writer is the
// transaction that wrote the row, as the row itself says: a dump that is restored has rows of other transactions, and its
// horizon tells nothing of them. A copy of the files keeps both. at is a time, in microseconds, that later transactions were committed
// behind. snap is the snapshot that the horizon was taken from, null where an earlier program did. whole, whole_at and whole_snap are such a horizon of a moment at which everything was published that is to be (SaveWhole).
const HorizonSchema = `create table if not exists pgwaltz.horizon (
  one    boolean primary key default true check (one),
  xid    bigint not null,
  writer bigint not null,
  at     bigint,
  snap   text,
  whole  bigint,
  whole_at bigint,
  whole_snap text
)`

// Horizon parts the transactions of a server: what each one below XID has written of this region's own changes was read from the WAL,
// and is noted beside the rows. Rows of later transactions may have been written in WAL that nobody has read (Unread).
// They were committed at At or later; MinMicros where that is not known.
//
// Snap is the snapshot that it was taken from, as the server prints it; "" where that is not known. Transactions that it shows are over, read and noted as well,
// although one that lies below them may be open.
type Horizon struct {
	XID  uint64
	At   wal.Micros
	Snap string
}

// Next is the first transaction that had not begun when the horizon was taken; XID where that is not known. Beside a transaction that stays open it rises, and XID does not.
func (h Horizon) Next() uint64 {
	parts := strings.Split(h.Snap, ":")
	if len(parts) != 3 {
		return h.XID
	}
	next, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return h.XID
	}
	return next
}

// slackMicros is how long a commit may be on its way: it has its time before others see it.
const slackMicros = 1_000_000

// RowQuerier reads one row; *pgx.Conn and pgx.Tx do.
type RowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// ReadHorizon takes the horizon as it is now. It holds when everything is merged that lies below the returned
// position.
func ReadHorizon(ctx context.Context, c RowQuerier) (h Horizon, below wal.LSN, err error) {
	var xid, end, at int64
	var snap string
	err = c.QueryRow(ctx, `select pg_catalog.pg_snapshot_xmin(s)::text::int8, (pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::int8,
  (extract(epoch from pg_catalog.statement_timestamp()) * 1000000)::int8, s::text from pg_catalog.pg_current_snapshot() as s`).Scan(&xid, &end, &at, &snap)
	if err != nil {
		return h, 0, fmt.Errorf("read the horizon: %w", err)
	}
	return Horizon{uint64(xid), wal.Micros(at - slackMicros), snap}, wal.LSN(end), nil
}

// ReadNext is the id of a transaction that has not begun yet: what earlier ones have committed lies below a horizon that has come so far.
func ReadNext(ctx context.Context, c RowQuerier) (uint64, error) {
	var next int64
	if err := c.QueryRow(ctx, `select pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::int8`).Scan(&next); err != nil {
		return 0, fmt.Errorf("read snapshot: %w", err)
	}
	return uint64(next), nil
}

// SaveHorizon stores a horizon, which never goes back within one history.
func SaveHorizon(ctx context.Context, q Querier, h Horizon) error {
	_, err := q.Exec(ctx, `insert into pgwaltz.horizon as h (xid, writer, at, snap) values ($1, pg_catalog.pg_current_xact_id()::text::int8, $2, nullif($3, ''))
on conflict (one) do update set xid = excluded.xid, writer = excluded.writer, at = excluded.at, snap = excluded.snap`, int64(h.XID), int64(h.At), h.Snap)
	if err != nil {
		return fmt.Errorf("store the horizon: %w", err)
	}
	return nil
}

// SaveWhole notes a horizon as one of a moment at which everything was published that is to be: what is found to be left out later
// was read from the WAL up to there.
func SaveWhole(ctx context.Context, q Querier, h Horizon) error {
	_, err := q.Exec(ctx, `update pgwaltz.horizon set whole = $1, whole_at = $2, whole_snap = nullif($3, ''), writer = pg_catalog.pg_current_xact_id()::text::int8`, int64(h.XID), int64(h.At), h.Snap)
	if err != nil {
		return fmt.Errorf("store the horizon: %w", err)
	}
	return nil
}

// LoadHorizon reads the horizon; false where none is stored that tells of the rows of this database.
func LoadHorizon(ctx context.Context, c RowQuerier) (Horizon, bool, error) {
	return loadHorizon(ctx, c, "h.xid", "h.at", "h.snap")
}

// LoadWhole reads the one that SaveWhole noted last.
func LoadWhole(ctx context.Context, c RowQuerier) (Horizon, bool, error) {
	return loadHorizon(ctx, c, "h.whole", "h.whole_at", "h.whole_snap")
}

func loadHorizon(ctx context.Context, c RowQuerier, xid, at, snap string) (h Horizon, known bool, err error) {
	var id, when int64
	err = c.QueryRow(ctx, fmt.Sprintf(`select %[1]s, coalesce(%[2]s, %[3]d), coalesce(%[4]s, '') from pgwaltz.horizon h
where h.xmin::text::int8 = h.writer & 4294967295 and %[1]s <= pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::int8`, xid, at, int64(wal.MinMicros), snap)).Scan(&id, &when, &h.Snap)
	if errors.Is(err, pgx.ErrNoRows) {
		return Horizon{}, false, nil
	}
	if err != nil {
		return Horizon{}, false, fmt.Errorf("read the horizon: %w", err)
	}
	h.XID, h.At = uint64(id), wal.Micros(when)
	return h, true, nil
}

// BehindSQL is a condition over a row t: a transaction behind the horizon wrote it, and not one that has begun since the
// statement's own did. Ids are told apart within half of their circle; a horizon that lies further back is as far back as that.
func (h Horizon) BehindSQL() string {
	return fmt.Sprintf(`pg_catalog.age(t.xmin) between 0 and (select case when pg_catalog.pg_snapshot_xmax(s)::text::int8 - %d > 2147483645 then 2147483645
  else pg_catalog.age('%d'::pg_catalog.xid) end from pg_catalog.pg_current_snapshot() as s)`, h.XID, h.XID%(1<<32))
}

// BeforeSQL is a condition over a row t: a transaction before the horizon wrote it.
func (h Horizon) BeforeSQL() string {
	return fmt.Sprintf(`pg_catalog.age(t.xmin) > pg_catalog.age('%d'::pg_catalog.xid)`, h.XID%(1<<32))
}
