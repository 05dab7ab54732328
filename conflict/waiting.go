package conflict

import (
	"bytes"
	"slices"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Waiting is what a region knows of a key and cannot show: the net effect of changes that
// were set aside because a constraint, a trigger or the table's definition is in their way.
// It is an entry like any other, ordered by the table's Policy; a region keeps at most one
// for each key.
type Waiting struct {
	Relation *wal.Relation
	Op       wal.Op // Insert, Update or Delete: the last change
	Born     bool   // the first change was an insert
	Base     wal.Base
	Stamp    wal.Stamp
	Image    wal.Tuple // the row; for deletes the old row or its key
	Full     bool      // deletes: Image is the whole row
	// Held: this region holds it whoever else does. Its origin may have lost it, or told of it only what
	// another region holds; or another region's change has given way to it here; or another region was told of it. No later change of its origin
	// ends its waiting then, and whoever shows it sends it back.
	Held bool
	// Unread: a value of it is none of its type here, which may have other labels or attributes than it had at the origin then. What
	// comes with the same stamp, and can be shown, is the same write, as the origin holds it now.
	Unread bool
}

// Ends reports whether a later change of the origin of w, of a kind, ends the waiting of w, which waits as
// another kind, also where it does not rise above w: the origin holds w no longer. A region's own change
// is ended by its next one, because that is what its table shows; but not if another region was told of w: it
// may stand there, above that.
func (w *Waiting) Ends(was, later EventKind) bool {
	switch later {
	case Live:
		return !w.Held && (was == Live || was == Copy)
	case Self:
		return !w.Held && was == Self
	}
	return false
}

// SendsBack reports whether the others are told of w when it goes in after it has waited. known says that
// something else was here before. Who sent a copied row may hold something lower by now. why is what decided: of two rows of one stamp the contents did,
// in the columns that w has. Where it comes from, the other one may have come in others, and be above it.
func (w *Waiting) SendsBack(kind EventKind, known bool, why Reason) bool {
	return w.Held || kind == Repair || kind == Copy && known || why == ByContent
}

// Precedes reports whether the change with this base was made over w.
func (w *Waiting) Precedes(base wal.Base) bool {
	switch {
	case !base.Known || w.Op == wal.Delete:
		return false
	case base.HasDigest:
		if content, ok := Content(w.Relation, w.Image); ok {
			return Digest(content) == base.Digest
		}
		if base.Stamp == (wal.Stamp{}) {
			return false
		}
	}
	return base.Stamp == w.Stamp
}

// Bypassed reports whether what comes from the origin of w, as an event of a kind, and ends the waiting of w, was not made
// over w: another region's row, or delete, came between the two there. Then w is lost, and nobody else may know: it was
// not compared with anything here, and at its origin what was put over it may have passed for its successor, since the
// generation of w was not known yet. Of a delete nothing is lost. An update that does not say what it overwrote may have been
// made over w. What is no change says what stands at the origin now; if that was made over w, w would have ended before.
func (w *Waiting) Bypassed(next *Waiting, kind EventKind) bool {
	switch {
	case w.Op == wal.Delete:
		return false
	case kind != Live:
		return next.Stamp != w.Stamp && w.complete()
	case next.Born:
		return true
	}
	return next.Base.Known && !w.Precedes(next.Base)
}

// Then returns the net effect of w and of a change that was made over it (Precedes).
func (w *Waiting) Then(next Waiting) Waiting {
	next.Born, next.Base = w.Born, w.Base
	if next.Op != wal.Delete {
		next.Image = w.Fill(next.Relation, next.Image)
	}
	return next
}

// Fill completes an image of rel with the waiting values of columns that the origin left
// out. Columns are matched by name, since the table may have been changed meanwhile. A column that is known to be another
// one than had the name then gives nothing: the value is asked for.
func (w *Waiting) Fill(rel *wal.Relation, image wal.Tuple) wal.Tuple {
	if image.Complete() || w.Op == wal.Delete {
		return image
	}
	out := make(wal.Tuple, len(image))
	copy(out, image)
	for i := range out {
		if !out[i].Absent() {
			continue
		}
		c := w.Relation.Column(rel.Columns[i].Name)
		if c < 0 || w.Relation.Columns[c].OID != rel.Columns[i].OID || passedOn(w.Relation.Columns[c].ID, rel.Columns[i].ID) {
			continue
		}
		if out[i].Kind == wal.Unchanged || out[i].Names(w.Image[c]) {
			out[i] = w.Image[c]
		}
	}
	return out
}

// passedOn reports whether two columns of one name are known to be two columns of one table.
func passedOn(a, b uint64) bool {
	return a != 0 && b != 0 && a != b && wal.TableOf(a) == wal.TableOf(b)
}

// Fulfilled returns what a repair of rel is beside w. The answer for a change that lacks values, or
// whose columns are gone or whose values are none here, is that change, made whole: it is decided as the change is, so that a row which
// it presumably overwrote is no conflict. Any other event is returned as it is. Of a row that is not here the
// conflict was recorded when the change was set aside.
func (w *Waiting) Fulfilled(e Event, rel *wal.Relation, local Side) Event {
	gone := w.Unread || !hasColumns(rel, w.Relation)
	if e.Kind != Repair || e.Op == wal.Delete || w.Op == wal.Delete || w.Image.Complete() && !gone || e.Stamp != w.Stamp || !local.Alive {
		return e
	}
	e.Kind, e.Op, e.Base, e.Born = Live, w.Op, w.Base, w.Born
	if gone {
		e.Base = wal.Base{} // it is of columns, or values, that are not here
	}
	return e
}

// side is w as an entry.
func (w *Waiting) side() Side {
	s := Side{Known: true, Alive: w.Op != wal.Delete, Stamp: w.Stamp}
	if s.Alive {
		s.Content, _ = Content(w.Relation, w.Image)
	}
	return s
}

// Wait decides what waits when next comes and cannot be shown either, while w waits already.
// It reports false when w stays, and next is left out.
//
// follows says that next ends the waiting of w (Ends). So next takes its place also where it does not rise
// above it, because the WAL does not say what it overwrote. Whoever shows w sends it back.
//
// Of two of which neither follows the other one is given up here, though the region that it is of may
// hold it. As long as the higher one waits that does no harm, because that region will hear of the higher one.
// So that one is held from then on: if it gave way to a later and lower change of its origin, the one that was given up
// would be above what stays, and nobody here would know.
func (p Policy) Wait(w, next Waiting, follows bool) (Waiting, bool) {
	next.Held = next.Held || w.Held && !follows
	if follows && w.Op == wal.Delete && next.Op == wal.Insert && p.Compare(next.Stamp, w.Stamp) > 0 {
		// Deleted and born again: together they overwrote what the delete removed.
		next.Born, next.Base = w.Born, w.Base
		if !next.Born {
			next.Op = wal.Update
		}
		return next, true
	}
	if w.Precedes(next.Base) && (follows || p.Compare(next.Stamp, w.Stamp) >= 0) {
		return w.Then(next), true
	}
	switch {
	case p.same(&w, &next):
		if w.Born || w.Base.Known { // of the two one may be a repair, which does not say what it overwrote
			next.Born, next.Base = w.Born, w.Base
		}
	case follows:
	default:
		c, sure := p.order(&next, &w)
		if sure && c < 0 || !sure && !w.complete() {
			w.Held = true
			return w, false // where nobody knows which one is above, the one stays that asks for the rest
		}
		next.Held = true
	}
	return next, true
}

// complete reports whether w lacks no values.
func (w *Waiting) complete() bool { return w.Op == wal.Delete || w.Image.Complete() }

// order compares two as entries. It reports false where values that one of them lacks would decide: then they are
// not the same entry, and either may be above. A value that a change left alone (wal.Unchanged) is taken to be what
// the other one says, if there is nothing else in which the two differ.
func (p Policy) order(a, b *Waiting) (c int, sure bool) {
	if c := p.Compare(a.Stamp, b.Stamp); c != 0 {
		return c, true
	}
	if a.complete() && b.complete() || a.Op == wal.Delete || b.Op == wal.Delete {
		return p.CompareSides(a.side(), b.side()), true
	}
	open := false
	for _, i := range byName(nil, b.Relation.Columns) {
		col := &b.Relation.Columns[i]
		n := a.Relation.Column(col.Name)
		if n < 0 || a.Relation.Columns[n].OID != col.OID {
			return 0, false
		}
		switch x, y := a.Image[n], b.Image[i]; {
		case x.Names(y) || y.Names(x):
		case x.Kind == wal.Unchanged || y.Kind == wal.Unchanged:
			open = true
		case x.Absent() || y.Absent():
			return 0, false // they differ, and nobody knows how
		default:
			if c := compareValues(a.Relation, n, x, y); c != 0 {
				return c, !open
			}
		}
	}
	return 0, true
}

// compareValues compares two values of a column as the contents of rows do.
func compareValues(rel *wal.Relation, n int, x, y wal.Value) int {
	one := &wal.Relation{Columns: rel.Columns[n : n+1]}
	left, _ := Content(one, wal.Tuple{x})
	right, _ := Content(one, wal.Tuple{y})
	return bytes.Compare(left, right)
}

// same reports whether two that wait are the same entry.
func (p Policy) same(w, next *Waiting) bool {
	return p.CompareSides(next.side(), w.side()) == 0 && (w.Op == wal.Delete || w.Image.Complete())
}

// Releases reports whether w has nothing left to say once event is merged, and not refused:
// the event is at or above it in the order of entries. Of equal stamps the contents decide. Where w lacks the
// values that would, it waits on: an earlier row of its origin with the same stamp does not end its
// waiting. The answer to what it asks for does (Gone), or the look at the row that is there then.
//
// other says that w is of another region than event, and than this one, or that event is what its origin sends back, in the shape of what
// that had met. An event that does not have all of its columns says nothing of
// these then: where they are, the row keeps the waiting values in them. So w waits on, and when the columns are here, the two rows
// are compared, and each region gets both.
func (p Policy) Releases(event Waiting, w *Waiting, other bool) bool {
	if c := p.Compare(event.Stamp, w.Stamp); c != 0 {
		return c > 0 && (!other || event.names(w))
	}
	if w.Unread || !hasColumns(event.Relation, w.Relation) {
		// The same write, after a column was renamed, dropped or given another type; of another region it may be one that had no such column.
		return w.Unread || !other || event.names(w)
	}
	c, sure := p.order(&event, w)
	return sure && c >= 0
}

// names reports whether w has all columns of o, by their names.
func (w *Waiting) names(o *Waiting) bool {
	return w.Relation == o.Relation || !slices.ContainsFunc(o.Relation.Columns, func(c wal.Column) bool { return w.Relation.Column(c.Name) < 0 })
}

// Undoes reports whether an own change, when it is run against the own database, puts an end to w, a change of another
// region that is below it. That region may show w: w was not refused when it came in, since the own change was not
// known then, and may have been made over it, without rising. So the others are told of what stands here, as they are
// where such a change is shown and then undone (Resolve, of kind Self).
func (p Policy) Undoes(own Waiting, w *Waiting) bool {
	if c := p.Compare(own.Stamp, w.Stamp); c != 0 {
		return c > 0
	}
	c, sure := p.order(&own, w)
	return hasColumns(own.Relation, w.Relation) && sure && c > 0
}

// Gone reports whether the answer of w's origin, an entry, says that the origin does not hold w any more:
// the entry is below w, or is another row of the same stamp. A tombstone is below a live row of that.
func (p Policy) Gone(answer, w *Waiting) bool {
	switch c := p.Compare(answer.Stamp, w.Stamp); {
	case c != 0:
		return c < 0
	case answer.Op == wal.Delete || w.Op == wal.Delete:
		return answer.Op == wal.Delete && w.Op != wal.Delete
	case w.Unread || !hasColumns(answer.Relation, w.Relation):
		return false
	}
	c, sure := p.order(answer, w)
	return !sure || c != 0
}

// hasColumns reports whether rel has all columns of old.
func hasColumns(rel, old *wal.Relation) bool {
	for i := range old.Columns {
		if c := rel.Column(old.Columns[i].Name); c < 0 || rel.Columns[c].OID != old.Columns[i].OID {
			return false
		}
	}
	return true
}

// Rivals reports whether one of two entries that cannot be shown here is lost by the other one:
// neither was made over the other, and they are not the same. It returns both as sides.
func (p Policy) Rivals(w, next *Waiting) (waiting, came Side, ok bool) {
	waiting, came = w.side(), next.side()
	return waiting, came, !w.Precedes(next.Base) && !next.Precedes(w.Base) && p.CompareSides(waiting, came) != 0
}
