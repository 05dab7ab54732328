package apply

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/counterpart"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A column that both regions drop may still be in changes that are under way, and they are parked
// for want of it. When a later change of the table comes without the column, its origin has dropped
// it as well; then its values are nobody's loss, and the parked changes go in without them.
//
// A renamed column looks the same by its name, and its values must not be lost. pgoutput describes
// columns in the order of pg_attribute.attnum, and a new column stands behind all others. So a
// column whose name alone has changed, in front of one that is as it was, was renamed; the parked
// changes go in under its new name. Where that can't be told from a dropped and an added column,
// the origin is asked for the rows that it holds under their keys (goneColumns). A delete goes in without them.

// While the columns that stamps are read from differ between two regions, each reads the rows that it has, and those
// that come, by what there is: what was decided then may have come out differently in the two. So where stamps decided and
// the table here has others than the change (decidedUnlike), this region's rows and tombstones are copied when
// the two are alike again, and the regions settle what differs (Copies). Of two writes that met so, one was made before the other
// arrived; where that one was made, its table has the columns by which it was stamped. A change that waited for such a column, or whose
// stamp is read anew, is held as well (conflict.Waiting.Held): what comes of it is sent back.

// shapes knows the newest description of each table that an origin's changes came with. Safe for
// concurrent use.
type shapes struct {
	mu     sync.Mutex
	newest map[wal.RelationName]*wal.Relation
}

// maxShapes bounds the memory; what is forgotten is known again with the next change.
const maxShapes = 20000

func (s *shapes) see(rel *wal.Relation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest[rel.Ref()] == rel {
		return
	}
	if s.newest == nil || len(s.newest) > maxShapes {
		s.newest = map[wal.RelationName]*wal.Relation{}
	}
	s.newest[rel.Ref()] = rel
}

func (s *shapes) of(name wal.RelationName) *wal.Relation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest[name]
}

// Newest is the newest description of a table that the origin's changes came with; nil while none has come since
// the process began.
func (s *Suspects) Newest(name wal.RelationName) *wal.Relation { return s.shapes.of(name) }

// StandsForOther reports whether columns of a table here, as far as is known, stand for such of another table of the origin than the given one.
func (s *Suspects) StandsForOther(here, theirs uint32) bool {
	return s.columns.StandsForOther(here, theirs)
}

// Home is the table here that a table of the origin stands for; 0 where nothing is known of it. loaded is false before an applier has begun.
func (s *Suspects) Home(theirs uint32) (here uint32, loaded bool) { return s.columns.Home(theirs) }

// Elsewhere is counterpart.Map.Elsewhere.
func (s *Suspects) Elsewhere(here, theirs uint32) uint32 { return s.columns.Elsewhere(here, theirs) }

// Called is what the origin calls one of its tables by the newest description that has come since the process began.
func (s *Suspects) Called(theirs uint32) (wal.RelationName, bool) { return s.columns.Called(theirs) }

// Returned is counterpart.Map.Returned.
func (s *Suspects) Returned() map[uint32]uint32 { return s.columns.Returned() }

// Strays is counterpart.Map.Strays.
func (s *Suspects) Strays() []counterpart.Stray { return s.columns.Strays() }

// Theirs lists the tables of the origin whose columns stand for such of a table here.
func (s *Suspects) Theirs(here uint32) []uint32 { return s.columns.Theirs(here) }

// decidedUnlike reports whether stamps decided about a change that has other ones than the table here.
// What it overwrote at its origin, and what is the same anyway, is told without them.
func (t *target) decidedUnlike(v *verdict) bool {
	if !t.unlike || v.Verdict == conflict.Same || v.Verdict == conflict.Park {
		return false
	}
	return v.side.Known && (v.Reason != conflict.FastForward || !v.event.Base.Known)
}

// fit finds the table of a parked change. Columns that are missing here, and that the origin does
// not have any more either, are taken out of the change.
func (r *Retrier) fit(ctx context.Context, c *parked.Change) (*target, error) {
	ch := &c.Transaction.Changes[0]
	ch.Relation = r.intern(ch.Relation)
	t, err := r.a.target(ctx, ch.Relation)
	if err == nil {
		err = r.a.unnumbered(ch.Relation, t)
	}
	var se *schemaError
	switch {
	case err == nil:
		return t, r.misread(c, t)
	case !errors.As(err, &se):
		return nil, err
	}
	if t, uerr := r.under(ctx, c, se.code == stateSwapped); t != nil || uerr != nil {
		return t, uerr
	}
	switch {
	case se.code == otherKey:
		return r.rekey(ctx, c, err)
	case se.code == stateSwapped && !ch.Relation.Numbered():
		return r.unknown(ctx, c, se)
	case se.code != "42703":
		return nil, err
	}
	now := r.a.cfg.Suspects.shapes.of(ch.Relation.Ref())
	if now == nil || !slices.ContainsFunc(ch.Relation.Columns, func(c wal.Column) bool { return now.Column(c.Name) < 0 }) { // nothing that came since says more
		rel, kept, derr := r.dropped(ctx, ch.Relation)
		if derr != nil || rel == nil {
			return nil, errors.Join(derr, err)
		}
		t, terr := r.a.target(ctx, r.intern(rel))
		if terr != nil {
			return nil, err
		}
		return t, r.take(c, t, rel, kept)
	}
	version, updatedAt := r.a.cfg.Policy.stampColumns(ch.Relation.Ref())
	rel, kept := renamed(ch.Relation, now, version, updatedAt)
	if rel == nil {
		rel, kept = without(ch.Relation, now, ch.Op == wal.Delete)
	}
	if rel == nil {
		if _, nerr := r.a.target(ctx, r.intern(now)); nerr == nil && sameKeyColumns(ch.Relation, now) {
			return nil, &goneColumns{se, now}
		}
		return nil, err
	}
	t, terr := r.a.target(ctx, r.intern(rel))
	if terr != nil {
		return nil, err
	}
	return t, r.take(c, t, rel, kept)
}

// take gives a parked change the columns of rel, which its own are at the given places.
func (r *Retrier) take(c *parked.Change, t *target, rel *wal.Relation, kept []int) error {
	ch := &c.Transaction.Changes[0]
	was := ch.Relation
	ch.Relation, ch.New, ch.Old = r.intern(rel), only(ch.New, kept), only(ch.Old, kept)
	if r.stampedAnew(c, was, t) {
		return r.restamp(ch, c.Transaction.CommitTime, t.cols)
	}
	return nil
}

// stampedAnew reports whether a change that came as one of was has got or lost stamp columns on its way to the table: its row
// says by now what it did not say then, or the other way round. An own delete keeps its stamp: that is what was published,
// and another region that reads it anew says so.
func (r *Retrier) stampedAnew(c *parked.Change, was *wal.Relation, t *target) bool {
	if r.a.cfg.Self && c.Transaction.Changes[0].Op == wal.Delete {
		return false
	}
	version, updatedAt := r.a.cfg.Policy.stampColumns(was.Ref())
	cols := conflict.ColumnsOf(was, version, updatedAt)
	return !cols.Alike(t.cols) || otherColumn(was, cols.Version, t.rel, t.cols.Version) || otherColumn(was, cols.UpdatedAt, t.rel, t.cols.UpdatedAt)
}

// otherColumn reports whether two columns, each of a description, are known to be different ones.
func otherColumn(was *wal.Relation, i int, is *wal.Relation, n int) bool {
	return i >= 0 && n >= 0 && was.Columns[i].ID != 0 && is.Columns[n].ID != 0 && was.Columns[i].ID != is.Columns[n].ID
}

// misread reads the stamp of a change again that could not be stored with the stamp that it came with (PW001), where that is not what
// its row says in the columns of the stamp here: its origin was configured to read other ones. A trigger that
// rewrites a stamp leaves both the same.
func (r *Retrier) misread(c *parked.Change, t *target) error {
	ch := &c.Transaction.Changes[0]
	if r.a.cfg.Self || c.State != stateOtherStamp || ch.New == nil || t.stampless() {
		return nil
	}
	is, err := conflict.StampOf(t.cols, ch.Relation, ch.New, ch.Stamp.UpdatedAt)
	if err != nil || is.Version == ch.Stamp.Version && is.UpdatedAt == ch.Stamp.UpdatedAt {
		return nil // what a value says that is no stamp is found out when it is tried
	}
	return r.restamp(ch, c.Transaction.CommitTime, t.cols)
}

// lackedStamp reports whether a change was parked for want of a column that stamps are read from.
func (r *Retrier) lackedStamp(c *parked.Change) bool {
	_, list, ok := strings.Cut(c.Message, missingHere)
	if !ok || c.State != "42703" {
		return false
	}
	version, updatedAt := r.a.cfg.Policy.stampColumns(c.Transaction.Changes[0].Relation.Ref())
	return slices.ContainsFunc(strings.Split(list, ", "), func(name string) bool { return name == version || name == updatedAt })
}

// restamp reads the stamp of a change by the columns that it has now.
func (r *Retrier) restamp(ch *wal.Change, at wal.Micros, now conflict.Columns) error {
	switch gen := ch.Stamp.Generation; {
	case ch.New != nil:
		stamp, err := conflict.StampOf(now, ch.Relation, ch.New, ch.Stamp.UpdatedAt)
		if err != nil {
			return err
		}
		stamp.Generation, ch.Stamp = gen, stamp
	case ch.Op == wal.Delete && ch.OldFull:
		_, err := conflict.StampChange(r.a.cfg.Policy.table(ch.Relation.Ref()).Resolve, now, ch, at, gen)
		return err
	}
	ch.Base.Known = false // it was read by other columns
	return nil
}

// goneColumns says that the origin does not have columns of a parked change any more, and that nobody
// can tell whether they have other names now.
type goneColumns struct {
	*schemaError
	now *wal.Relation // how the origin describes the table
}

func (e *goneColumns) Unwrap() error { return e.schemaError }

// sameKeyColumns reports whether the keys of two descriptions have the same names.
func sameKeyColumns(was, is *wal.Relation) bool {
	return slices.EqualFunc(was.KeyColumns(), is.KeyColumns(), func(a, b int) bool { return was.Columns[a].Name == is.Columns[b].Name })
}

// renamed describes a table with the names that its columns have now, and returns their places. It
// returns nil when anything but the names has changed, or may have. One of the stamp columns counts as renamed also
// where it may have been dropped and added: the copy behind it settles that, and nobody has an answer
// whose stamp could be compared with that of the change.
func renamed(rel, now *wal.Relation, stamps ...string) (*wal.Relation, []int) {
	if len(rel.Columns) != len(now.Columns) {
		return nil, nil
	}
	out := *rel
	out.Columns = slices.Clone(rel.Columns)
	places := make([]int, len(rel.Columns))
	last := true // no column behind this one is as it was
	for i := len(rel.Columns) - 1; i >= 0; i-- {
		was, is := rel.Columns[i], now.Columns[i]
		places[i] = i
		switch {
		case was.Name == is.Name:
			last = false
		case last && !slices.Contains(stamps, was.Name) && !slices.Contains(stamps, is.Name) || was.OID != is.OID || was.Type != is.Type || was.TypeMod != is.TypeMod ||
			rel.Column(is.Name) >= 0 || now.Column(was.Name) >= 0:
			return nil, nil
		}
		out.Columns[i].Name = is.Name
	}
	return &out, places
}

// without describes a table without the columns that now lacks, and returns the places of the
// others. It returns nil when that would change the key, or nothing, and, unless their values do not
// matter, when one of the columns may have another name now.
func without(rel, now *wal.Relation, valueless bool) (*wal.Relation, []int) {
	out := *rel
	out.Columns, out.PrimaryKey = nil, nil
	var kept []int
	at := make([]int, len(rel.Columns))
	for i := range rel.Columns {
		at[i] = -1
		if now.Column(rel.Columns[i].Name) >= 0 {
			at[i] = len(kept)
			kept, out.Columns = append(kept, i), append(out.Columns, rel.Columns[i])
		}
	}
	for _, k := range rel.KeyColumns() {
		if at[k] < 0 {
			return nil, nil
		}
	}
	for _, k := range rel.PrimaryKey {
		out.PrimaryKey = append(out.PrimaryKey, at[k])
	}
	if len(kept) == len(rel.Columns) {
		return nil, nil
	}
	for i := range now.Columns {
		is := &now.Columns[i]
		if !valueless && rel.Column(is.Name) < 0 && slices.ContainsFunc(rel.Columns, func(was wal.Column) bool {
			return now.Column(was.Name) < 0 && was.OID == is.OID && was.Type == is.Type
		}) {
			return nil, nil
		}
	}
	return &out, kept
}

func only(row wal.Tuple, places []int) wal.Tuple {
	if row == nil {
		return nil
	}
	out := make(wal.Tuple, len(places))
	for n, i := range places {
		out[n] = row[i]
	}
	return out
}
