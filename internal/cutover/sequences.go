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

// sequenceSchema makes the table at the destination in which the sequences are noted that were moved. It is there from Sequences until
// Finish, Abort or the next PauseWrite.
const sequenceSchema = `create table if not exists pgwaltz.cutover_sequence (
  name       text primary key, -- quoted, with its schema
  was        bigint not null,
  was_called boolean not null,
  put        bigint not null,  -- where the cutover has put it
  put_called boolean not null
)`

const listSQL = `select pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), s.seqincrement, s.seqmin, s.seqmax, s.seqcycle,
  case when pg_catalog.pg_has_role(current_user, c.relowner, 'usage') then pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner)) else '' end
from pg_catalog.pg_sequence s join pg_catalog.pg_class c on c.oid = s.seqrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgwaltz', 'pglogical', 'pglogical_origin')
  and not exists (select from pg_catalog.pg_depend e where e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and e.objid = c.oid and e.deptype = 'e') order by 1`

type found struct {
	kind  Kind
	at    Position
	owner string // quoted; "" where this role is not a member of it
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
	_, err = pgx.ForEachRow(rows, []any{&name, &f.kind.Step, &f.kind.Min, &f.kind.Max, &f.kind.Cycle, &f.owner}, func() error {
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
		s := Sequence{Name: name, Source: here[name].at, Here: here[name].kind, There: d.kind, Missing: !ok, Destination: d.at, owner: d.owner}
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
	if err := e.noteTable(ctx); err != nil {
		return list, err
	}
	if err := failpoint.Hit("cutover.noted"); err != nil {
		return list, err
	}
	for _, s := range list {
		if !s.Change() {
			continue
		}
		if err := e.put(ctx, s); err != nil {
			return list, err
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

// noteTable makes the table of what is moved.
func (e *Ends) noteTable(ctx context.Context) error {
	if _, err := e.Destination.Conn.Exec(ctx, sequenceSchema); err != nil {
		return fmt.Errorf("make pgwaltz.cutover_sequence at %s: %w", e.Destination.Region, err)
	}
	_, err := hold.Mine(ctx, e.Destination.Conn, "pgwaltz.cutover_sequence")
	return err
}

// put puts one sequence ahead, and notes where it stood at that moment. One that has come further meanwhile stays.
func (e *Ends) put(ctx context.Context, s Sequence) error {
	text := putSQL(s)
	_, err := e.Destination.move(ctx, s.owner, s.Name, text)
	if pg.Code(err) == lockTimeout {
		// A transaction that has used it is open, and may be for long.
		_, err = e.Destination.move(ctx, "", s.Name, text)
	}
	if err != nil {
		return fmt.Errorf("set sequence %s of %s: %w", s.Name, e.Destination.Region, err)
	}
	return nil
}

// putSQL looks where the sequence stands, notes that and sets it, in one statement. What was noted by an earlier run counts as long as the
// sequence stands where that run has put it: else it was used since, and where it stands now is what it may go back to.
func putSQL(s Sequence) string {
	where := "true" // of one that cycles all numbers come again
	if !s.cycles() {
		sign := "<"
		if s.There.Step < 0 {
			sign = ">"
		}
		where = fmt.Sprintf("last_value::numeric + case when is_called then '%d'::numeric else 0 end %s '%s'::numeric", s.There.Step, sign, nextOf(s.Want, s.There.Step))
	}
	name := pg.Literal(s.Name)
	return fmt.Sprintf(`with stood as materialized (select last_value, is_called from %[1]s where %[2]s),
noted as (insert into pgwaltz.cutover_sequence as o (name, was, was_called, put, put_called) select %[3]s, last_value, is_called, '%[4]d'::bigint, %[5]t from stood
  on conflict (name) do update set put = excluded.put, put_called = excluded.put_called,
    was = case when o.put = excluded.was and o.put_called = excluded.was_called then o.was else excluded.was end,
    was_called = case when o.put = excluded.was and o.put_called = excluded.was_called then o.was_called else excluded.was_called end)
select pg_catalog.setval(%[3]s::pg_catalog.regclass, '%[4]d'::bigint, %[5]t) from stood`, s.Name, where, name, s.Want.Last, s.Want.Called)
}

// lockTimeout is the code of a lock that was not to be had in time.
const lockTimeout = "55P03"

// move runs a statement that sets a sequence, and reports whether it did. With the name of the owner nobody gets a number meanwhile: LOCK does
// not take sequences, but to give one to the owner that it has changes nothing and locks it. Then it may fail with lockTimeout. Without an owner there
// is nothing between the look and the setting but the server's next instructions.
func (e *End) move(ctx context.Context, owner, name, text string) (bool, error) {
	if owner != "" {
		text = "set local lock_timeout = '200ms'; alter sequence " + name + " owner to " + owner + "; " + text
	}
	// Several statements at once are one transaction.
	results, err := e.Conn.PgConn().Exec(ctx, text).ReadAll()
	if err != nil {
		return false, err
	}
	return len(results[len(results)-1].Rows) > 0, nil
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
			done, err := e.Destination.move(ctx, now.owner, n.name, fmt.Sprintf(`select pg_catalog.setval(%s::pg_catalog.regclass, '%d'::bigint, %t) from %s where last_value = '%d'::bigint and is_called = %t`,
				pg.Literal(n.name), n.was.Last, n.was.Called, n.name, n.put.Last, n.put.Called))
			if err != nil && pg.Code(err) != lockTimeout {
				return back, moved, fmt.Errorf("set sequence %s back: %w", n.name, err)
			}
			if !done {
				moved = append(moved, n.name)
				continue
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
