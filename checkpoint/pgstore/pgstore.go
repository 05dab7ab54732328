package pgstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/wal"
)

// gap_incarnation and gap_frame say how far the origin's stream was applied when this region found that it
// had lost something itself; answered is the newest incarnation of the origin that admitted a gap and has
// been answered here, see package copy (CopyBack).

// Schema creates the table; the schema pgwaltz must exist. It is re-runnable. The fill factor
// keeps the row's many updates on one page.
const Schema = `CREATE TABLE IF NOT EXISTS pgwaltz.checkpoint (
  origin       text PRIMARY KEY,
  system_id    text NOT NULL,
  timeline     int NOT NULL,
  slot         text NOT NULL,
  incarnation  bigint NOT NULL,
  frame_no     bigint NOT NULL,
  end_lsn      pg_lsn NOT NULL,
  mark_end     pg_lsn NOT NULL DEFAULT '0/0',
  mark_xid     bigint NOT NULL DEFAULT 0,
  mark_time    bigint NOT NULL DEFAULT 0,
  seen_lsn     pg_lsn NOT NULL DEFAULT '0/0',
  chain        bytea NOT NULL,
  stream_seq   bigint NOT NULL,
  transactions bigint NOT NULL DEFAULT 0,
  commit_time  timestamptz,
  applied_at   timestamptz,
  gap_incarnation bigint NOT NULL DEFAULT 0,
  gap_frame    bigint NOT NULL DEFAULT 0,
  answered     bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10)`

// LoadSQL reads the row of origin $1.
const LoadSQL = `SELECT system_id, timeline, slot, incarnation, frame_no, end_lsn::text, chain, stream_seq, transactions,
  commit_time, applied_at, mark_end::text, mark_xid, mark_time, seen_lsn::text
FROM pgwaltz.checkpoint WHERE origin = $1`

// SaveSQL saves a checkpoint over the one before; its arguments come from SaveArgs. It must
// change exactly one row: see Fenced.
const SaveSQL = `UPDATE pgwaltz.checkpoint SET system_id = $4, timeline = $5, slot = $6, incarnation = $7, frame_no = $8,
  end_lsn = $9::text::pg_lsn, chain = $10, stream_seq = $11, transactions = $12, commit_time = $13, applied_at = $14,
  mark_end = $15::text::pg_lsn, mark_xid = $16, mark_time = $17, seen_lsn = $18::text::pg_lsn
WHERE origin = $1 AND incarnation = $2 AND frame_no = $3`

const initSQL = `INSERT INTO pgwaltz.checkpoint (origin, system_id, timeline, slot, incarnation, frame_no, end_lsn, chain,
  stream_seq, transactions, commit_time, applied_at, mark_end, mark_xid, mark_time, seen_lsn)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::pg_lsn, $8, $9, $10, $11, $12, $13::text::pg_lsn, $14, $15, $16::text::pg_lsn)
ON CONFLICT (origin) DO NOTHING`

// ErrFenced: the checkpoint row is not where the caller left it.
var ErrFenced = errors.New("checkpoint was moved by someone else")

// FencedError is ErrFenced with what was expected. The transaction must be rolled back.
type FencedError struct {
	Origin      string
	Incarnation uint32
	FrameNo     uint64
}

func (e *FencedError) Error() string {
	return fmt.Sprintf("save checkpoint of %s: it is not at frame %d/%d any more: %v", e.Origin, e.Incarnation, e.FrameNo, ErrFenced)
}

// Is makes errors.Is(err, ErrFenced) true.
func (e *FencedError) Is(target error) bool { return target == ErrFenced }

// Hint tells an operator what to do.
func (e *FencedError) Hint() string {
	return "another sidecar applies for this region, or the row was edited or restored; stop the other one, or let this one load the checkpoint anew"
}

// Querier reads one row; *pgx.Conn, pgx.Tx and *pgxpool.Pool are Queriers.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Execer runs one statement; *pgx.Conn, pgx.Tx and *pgxpool.Pool are Execers.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Load reads the checkpoint of origin; found is false when there is none.
func Load(ctx context.Context, q Querier, origin string) (c checkpoint.Checkpoint, found bool, err error) {
	var (
		system, end         string
		timeline            int32
		incarnation, number int64
		seq, txs            int64
		chain               []byte
		committed, applied  *time.Time
		markEnd, seen       string
		markXID, markTime   int64
	)
	c.Origin = origin
	err = q.QueryRow(ctx, LoadSQL, origin).Scan(&system, &timeline, &c.Epoch.Slot, &incarnation, &number, &end, &chain,
		&seq, &txs, &committed, &applied, &markEnd, &markXID, &markTime, &seen)
	if errors.Is(err, pgx.ErrNoRows) {
		return checkpoint.Checkpoint{}, false, nil
	}
	if err != nil {
		return checkpoint.Checkpoint{}, false, fmt.Errorf("load checkpoint of %s: %w", origin, err)
	}
	if c.Epoch.SystemID, err = strconv.ParseUint(system, 10, 64); err != nil {
		return checkpoint.Checkpoint{}, false, fmt.Errorf("load checkpoint of %s: system identifier: %w", origin, err)
	}
	if c.EndLSN, err = wal.ParseLSN(end); err != nil {
		return checkpoint.Checkpoint{}, false, fmt.Errorf("load checkpoint of %s: %w", origin, err)
	}
	if c.Mark.EndLSN, err = wal.ParseLSN(markEnd); err != nil {
		return checkpoint.Checkpoint{}, false, fmt.Errorf("load checkpoint of %s: %w", origin, err)
	}
	if c.Seen, err = wal.ParseLSN(seen); err != nil {
		return checkpoint.Checkpoint{}, false, fmt.Errorf("load checkpoint of %s: %w", origin, err)
	}
	c.Mark.XID, c.Mark.CommitTime = wal.XID(markXID), wal.Micros(markTime)
	if len(chain) != len(c.Chain) || incarnation < 0 || incarnation > 1<<32-1 || number < 0 || seq < 0 || txs < 0 || timeline < 0 {
		return checkpoint.Checkpoint{}, false, fmt.Errorf("load checkpoint of %s: the row holds values out of range", origin)
	}
	copy(c.Chain[:], chain)
	c.Epoch.Timeline, c.Incarnation, c.FrameNo = uint32(timeline), uint32(incarnation), uint64(number)
	c.StreamSeq, c.Transactions = uint64(seq), uint64(txs)
	c.CommitTime, c.AppliedAt = fromTime(committed), fromTime(applied)
	return c, true, nil
}

// Init creates the row of c.Origin and reports whether it did; an existing row stays.
func Init(ctx context.Context, x Execer, c checkpoint.Checkpoint) (created bool, err error) {
	tag, err := x.Exec(ctx, initSQL, append([]any{c.Origin}, columns(c)...)...)
	if err != nil {
		return false, fmt.Errorf("create checkpoint of %s: %w", c.Origin, err)
	}
	return tag.RowsAffected() == 1, nil
}

// SaveArgs are the arguments of SaveSQL, for an applier that sends it in its own batch.
func SaveArgs(prev, next checkpoint.Checkpoint) []any {
	return append([]any{prev.Origin, int64(prev.Incarnation), int64(prev.FrameNo)}, columns(next)...)
}

// Fenced turns the row count of SaveSQL into nil or a *FencedError.
func Fenced(prev checkpoint.Checkpoint, rows int64) error {
	if rows == 1 {
		return nil
	}
	return &FencedError{Origin: prev.Origin, Incarnation: prev.Incarnation, FrameNo: prev.FrameNo}
}

func columns(c checkpoint.Checkpoint) []any {
	return []any{
		strconv.FormatUint(c.Epoch.SystemID, 10), int32(c.Epoch.Timeline), c.Epoch.Slot, int64(c.Incarnation),
		int64(c.FrameNo), c.EndLSN.String(), c.Chain[:], int64(c.StreamSeq), int64(c.Transactions),
		toTime(c.CommitTime), toTime(c.AppliedAt),
		c.Mark.EndLSN.String(), int64(c.Mark.XID), int64(c.Mark.CommitTime), c.Seen.String(),
	}
}

// toTime maps a time that is not known (0 or the ends of the range) to NULL.
func toTime(m wal.Micros) *time.Time {
	if m == 0 || m == wal.MinMicros || m == wal.MaxMicros {
		return nil
	}
	t := m.Time()
	return &t
}

func fromTime(t *time.Time) wal.Micros {
	if t == nil {
		return 0
	}
	return wal.MicrosOf(*t)
}

// Origins lists the origins that have a checkpoint, in order.
func Origins(ctx context.Context, c *pgx.Conn) ([]string, error) {
	rows, err := c.Query(ctx, `SELECT origin FROM pgwaltz.checkpoint ORDER BY origin`)
	if err != nil {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	return list, nil
}

// Skip moves the row of an origin to where only an incarnation above the given one is
// applied, whatever frames of earlier ones are still in the stream. It is for the region's
// own origin, when its stream is opened again behind a gap: what was published before is of
// a history that may not be this database's. A database that was restored from before its first
// checkpoint has no row yet.
func Skip(ctx context.Context, tx Execer, origin string, incarnation uint32) error {
	_, err := Init(ctx, tx, checkpoint.Checkpoint{Origin: origin})
	if err == nil {
		_, err = tx.Exec(ctx, SkipSQL("$1", incarnation, 0), origin)
	}
	if err != nil {
		return fmt.Errorf("skip to incarnation %d of %s: %w", incarnation+1, origin, err)
	}
	return nil
}

// SkipSQL is the statement that makes an origin be read on with the incarnation behind this one, where a row is there. What the origin
// has committed up to applied has come, in whatever way; 0 is for a WAL of which nothing is known. origin is SQL: a literal or a parameter.
func SkipSQL(origin string, incarnation uint32, applied wal.LSN) string {
	return fmt.Sprintf(`update pgwaltz.checkpoint set incarnation = %d, frame_no = %d, end_lsn = '%[3]s', seen_lsn = '%[3]s', mark_end = '0/0', mark_xid = 0, mark_time = 0,
  chain = pg_catalog.decode(pg_catalog.repeat('00', 32), 'hex'), stream_seq = 0 where origin = %[4]s`, incarnation, int64(math.MaxInt64), applied, origin)
}

// Skips reports whether a checkpoint is one that SkipSQL has left for the incarnation.
func Skips(c checkpoint.Checkpoint, incarnation uint32) bool {
	return c.Incarnation == incarnation && c.FrameNo == math.MaxInt64
}

// Forget removes the row of an origin that sends nothing any more. If it did, all of it would be applied again.
func Forget(ctx context.Context, tx Execer, origin string) error {
	if _, err := tx.Exec(ctx, `DELETE FROM pgwaltz.checkpoint WHERE origin = $1`, origin); err != nil {
		return fmt.Errorf("forget how far %s is applied: %w", origin, err)
	}
	return nil
}

// Place is a frame of an origin's stream.
type Place struct {
	Incarnation uint32
	Frame       uint64
}

// NoteKnown remembers how far each origin is applied at the moment when this region finds that it has lost
// something (a gap of its own stream), for Known.
func NoteKnown(ctx context.Context, x Execer) error {
	if _, err := x.Exec(ctx, `UPDATE pgwaltz.checkpoint SET gap_incarnation = incarnation, gap_frame = frame_no`); err != nil {
		return fmt.Errorf("note what is applied at a gap: %w", err)
	}
	return nil
}

// Known returns what NoteKnown remembered last, by origin.
func Known(ctx context.Context, c *pgx.Conn) (map[string]Place, error) {
	rows, err := c.Query(ctx, `SELECT origin, gap_incarnation, gap_frame FROM pgwaltz.checkpoint`)
	if err != nil {
		return nil, fmt.Errorf("read what was applied at a gap: %w", err)
	}
	known := map[string]Place{}
	var origin string
	var incarnation, frame int64
	if _, err := pgx.ForEachRow(rows, []any{&origin, &incarnation, &frame}, func() error {
		known[origin] = Place{uint32(incarnation), uint64(frame)}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read what was applied at a gap: %w", err)
	}
	return known, nil
}

// Answer notes that an incarnation of origin that admitted a gap is answered. due is false when it is not
// applied here yet, or was answered before; done tells the second from the first.
func Answer(ctx context.Context, tx interface {
	Execer
	Querier
}, origin string, incarnation uint32) (due, done bool, err error) {
	tag, err := tx.Exec(ctx, `UPDATE pgwaltz.checkpoint SET answered = $2 WHERE origin = $1 AND incarnation >= $2 AND answered < $2`, origin, int64(incarnation))
	if err != nil {
		return false, false, fmt.Errorf("note the answer to %s: %w", origin, err)
	}
	if tag.RowsAffected() == 1 {
		return true, true, nil
	}
	err = tx.QueryRow(ctx, `SELECT coalesce((SELECT answered >= $2 FROM pgwaltz.checkpoint WHERE origin = $1), false)`, origin, int64(incarnation)).Scan(&done)
	if err != nil {
		return false, false, fmt.Errorf("note the answer to %s: %w", origin, err)
	}
	return false, done, nil
}
