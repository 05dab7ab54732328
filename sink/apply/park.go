package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// reason is why changes are set aside.
type reason struct{ state, message string }

func reasonOf(err error) reason { return reason{parkState(err), publicError(err)} }

// parkChange sets the single change of a transaction aside.
func (a *Applier) parkChange(ctx context.Context, k keyedTx, cause error, fx *effects) error {
	return a.parkTransaction(ctx, k, reasonOf(cause), fx)
}

func (a *Applier) parkTransaction(ctx context.Context, k keyedTx, why reason, fx *effects) error {
	b := batch.New()
	b.Policy = a.batch.Policy
	b.AddPicked(k.tx, k.kind, k.places)
	for _, g := range b.Groups {
		if err := a.truncates(ctx, g, fx); err != nil {
			return err
		}
		if err := a.parkGroup(ctx, g, why, fx); err != nil {
			return err
		}
	}
	return nil
}

// parkGroup sets the changes of one table aside, in the apply transaction, set-based. What
// waits already under their keys is merged with them.
func (a *Applier) parkGroup(ctx context.Context, g *batch.Group, why reason, fx *effects) error {
	var runs []int
	for i := range g.Runs {
		runs = append(runs, i)
	}
	var changes []parked.Change
	if len(g.Exact) > 0 {
		for i := range g.Exact {
			changes = append(changes, a.parkedExact(g, &g.Exact[i], why))
		}
	}
	if err := a.writeParked(ctx, g.Rel, changes, fx); err != nil {
		return err
	}
	return a.parkRuns(ctx, g, runs, why, fx)
}

// parkRuns sets runs of a keyed table aside.
func (a *Applier) parkRuns(ctx context.Context, g *batch.Group, runs []int, why reason, fx *effects) error {
	name := g.Rel.Ref()
	policy := a.cfg.Policy.table(name).Resolve
	keys := make([]string, len(runs))
	for n, i := range runs {
		keys[n] = a.parkedKey(g, &g.Runs[i])
	}
	waiting := map[string]*parked.Change{}
	if a.cfg.Parked.Any(name) {
		var err error
		if waiting, err = parked.Find(ctx, a.conn, name, keys); err != nil {
			return side(err)
		}
	}
	var changes []parked.Change
	var hold []int64
	for n, i := range runs {
		r := &g.Runs[i]
		if r.Cut {
			continue // nothing of it is left
		}
		next, replaces := waitingOf(g, r), int64(0)
		next.Held = g.Kind == conflict.Repair
		if old := waiting[keys[n]]; old != nil {
			if a.still(g, r, old) {
				continue
			}
			merged, ok := policy.Wait(old.Waiting, next, a.follows(g, old))
			a.rival(g, r, old, ok, fx)
			if !ok { // what waits is above it
				if merged.Held && !old.Waiting.Held {
					hold = append(hold, old.ID)
				}
				continue
			}
			next, replaces = merged, old.ID
		}
		if why == lacks && next.Held && a.cfg.Tell && !a.cfg.Self {
			for _, p := range a.cfg.Peers { // its origin was asked
				if p != a.cfg.Origin {
					fx.tell.notice(wantOf(p, g, r))
				}
			}
		}
		c := parked.Change{ID: replaces, Origin: a.cfg.Origin, Key: keys[n], Kind: g.Kind, Waiting: next, Transaction: r.Tx,
			Row: a.json(g.Rel, next.Image), State: why.state, Message: why.message}
		changes = append(changes, c)
		if typ := conflictType(why.state); typ != "" && !a.cfg.Self {
			yours := wal.Entry{Known: true, Alive: r.Op != wal.Delete, Stamp: r.Stamp, Row: r.Image}
			a.conflict(fx, g.Rel, a.parkedRecord(g, r, typ, why.state), yours, wal.Entry{})
		}
	}
	if len(hold) > 0 {
		if err := parked.Hold(ctx, a.conn, hold); err != nil {
			return side(err)
		}
	}
	return a.writeParked(ctx, g.Rel, changes, fx)
}

// follows reports whether the changes of a group are later ones of the origin of what waits, in the
// order of its WAL, and end its waiting.
func (a *Applier) follows(g *batch.Group, old *parked.Change) bool {
	return old.Origin == a.cfg.Origin && !a.retrying && old.Waiting.Ends(old.Kind, g.Kind)
}

// releases reports whether a change that waits has nothing left to say once a run is merged.
func (a *Applier) releases(g *batch.Group, r *batch.Run, old *parked.Change) bool {
	other := old.Origin != a.cfg.Region && (old.Origin != a.cfg.Origin || g.Kind == conflict.Repair) && !r.Answer
	return a.cfg.Policy.table(g.Rel.Ref()).Resolve.Releases(waitingOf(g, r), &old.Waiting, other)
}

// still reports whether a run is the answer for what waits because nobody here can read it, and says the same.
func (a *Applier) still(g *batch.Group, r *batch.Run, old *parked.Change) bool {
	w := old.Waiting
	if came := waitingOf(g, r); g.Kind == conflict.Repair && r.Answer && w.Unread && r.Op != wal.Delete && came.Stamp == w.Stamp {
		w.Unread = false
		return !a.cfg.Policy.table(g.Rel.Ref()).Resolve.Gone(&came, &w) && len(g.Rel.Columns) == len(w.Relation.Columns)
	}
	return false
}

// sendsBack reports whether the others are told of what goes in here after it has waited.
func (a *Applier) sendsBack(g *batch.Group, r *batch.Run, v *verdict) bool {
	w := conflict.Waiting{Held: a.heldHere[r.Tx]}
	return a.retrying && v.Verdict == conflict.Apply && w.SendsBack(g.Kind, v.side.Known, v.Reason)
}

// undoes reports whether the self-merge of an own change ends the waiting of another region's change, which that region may show.
func (a *Applier) undoes(g *batch.Group, r *batch.Run, old *parked.Change, v *verdict) bool {
	return a.cfg.Self && !a.retrying && old != nil && old.Origin != a.cfg.Origin && v.Reason != conflict.Unsure && (v.Verdict == conflict.Apply || v.Verdict == conflict.Same) &&
		a.cfg.Policy.table(g.Rel.Ref()).Resolve.Undoes(waitingOf(g, r), &old.Waiting) && a.releases(g, r, old)
}

func waitingOf(g *batch.Group, r *batch.Run) conflict.Waiting {
	return conflict.Waiting{Relation: g.Rel, Op: r.Op, Born: r.Born, Base: r.Base, Stamp: r.Stamp, Image: r.Image, Full: r.Full}
}

// parkedExact makes a parked change of a table without a key.
func (a *Applier) parkedExact(g *batch.Group, x *batch.Exact, why reason) parked.Change {
	row := x.Change.New
	if x.Change.Op == wal.Delete {
		row = x.Change.Old
	}
	one := *x.Tx
	one.Changes = []wal.Change{*x.Change}
	return parked.Change{
		Origin: a.cfg.Origin, Key: parked.Keyless(x.Tx, x.Place), Kind: g.Kind,
		Waiting:     conflict.Waiting{Relation: g.Rel, Op: x.Change.Op, Stamp: x.Change.Stamp, Image: row},
		Transaction: &one, Row: a.json(g.Rel, row), State: why.state, Message: why.message,
	}
}

func (a *Applier) writeParked(ctx context.Context, rel *wal.Relation, changes []parked.Change, fx *effects) error {
	if len(changes) == 0 {
		return nil
	}
	definition := ""
	if changes[0].State == stateEnded {
		now, err := fingerprints(ctx, a.conn, []wal.RelationName{rel.Ref()})
		if err != nil {
			return err
		}
		definition = now[rel.Ref()].definition
	}
	for i := range changes {
		changes[i].Table, changes[i].Definition = a.oids[rel.Ref()], definition
		a.cfg.Parked.Put(rel.Ref(), changes[i].Key)
	}
	if err := parked.Put(ctx, a.conn, rel.Ref(), changes); errors.Is(err, parked.ErrRace) {
		return errRace
	} else if err != nil {
		return side(err)
	}
	fx.parked += int64(len(changes))
	a.cfg.Log.Warn("changes parked", "origin", a.cfg.Origin, "relation", rel.String(), "changes", len(changes),
		"sqlstate", changes[0].State, "reason", changes[0].Message)
	return nil
}

// parkedKey names a row in pgwaltz.parked.
func (a *Applier) parkedKey(g *batch.Group, r *batch.Run) string {
	return a.encoding.key(g.KeyText(r))
}

// parkMissing sets a whole group aside whose table is not here or does not fit. It reports
// false when err is something else.
func (a *Applier) parkMissing(ctx context.Context, g *batch.Group, err error, fx *effects) (bool, error) {
	var se *schemaError
	if a.retrying || !errors.As(err, &se) {
		return false, nil
	}
	var perr error
	if se.code == stateApart {
		perr = a.parkApart(ctx, g, se, fx)
	} else {
		perr = a.parkGroup(ctx, g, reasonOf(err), fx)
	}
	if err := perr; err != nil {
		return true, fmt.Errorf("park changes of %s: %w", g.Rel, err)
	}
	return true, nil
}

// conflictType names the conflict that a parked change stands for, if it is one.
func conflictType(state string) conflict.Type {
	if state == "23505" {
		return conflict.UpdateExists
	}
	return ""
}
