package tombstone

import (
	"cmp"
	"maps"
	"slices"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Place orders own changes: by commit, and within a giant transaction by part.
type Place struct {
	Commit wal.LSN
	Part   uint32
}

// Before reports whether p comes before q.
func (p Place) Before(q Place) bool {
	return p.Commit < q.Commit || (p.Commit == q.Commit && p.Part < q.Part)
}

// own is what is known of own changes that the self-merge has not written yet. The items of the
// first ones are held as they are; beyond a limit only a filter says which keys have some, for a
// run of transactions at once (segment), and who needs to know more waits for their self-merge.
// Keys and items are bounded each for itself: a region that writes the same rows again and again may be
// many transactions behind with its self-merge, and still know of each row which of its changes wait.
type own struct {
	keys     map[uint64]*ownKey
	queue    []ownRef                   // in WAL order
	most     int                        // keys
	limit    int                        // items
	size     int                        // keys of a segment
	segments []*segment                 // in WAL order, behind all of queue
	cut      map[wal.RelationName]Place // the last truncate of a relation
}

// ownKey is what the own changes of a key that are not merged yet say.
type ownKey struct {
	// items has one for each transaction, in WAL order: its item joined with those in front of it, of merged changes
	// as well. To join those once more with what the table says changes nothing.
	items []conflict.Item
	last  Place
	of    wal.RelationName // the ledger
}

// find is where the item of a transaction stands, or would.
func (o *ownKey) find(commit wal.LSN) (int, bool) {
	if n := len(o.items); n == 0 || o.items[n-1].LSN < commit {
		return n, false
	}
	return slices.BinarySearchFunc(o.items, commit, func(it conflict.Item, l wal.LSN) int { return cmp.Compare(it.LSN, l) })
}

// below joins the items strictly below a position.
func (o *ownKey) below(at wal.LSN) conflict.Item {
	if i, _ := o.find(at); i > 0 {
		return o.items[i-1]
	}
	return conflict.Item{}
}

// note adds the item of a transaction. It reports false when there is one already, which is joined with it.
func (o *ownKey) note(it conflict.Item) bool {
	i, is := o.find(it.LSN)
	if is && o.items[i].Join(it) == o.items[i] {
		return false // noted again
	}
	if !is {
		first := it
		if i > 0 {
			first = o.items[i-1]
		}
		o.items = slices.Insert(o.items, i, first)
	}
	for ; i < len(o.items); i++ {
		o.items[i] = o.items[i].Join(it)
	}
	return !is
}

type ownRef struct {
	hash   uint64
	commit wal.LSN
}

// segment stands for the own changes of some transactions in a row.
type segment struct {
	first, before, last wal.LSN // commits; before is the last one but one
	keys                *Filter
	also                []uint64 // what makes of a key in a ledger that was copied meanwhile the key that was noted
	n                   int
	old                 bool // of a session that has ended: its changes are noted again
}

// has reports whether a key may be among those of the segment.
func (s *segment) has(h uint64) bool {
	return s.keys.Has(h) || slices.ContainsFunc(s.also, func(by uint64) bool { return s.keys.Has(h ^ by) })
}

const (
	// ownKeys and ownLimit are of how many keys, and how many items of own changes are held as they are: some 100
	// bytes for each key, and 60 for each item.
	ownKeys  = 1 << 18
	ownLimit = 1 << 19
	// segmentKeys is for how many keys the filter of a segment is made, segmentMax how many
	// segments there are; the last one takes whatever comes, and suspects more and more.
	segmentKeys = 3 << 20
	segmentMax  = 6
)

// Note records the item of an own change that waits for the self-merge. It is called in WAL
// order, and again for the same changes when the WAL is decoded again.
func (x *Index) Note(rel wal.RelationName, key []byte, at Place, it conflict.Item) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.rels[rel] = struct{}{}
	h := x.hash(rel, key)
	it.LSN = at.Commit
	if at.Commit < x.wal.merged {
		x.put(rel, h, it) // decoded again; the table has it
		return
	}
	o := x.own.keys[h]
	known := false
	if o != nil {
		_, known = o.find(at.Commit)
	}
	if !known && x.own.full(o) {
		x.own.segment(at.Commit).keys.Add(h)
		return
	}
	if o == nil {
		o = &ownKey{of: rel}
		x.own.keys[h] = o
	}
	if o.last.Before(at) {
		o.last = at
	}
	if o.note(it) {
		x.own.queue = append(x.own.queue, ownRef{h, at.Commit})
	}
}

// full reports whether another item is not held as it is; o is what is known of its key, nil for nothing.
func (o *own) full(k *ownKey) bool {
	return o.segmented() || len(o.queue) >= o.limit || k == nil && len(o.keys) >= o.most
}

// segmented reports whether the session at hand has segments.
func (o *own) segmented() bool {
	return len(o.segments) > 0 && !o.segments[len(o.segments)-1].old
}

// segment is the one that a change at commit belongs to.
func (o *own) segment(commit wal.LSN) *segment {
	var s *segment
	if o.segmented() {
		s = o.segments[len(o.segments)-1]
	}
	if s == nil || (s.n >= o.size && len(o.segments) < segmentMax) {
		s = &segment{first: commit, last: commit, keys: NewFilter(o.size)}
		o.segments = append(o.segments, s)
	}
	if commit != s.last {
		s.before, s.last = s.last, commit
	}
	s.n++
	return s
}

// waits returns the commit up to which changes of a key below a position have to be merged
// before anything can be said of it; 0: nothing has to be.
func (o *own) waits(h uint64, at wal.LSN) (upTo wal.LSN) {
	for _, s := range o.segments {
		if s.old || s.first >= at || !s.has(h) {
			continue
		}
		last := s.last
		if last >= at {
			last = s.before // the transaction that asks is the last one
		}
		upTo = max(upTo, last)
	}
	return upTo
}

func (o *own) may(h uint64) bool {
	if _, ok := o.keys[h]; ok {
		return true
	}
	for _, s := range o.segments {
		if s.has(h) {
			return true
		}
	}
	return false
}

// copyOwn notes in one ledger what is noted in another one of changes that are not merged. An index that is given the names of keys has no copies.
func (x *Index) copyOwn(from, to wal.RelationName) {
	o := &x.own
	if x.limits.Hash != nil || from == to || len(o.queue) == 0 && len(o.segments) == 0 && len(o.cut) == 0 {
		return
	}
	by := x.relation(from) ^ x.relation(to)
	copied := map[uint64]*ownKey{}
	queue := make([]ownRef, 0, len(o.queue))
	for _, r := range o.queue {
		queue = append(queue, r)
		k := o.keys[r.hash]
		if k == nil || k.of != from {
			continue
		}
		if copied[r.hash^by] == nil {
			copied[r.hash^by] = &ownKey{items: slices.Clone(k.items), last: k.last, of: to}
		}
		queue = append(queue, ownRef{r.hash ^ by, r.commit})
	}
	o.queue = queue
	maps.Copy(o.keys, copied)
	for _, s := range o.segments {
		for _, before := range s.also {
			s.also = append(s.also, before^by) // a copy of a copy
		}
		s.also = append(s.also, by)
	}
	if at, ok := o.cut[from]; ok {
		o.cut[to] = at
	}
	x.rels[to] = struct{}{}
}

// Truncated is told of a truncate of this region, in WAL order.
func (x *Index) Truncated(rel wal.RelationName, at Place) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if at.Commit < x.wal.merged {
		return // decoded again
	}
	if x.own.cut == nil {
		x.own.cut = map[wal.RelationName]Place{}
	}
	if x.own.cut[rel].Before(at) {
		x.own.cut[rel] = at
	}
}

// Cut reports whether this region has truncated a relation behind the given place, in a change that
// the self-merge has not passed. What was there before is gone.
func (x *Index) Cut(rel wal.RelationName, after Place) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return after.Before(x.own.cut[rel])
}

// Merged is told that every own change at or below a position is merged and committed.
func (x *Index) Merged(l wal.LSN) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if l <= x.wal.merged {
		return
	}
	x.wal.merged = l
	n := 0
	for ; n < len(x.own.queue) && x.own.queue[n].commit < l; n++ {
		h := x.own.queue[n].hash
		o := x.own.keys[h]
		if o == nil {
			continue
		}
		for len(o.items) > 0 && o.items[0].LSN < l {
			o.items = o.items[1:]
		}
		if len(o.items) == 0 {
			delete(x.own.keys, h)
		}
	}
	if x.own.queue = x.own.queue[n:]; len(x.own.queue) == 0 {
		x.own.queue = nil
	}
	maps.DeleteFunc(x.own.cut, func(_ wal.RelationName, at Place) bool { return at.Commit < l })
	for len(x.own.segments) > 0 && x.own.segments[0].last < l {
		x.own.segments = x.own.segments[1:]
	}
	x.wake()
}

// Merging is told, before it looks, that a transaction of the self-merge holds own changes below a
// position; 0: it was rolled back. Of one that was committed Merged is told.
func (x *Index) Merging(l wal.LSN) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.wal.merging = l
	x.wake()
}

// Recorded is told that the items of every own change below a position are in the table, though
// the changes may not be merged.
func (x *Index) Recorded(l wal.LSN) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.wal.recorded = max(x.wal.recorded, l)
	x.wake()
}

// Stalled reports whether the stamper waits for own changes to be merged or recorded. Then
// nothing is stamped until that has happened.
func (x *Index) Stalled() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.wal.stalled > max(x.wal.merged, x.wal.recorded)
}

// Waiting is the commit position of the oldest own change that waits for the self-merge; 0
// when none does.
func (x *Index) Waiting() wal.LSN {
	x.mu.Lock()
	defer x.mu.Unlock()
	oldest := wal.LSN(0)
	if len(x.own.queue) > 0 {
		oldest = x.own.queue[0].commit
	} else if len(x.own.segments) > 0 {
		oldest = x.own.segments[0].first
	}
	if x.wal.free >= x.wal.merged && x.wal.free != 0 {
		// Only the last of those without an item is known.
		oldest = max(x.wal.merged, 1)
	}
	return oldest
}

// Later reports whether an own change of the key behind the given place is known to wait for
// the self-merge. Of changes beyond the limit of the index it does not know: then it says no, and
// Perhaps says yes.
func (x *Index) Later(rel wal.RelationName, key []byte, after Place) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	o := x.own.keys[x.hash(rel, key)]
	return o != nil && after.Before(o.last)
}

// Perhaps reports whether an own change of the key behind the given place may wait for the self-merge
// beyond the limit of the index. The change at that place may be the one that is meant, and some
// keys are suspected without a reason; when everything that is stamped is merged, it says no.
func (x *Index) Perhaps(rel wal.RelationName, key []byte, after Place) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.hash(rel, key)
	for _, s := range x.own.segments {
		if s.last >= after.Commit && s.has(h) {
			return true
		}
	}
	return false
}
