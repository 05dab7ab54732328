package poll

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Schema makes the tables of this package in the destination; the schema pgwaltz must exist. It may be run again.
// The stage is not logged: a crash of the server empties it, and the poll rows in phase copying with it are
// found out by Settle.
func Schema() []string {
	return []string{`create table if not exists pgwaltz.poll (
  job       text not null,
  relation  text not null,
  source    text not null,
  source_id bigint not null,
  phase     text not null,
  pages     bigint not null default 0,
  last_key  text[],
  seen      text not null,
  seen_at   text not null,
  swept     timestamptz not null default now(),
  rows      bigint not null default 0,
  shape     text not null,
  slot      text not null default '',
  slot_lsn  pg_lsn not null default '0/0',
  barrier   text not null default '',
  primary key (job, relation)
)`, `create unlogged table if not exists pgwaltz.poll_stage (
  job      text not null,
  relation text not null,
  page     bigint not null,
  data     bytea not null,
  primary key (job, relation, page)
)`}
}

// Phase is how far the copy of a table is.
type Phase string

const (
	Copying Phase = "copying" // some pages are in the stage
	Whole   Phase = "whole"   // all pages are
	Done    Phase = "done"    // they are in the table, and what changes is followed
)

// State is what the destination remembers of one table of a job.
type State struct {
	Job      string
	Table    wal.RelationName
	Source   string // which database: system identifier and name
	SourceID uint32 // of the table there
	Phase    Phase
	Pages    int64    // in the stage
	LastKey  []string // of the last of them; nil before the first
	// Seen is the snapshot behind which changes are looked for.
	Seen  Snapshot
	Swept time.Time // when all that changed was looked for by xmin
	Rows  int64     // copied and changed since the copy began
	// Shape is that of the staged rows: pages of another one cannot be read (Table.Shape).
	Shape string
	// Slot is the slot that tells what is written to the table, "" for none, and SlotLSN the position up to which its WAL is applied. Transactions below
	// Barrier began before it did so.
	Slot    string
	SlotLSN wal.LSN
	Barrier string
}

// Streams reports whether all that is not in the destination is in the WAL that a slot still gives, whose confirmed position it is.
func (s *State) Streams(slot string, confirmed wal.LSN) bool {
	return s.Slot == slot && confirmed <= s.SlotLSN && s.Seen.Passed(s.Barrier)
}

// Load reads what is remembered of the tables of a job.
func Load(ctx context.Context, conn *pgx.Conn, job string) (map[wal.RelationName]*State, error) {
	rows, err := conn.Query(ctx, `select relation, source, source_id, phase, pages, last_key, seen, seen_at, swept, rows, shape, slot, slot_lsn::text, barrier from pgwaltz.poll where job = $1`, job)
	if err != nil {
		return nil, fmt.Errorf("read the state of the job: %w", err)
	}
	out := map[wal.RelationName]*State{}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (*State, error) {
		s, relation, lsn, id := &State{Job: job}, "", "", int64(0)
		err := r.Scan(&relation, &s.Source, &id, &s.Phase, &s.Pages, &s.LastKey, &s.Seen.XMin, &s.Seen.At, &s.Swept, &s.Rows, &s.Shape, &s.Slot, &lsn, &s.Barrier)
		s.SourceID = uint32(id)
		name, ok := wal.ParseRelationName(relation)
		if err == nil && !ok {
			err = errors.New("a table's name cannot be read")
		}
		s.Table = name
		if err == nil {
			s.SlotLSN, err = wal.ParseLSN(lsn)
		}
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the state of the job: %w", err)
	}
	for _, s := range list {
		out[s.Table] = s
	}
	return out, nil
}

const saveSQL = `insert into pgwaltz.poll as p (job, relation, source, source_id, phase, pages, last_key, seen, seen_at, swept, rows, shape, slot, slot_lsn, barrier)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14::text::pg_lsn, $15) on conflict (job, relation) do update set source = excluded.source, source_id = excluded.source_id,
 phase = excluded.phase, pages = excluded.pages, last_key = excluded.last_key, seen = excluded.seen, seen_at = excluded.seen_at, swept = excluded.swept, rows = excluded.rows, shape = excluded.shape, slot = excluded.slot, slot_lsn = excluded.slot_lsn, barrier = excluded.barrier`

// Save keeps the state of some tables, all or none.
func Save(ctx context.Context, conn *pgx.Conn, states ...*State) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return save(ctx, tx, states) })
	if err != nil {
		return fmt.Errorf("save the state of the job: %w", err)
	}
	return nil
}

func save(ctx context.Context, tx pgx.Tx, states []*State) error {
	for _, s := range states {
		if _, err := tx.Exec(ctx, saveSQL, s.Job, s.Table.String(), s.Source, int64(s.SourceID), string(s.Phase), s.Pages, s.LastKey, s.Seen.XMin, s.Seen.At, s.Swept, s.Rows, s.Shape, s.Slot, s.SlotLSN.String(), s.Barrier); err != nil {
			return err
		}
	}
	return nil
}

// Stage puts a page behind the others and moves the state with it. The caller's state is changed only if that went well.
func Stage(ctx context.Context, conn *pgx.Conn, s *State, rows []wal.Tuple, last []string) error {
	next := *s
	next.Pages, next.LastKey, next.Rows = s.Pages+1, last, s.Rows+int64(len(rows))
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `insert into pgwaltz.poll_stage (job, relation, page, data) values ($1, $2, $3, $4)`, s.Job, s.Table.String(), s.Pages, encode(rows)); err != nil {
			return err
		}
		return save(ctx, tx, []*State{&next})
	})
	if err != nil {
		return fmt.Errorf("stage rows of %s: %w", s.Table, err)
	}
	*s = next
	return nil
}

// Staged reads one page of the stage.
func Staged(ctx context.Context, conn *pgx.Conn, s *State, page int64, columns int) ([]wal.Tuple, error) {
	var data []byte
	err := conn.QueryRow(ctx, `select data from pgwaltz.poll_stage where job = $1 and relation = $2 and page = $3`, s.Job, s.Table.String(), page).Scan(&data)
	if err != nil {
		return nil, fmt.Errorf("read staged rows of %s: %w", s.Table, err)
	}
	return decode(data, columns)
}

// Settle reports whether the stage still holds every page of the states; after a crash of the server it does not.
func Settle(ctx context.Context, conn *pgx.Conn, states map[wal.RelationName]*State) (bool, error) {
	for _, s := range states {
		if s.Phase == Done {
			continue
		}
		var n int64
		if err := conn.QueryRow(ctx, `select count(*) from pgwaltz.poll_stage where job = $1 and relation = $2`, s.Job, s.Table.String()).Scan(&n); err != nil {
			return false, fmt.Errorf("count staged pages of %s: %w", s.Table, err)
		}
		if n != s.Pages {
			return false, nil
		}
	}
	return true, nil
}

// Begin saves states of copies that begin, and removes what older ones have left in the stage.
func Begin(ctx context.Context, conn *pgx.Conn, states ...*State) error {
	if len(states) == 0 {
		return nil
	}
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, s := range states {
			if _, err := tx.Exec(ctx, `delete from pgwaltz.poll_stage where job = $1 and relation = $2`, s.Job, s.Table.String()); err != nil {
				return err
			}
		}
		return save(ctx, tx, states)
	})
	if err != nil {
		return fmt.Errorf("begin to copy: %w", err)
	}
	return nil
}

// Finish saves states of copies that are applied, and clears the job's stage.
func Finish(ctx context.Context, conn *pgx.Conn, job string, states ...*State) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `delete from pgwaltz.poll_stage where job = $1`, job); err != nil {
			return err
		}
		return save(ctx, tx, states)
	})
	if err != nil {
		return fmt.Errorf("finish the copy: %w", err)
	}
	return nil
}

// Forget removes all that is remembered of a job.
func Forget(ctx context.Context, tx pgx.Tx, job string) error {
	for _, sql := range []string{`delete from pgwaltz.poll where job = $1`, `delete from pgwaltz.poll_stage where job = $1`} {
		if _, err := tx.Exec(ctx, sql, job); err != nil {
			return fmt.Errorf("forget the job: %w", err)
		}
	}
	return nil
}

// encode writes rows of one relation: for each value its length and one, or 0 for NULL, then its text.
func encode(rows []wal.Tuple) []byte {
	b := binary.AppendUvarint(nil, uint64(len(rows)))
	for _, row := range rows {
		for _, v := range row {
			if v.Kind == wal.Null {
				b = append(b, 0)
				continue
			}
			b = append(binary.AppendUvarint(b, uint64(len(v.Bytes))+1), v.Bytes...)
		}
	}
	return b
}

var errPage = errors.New("a staged page is damaged")

// decode reads what encode wrote. The values share data's bytes.
func decode(data []byte, columns int) ([]wal.Tuple, error) {
	count, n := binary.Uvarint(data)
	if n <= 0 || count > uint64(len(data)) {
		return nil, errPage
	}
	data = data[n:]
	rows := make([]wal.Tuple, count)
	for i := range rows {
		rows[i] = make(wal.Tuple, columns)
		for c := range rows[i] {
			size, n := binary.Uvarint(data)
			if n <= 0 || size > uint64(len(data)-n)+1 {
				return nil, errPage
			}
			data = data[n:]
			if size == 0 {
				rows[i][c].Kind = wal.Null
				continue
			}
			rows[i][c] = wal.Value{Kind: wal.Text, Bytes: data[: size-1 : size-1]}
			data = data[size-1:]
		}
	}
	if len(data) > 0 {
		return nil, errPage
	}
	return rows, nil
}
