package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// The name of a table may have passed to another one before the self-merge reads a change: a copy has taken its place, or two have swapped
// their names. The rows under the name are not the change's then, and it is never put over them. In a table that was made behind the change, this
// region wrote them later: the change is recorded as what was there before, unless something above it is known of the key by now. In one that is as old, the change has nothing to
// say. Its own table, where that is still here, is copied under the name that it has. What the change says beside its row is noted under that name (noteMoved), or a copy from another
// region, made before that had the change, would put a deleted row back, or its own over a newer one. Where one of the two tables has a ledger that was begun as a copy of
// the other one's, what the change says is in both.

// namesake is what is known of a table that has the name of another one of this region, which own changes are of.
type namesake struct {
	other bool          // neither is a partition of the other one
	made  wal.XID       // the transaction that made it
	moved *wal.Relation // the table that own changes are of, under the name that it has by now; nil where it is gone
}

// namesakeSQL looks whether $1 and $2 are in one tree of partitions, which transaction has made $1, and what $2 is called.
const namesakeSQL = `with recursive up(start, oid) as (
  values ($1::int8::oid, $1::int8::oid), ($2::int8::oid, $2::int8::oid)
  union select up.start, h.inhparent from up join pg_catalog.pg_inherits h on h.inhrelid = up.oid
)
select not exists (select from up where start <> oid and oid in ($1::int8::oid, $2::int8::oid)),
  coalesce((select a.xmin::text from pg_catalog.pg_attribute a where a.attrelid = $1::int8::oid and a.attnum < 0 limit 1), '0'),
  coalesce(pg_catalog.max(n.nspname::text), ''), coalesce(pg_catalog.max(c.relname::text), '')
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $2::int8::oid and c.relkind in ('r', 'p') and not c.relispartition`

// passedOn reports whether another table than the one that an own run was written to has the name by now, and whether that one was
// made behind the run.
func (a *Applier) passedOn(ctx context.Context, t *target, tx *wal.Transaction) (passed, later bool, err error) {
	if !a.cfg.Self || len(t.rel.Columns) == 0 || !t.rel.Numbered() {
		return false, false, nil
	}
	was := wal.TableOf(t.rel.Columns[0].ID)
	if was == t.schema.oid {
		return false, false, nil
	}
	if t.namesake == nil {
		var n namesake
		var made string
		var now wal.RelationName
		if err := a.conn.QueryRow(ctx, namesakeSQL, int64(t.schema.oid), int64(was)).Scan(&n.other, &made, &now.Schema, &now.Name); err != nil {
			return false, false, fmt.Errorf("ask which table %s is: %w", t.rel, err)
		}
		xid, err := strconv.ParseUint(made, 10, 32)
		if err != nil {
			return false, false, fmt.Errorf("ask which table %s is: %w", t.rel, err)
		}
		if n.made = wal.XID(xid); now.Name != "" {
			rel := *t.rel
			rel.Schema, rel.Name = now.Schema, now.Name
			n.moved = &rel
			if a.cfg.Named != nil { // the two names may have been given at once
				if err := a.cfg.Named(ctx, was, now); err != nil {
					return false, false, side(err)
				}
			}
		}
		t.namesake = &n
	}
	return t.namesake.other, int32(uint32(t.namesake.made)-uint32(tx.XID)) >= 0, nil
}

// decideFormer decides about an own change of a table that has given its name to another one; later: that was made behind it.
func decideFormer(p conflict.Policy, op wal.Op, row, later bool, e conflict.Event, side conflict.Side) conflict.Verdict {
	switch {
	case !later, !row && op != wal.Delete, side.Known && p.CompareSides(e.Side(), side) < 0:
		return conflict.Keep
	}
	return conflict.Same
}

// noteMoved notes what an own change says beside its row, of a table that has given its name to another one as old: a delete, where no row of the key is in
// its own table, and else the stamp of a row that is the change's own. It goes into the ledger of its table, at the position of the change, as that of any own change. So
// does what one says of a table whose name has passed to one that was made behind it, where note has written it into another ledger only.
func (a *Applier) noteMoved(ctx context.Context, g *batch.Group, t *target, v *verdict, fx *effects) error {
	r, moved := &g.Runs[v.i], *g
	if moved.Rel = t.namesake.moved; moved.Rel == nil {
		return nil
	}
	ledgers := a.movedTo(g, t)
	if v.behind {
		ledgers = slices.DeleteFunc(ledgers, func(n wal.RelationName) bool { return n == a.ledger(g.Rel) }) // entry has done that
	}
	if len(ledgers) == 0 {
		return nil
	}
	own, err := a.target(ctx, moved.Rel)
	var other *schemaError
	if errors.As(err, &other) {
		return nil // altered since
	}
	if err != nil {
		return err
	}
	alive := r.Op != wal.Delete
	if own.schema.oid != wal.TableOf(moved.Rel.Columns[0].ID) || alive && r.Stamp.Generation == 0 && !own.stampless() {
		return nil // renamed once more, or the row says it all
	}
	l, err := a.lookAt(ctx, &moved, own, []int{v.i})
	if err != nil {
		return err
	}
	st := &l.states[0]
	e := entryRow{Ref: tombstone.Ref{Key: v.known.key}, name: moved.Rel.Ref(), version: wal.NullVersion, updatedAt: wal.MinMicros}
	e.LSN, e.Next, e.Live = r.Tx.CommitLSN, conflict.NextGeneration(r.Stamp, alive), alive
	if own.stampless() {
		e.updatedAt, e.At = r.Stamp.UpdatedAt, r.Stamp.UpdatedAt
	}
	switch {
	case alive:
		mine, err := a.isMine(ctx, &moved, own, v.i, st)
		if err != nil || !mine {
			return err
		}
		e.plain = !own.stampless() || r.Stamp.UpdatedAt == r.Tx.CommitTime
	case st.row != nil:
		return nil
	default:
		e.version, e.updatedAt = r.Stamp.Version, r.Stamp.UpdatedAt
	}
	for _, ledger := range ledgers {
		if alive {
			found, err := tombstone.Read(ctx, a.conn, ledger, []string{e.Key})
			if err != nil {
				return side(err)
			}
			if there, ok := found[e.Key]; ok && (there.Next > e.Next || there.At > e.At) {
				continue
			}
		}
		e.Relation = ledger
		fx.entries = append(fx.entries, e)
	}
	return nil
}

// noteCame notes an own delete that has waited while its table gave its name to another one in the ledgers, too, that have what the changes by that name say. A life of the
// key that has begun there since says more.
func (a *Applier) noteCame(ctx context.Context, came *wal.Relation, e entryRow, fx *effects) error {
	if e.Live {
		return nil
	}
	done := e.Relation
	e.wrote = false
	for _, ledger := range append([]wal.RelationName{a.ledger(came)}, a.cfg.Index.Also(came)...) {
		if ledger == done {
			continue
		}
		found, err := tombstone.Read(ctx, a.conn, ledger, []string{e.Key})
		if err != nil {
			return side(err)
		}
		if there, ok := found[e.Key]; ok && there.Next >= e.Next {
			continue
		}
		e.Relation = ledger
		fx.entries = append(fx.entries, e)
	}
	return nil
}

// movedTo are the ledgers that have what an own change says of a table whose name has passed on: that of the name by which it came, of the name that the table has
// by now, and those that were begun as copies.
func (a *Applier) movedTo(g *batch.Group, t *target) []wal.RelationName {
	if t.namesake == nil || t.namesake.moved == nil {
		return nil
	}
	out := append([]wal.RelationName{a.ledger(t.namesake.moved), a.ledger(g.Rel)}, a.cfg.Index.Also(g.Rel)...)
	slices.SortFunc(out, func(x, y wal.RelationName) int { return strings.Compare(x.String(), y.String()) })
	return slices.Compact(out)
}

// isMine reports whether the row that was looked at is the one that a run wrote.
func (a *Applier) isMine(ctx context.Context, g *batch.Group, t *target, i int, st *known) (bool, error) {
	if st.row == nil {
		return false, nil
	}
	side, err := a.side(t, g.Rel, st)
	if err != nil {
		return false, err
	}
	side.Content, _ = conflict.Content(g.Rel, st.row)
	text, err := a.textImage(ctx, g, t, i)
	if err != nil {
		return false, err
	}
	var e conflict.Event
	e.Content, _ = conflict.Content(g.Rel, batch.Fill(text, st.row))
	return a.holds(t, &g.Runs[i], side, e), nil
}
