package cutover

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// sequenceSchema makes the table at the destination in which the sequences are noted before they are moved. It is there from Sequences until
// Finish or Abort.
const sequenceSchema = `create table if not exists pgwaltz.cutover_sequence (
  name       text primary key, -- quoted, with its schema
  was        bigint not null,
  was_called boolean not null,
  put        bigint not null,  -- where the cutover has put it
  put_called boolean not null
)`

const listSQL = `select pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), s.seqincrement, s.seqmin, s.seqmax, s.seqcycle
from pg_catalog.pg_sequence s join pg_catalog.pg_class c on c.oid = s.seqrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgwaltz', 'pglogical', 'pglogical_origin')
  and not exists (select from pg_catalog.pg_depend e where e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and e.objid = c.oid and e.deptype = 'e') order by 1`

type found struct {
	kind Kind
	at   Position
}

// positions reads all sequences of one end, of all schemas, with those of identity columns.
func (e *End) positions(ctx context.Context) (names []string, all map[string]found, err error) {
	rows, err := e.Conn.Query(ctx, listSQL)
	if err != nil {
		return nil, nil, fmt.Errorf("read the sequences of %s: %w", e.Region, err)
	}
	all = map[string]found{}
	var name string
	var f found
	_, err = pgx.ForEachRow(rows, []any{&name, &f.kind.Step, &f.kind.Min, &f.kind.Max, &f.kind.Cycle}, func() error {
		names, all[name] = append(names, name), f
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the sequences of %s: %w", e.Region, err)
	}
	batch := &pgx.Batch{}
	for _, name := range names {
		batch.Queue(`select last_value, is_called from ` + name)
	}
	results := e.Conn.SendBatch(ctx, batch)
	for _, name := range names {
		f := all[name]
		if err := results.QueryRow().Scan(&f.at.Last, &f.at.Called); err != nil {
			results.Close() //nolint:errcheck // the first error counts
			return nil, nil, fmt.Errorf("read sequence %s of %s: %w", name, e.Region, err)
		}
		all[name] = f
	}
	return names, all, results.Close()
}

// sequences compares both ends and decides.
func (e *Ends) sequences(ctx context.Context, margin int64) ([]Sequence, error) {
	names, here, err := e.Source.positions(ctx)
	if err != nil {
		return nil, err
	}
	_, there, err := e.Destination.positions(ctx)
	if err != nil {
		return nil, err
	}
	var out []Sequence
	for _, name := range names {
		d, ok := there[name]
		s := Sequence{Name: name, Source: here[name].at, Here: here[name].kind, There: d.kind, Missing: !ok, Destination: d.at}
		s.decide(margin)
		out = append(out, s)
	}
	return out, nil
}

// Sequences puts the destination's sequences ahead of the source's, while writes are paused. It may be run again. Without write it only
// says what it would do, and then writes need not be paused. Where one cannot be put ahead none is moved: a *preflight.Refusal.
func (e *Ends) Sequences(ctx context.Context, margin int64, write bool) ([]Sequence, error) {
	if write {
		if _, err := e.paused(ctx); err != nil {
			return nil, err
		}
	} else if _, err := e.state(ctx); err != nil {
		return nil, err
	}
	list, err := e.sequences(ctx, margin)
	if err != nil {
		return nil, err
	}
	var fs preflight.Findings
	for _, s := range list {
		fs = append(fs, s.findings()...)
	}
	if err := fs.Err("put the sequences ahead"); err != nil || !write {
		return list, err
	}
	if err := e.noteSequences(ctx, list); err != nil {
		return list, err
	}
	if err := failpoint.Hit("cutover.noted"); err != nil {
		return list, err
	}
	for _, s := range list {
		if !s.Change() {
			continue
		}
		if _, err := e.Destination.Conn.Exec(ctx, `select pg_catalog.setval($1::text::pg_catalog.regclass, $2, $3)`, s.Name, s.Want.Last, s.Want.Called); err != nil {
			return list, fmt.Errorf("set sequence %s of %s: %w", s.Name, e.Destination.Region, err)
		}
		if err := failpoint.Hit("cutover.set"); err != nil {
			return list, err
		}
	}
	if err := hold.Done(ctx, e.Source.Conn, hold.Sequenced); err != nil {
		return list, over(err)
	}
	return list, failpoint.Hit("cutover.sequenced")
}

// noteSequences writes down what will be moved, and where it stood before the first time.
func (e *Ends) noteSequences(ctx context.Context, list []Sequence) error {
	tx, err := e.Destination.Conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // it is over
	if _, err := tx.Exec(ctx, sequenceSchema); err != nil {
		return fmt.Errorf("make pgwaltz.cutover_sequence at %s: %w", e.Destination.Region, err)
	}
	if _, err := hold.Mine(ctx, tx, "pgwaltz.cutover_sequence"); err != nil {
		return err
	}
	for _, s := range list {
		if !s.Change() {
			continue
		}
		_, err := tx.Exec(ctx, `insert into pgwaltz.cutover_sequence (name, was, was_called, put, put_called) values ($1, $2, $3, $4, $5)
on conflict (name) do update set put = excluded.put, put_called = excluded.put_called`, s.Name, s.Destination.Last, s.Destination.Called, s.Want.Last, s.Want.Called)
		if err != nil {
			return fmt.Errorf("note sequence %s: %w", s.Name, err)
		}
	}
	return tx.Commit(ctx)
}

// restoreSequences puts back those that stand where the cutover has put them; moved are those that were used since.
func (e *Ends) restoreSequences(ctx context.Context) (back, moved []string, err error) {
	conn := e.Destination.Conn
	if there, err := hold.Mine(ctx, conn, "pgwaltz.cutover_sequence"); err != nil || !there {
		return nil, nil, err
	}
	rows, err := conn.Query(ctx, `select name, was, was_called, put, put_called from pgwaltz.cutover_sequence order by name`)
	if err != nil {
		return nil, nil, fmt.Errorf("read pgwaltz.cutover_sequence: %w", err)
	}
	type noted struct {
		name     string
		was, put Position
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (n noted, err error) {
		return n, row.Scan(&n.name, &n.was.Last, &n.was.Called, &n.put.Last, &n.put.Called)
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read pgwaltz.cutover_sequence: %w", err)
	}
	_, all, err := e.Destination.positions(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range list {
		now, ok := all[n.name]
		switch {
		case !ok || now.at == n.was:
		case now.at != n.put:
			moved = append(moved, n.name)
		default:
			if _, err := conn.Exec(ctx, `select pg_catalog.setval($1::text::pg_catalog.regclass, $2, $3)`, n.name, n.was.Last, n.was.Called); err != nil {
				return back, moved, fmt.Errorf("set sequence %s back: %w", n.name, err)
			}
			back = append(back, n.name)
			if err := failpoint.Hit("cutover.setback"); err != nil {
				return back, moved, err
			}
		}
	}
	return back, moved, e.forgetSequences(ctx)
}

func (e *Ends) forgetSequences(ctx context.Context) error {
	_, err := e.Destination.Conn.Exec(ctx, `drop table if exists pgwaltz.cutover_sequence`)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) && pg.Code(err) != "3F000" {
		return fmt.Errorf("drop pgwaltz.cutover_sequence: %w", err)
	}
	return nil
}
