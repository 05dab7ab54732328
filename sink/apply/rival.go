package apply

import (
	"slices"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Where there are more than two regions, changes of two origins may meet on a key that this
// region cannot show, and one of them loses without ever having been in the table. So may a change that waits and
// an own one, or a later one of the same origin that was not made over it. That is a
// conflict like any other, and has the id that it gets where the rows meet.

// rival records the conflict of a run with what waits under its key. wins says that the run
// takes its place.
func (a *Applier) rival(g *batch.Group, r *batch.Run, old *parked.Change, wins bool, fx *effects) {
	a.rivalOf(g, r, waitingOf(g, r), old, wins, fx)
}

// rivalOf is rival for a run as it came, before it was merged with what waits.
func (a *Applier) rivalOf(g *batch.Group, r *batch.Run, came conflict.Waiting, old *parked.Change, wins bool, fx *effects) {
	switch mine := old.Origin == a.cfg.Origin; {
	case a.retrying, a.cfg.Self && (!wins || mine):
		return // the others compare an own change with what they have
	case a.cfg.Self:
		came.Base = wal.Base{} // whatever it looks like, what was never shown here was not overwritten here
	case mine && wins && !old.Waiting.Bypassed(&came, g.Kind), mine && !wins && !old.Waiting.Held:
		return // later changes of one origin know of its earlier ones; they lose against one that is held here
	}
	waiting, remote, ok := a.cfg.Policy.table(g.Rel.Ref()).Resolve.Rivals(&old.Waiting, &came)
	if !ok {
		return
	}
	typ := conflict.UpdateOriginDiffers
	switch {
	case came.Op == wal.Delete:
		typ = conflict.DeleteOriginDiffers
	case !waiting.Alive:
		typ = conflict.UpdateDeleted
	case came.Born || came.Op == wal.Insert:
		typ = conflict.InsertExists
	}
	key := keyImage(g, r)
	rec := a.plainRecord(g.Rel, typ, "parked", r.Tx, remote)
	rec.EventID = conflict.EventID(g.Rel.Ref(), g.KeyText(r), remote, waiting)
	rec.Key, rec.LocalStamp = a.keyJSON(g.Rel, key, g.Key), stampText(waiting.Stamp)
	rec.Verdict, rec.Winner, rec.Loser = conflict.Keep.String(), old.Origin, a.cfg.Origin
	if wins {
		rec.Verdict, rec.Winner, rec.Loser = conflict.Apply.String(), a.cfg.Origin, old.Origin
	}
	yours := wal.Entry{Known: true, Alive: remote.Alive, Stamp: remote.Stamp, Row: key}
	mine := wal.Entry{Known: true, Alive: waiting.Alive, Stamp: waiting.Stamp, Row: key}
	if remote.Alive {
		yours.Row, rec.RemoteRow = came.Image, a.json(g.Rel, came.Image)
	}
	if waiting.Alive {
		rec.LocalRow = a.json(old.Waiting.Relation, old.Waiting.Image)
		mine.Row = described(&old.Waiting, g.Rel, key)
	}
	if a.cfg.Self {
		yours, mine = mine, yours
	}
	a.conflict(fx, g.Rel, rec, yours, mine)
}

// passedOver records the conflict of what waits under a key with the row here, where a later change of its origin ends its waiting
// and was made over that row: it was put over what waits there. It reports false where that is not so. The record is the one
// that the origin makes, if it has found the conflict, too.
func (a *Applier) passedOver(g *batch.Group, r *batch.Run, came conflict.Waiting, v *verdict, fx *effects) bool {
	old := v.known.parked
	if a.cfg.Self || a.retrying || old.Origin != a.cfg.Origin || !old.Waiting.Bypassed(&came, g.Kind) || !v.event.Overwrote(v.side) {
		return false
	}
	w := &old.Waiting
	remote := conflict.Side{Known: true, Alive: true, Stamp: w.Stamp}
	image := described(w, g.Rel, keyImage(g, r))
	remote.Content, _ = conflict.Content(g.Rel, image)
	typ := conflict.UpdateOriginDiffers
	if w.Born || w.Op == wal.Insert {
		typ = conflict.InsertExists
	}
	rec := a.plainRecord(g.Rel, typ, "parked", old.Transaction, remote)
	rec.EventID = conflict.EventID(g.Rel.Ref(), g.KeyText(r), remote, v.side)
	rec.Key, rec.LocalStamp = a.keyJSON(g.Rel, keyImage(g, r), g.Key), stampText(v.side.Stamp)
	rec.LocalRow, rec.RemoteRow = a.json(g.Rel, v.known.row), a.json(w.Relation, w.Image)
	a.conflict(fx, g.Rel, rec, wal.Entry{Known: true, Alive: true, Stamp: w.Stamp, Row: image}, wal.Entry{Known: true, Alive: true, Stamp: v.side.Stamp, Row: v.known.row})
	return true
}

// described returns the row of a change that waits as a row of another description of its table, which may have been
// altered since. Columns are matched by name, as in the images of the audit log; key has those of the key.
func described(w *conflict.Waiting, rel *wal.Relation, key wal.Tuple) wal.Tuple {
	if w.Relation == rel {
		return w.Image
	}
	out := slices.Clone(key)
	for i := range rel.Columns {
		c := w.Relation.Column(rel.Columns[i].Name)
		if c >= 0 && w.Relation.Columns[c].OID == rel.Columns[i].OID && !slices.Contains(rel.KeyColumns(), i) {
			out[i] = w.Image[c]
		}
	}
	return out
}
