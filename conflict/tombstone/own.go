package tombstone

import (
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

// ownKey is what the own changes of a key that are not merged yet say.
type ownKey struct {
	items []conflict.Item // one for each transaction, in WAL order
	last  Place
}

// below joins the items strictly below a position.
func (o *ownKey) below(at wal.LSN) conflict.Item {
	it := conflict.Item{}
	for _, i := range o.items {
		if i.LSN < at {
			it = it.Join(i)
		}
	}
	return it
}

type ownRef struct {
	hash   uint64
	commit wal.LSN
}

// Note records the item of an own change that waits for the self-merge. It is called in WAL
// order, and again for the same changes when the WAL is decoded again.
func (x *Index) Note(rel wal.RelationName, key []byte, at Place, next uint32, t wal.Micros) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.rels[rel] = struct{}{}
	h := x.hash(rel, key)
	it := conflict.Item{LSN: at.Commit, Next: next, At: t}
	if at.Commit < x.wal.merged {
		x.put(rel, h, it) // decoded again; the table has it
		return
	}
	o := x.own[h]
	if o == nil {
		o = &ownKey{}
		x.own[h] = o
	}
	if o.last.Before(at) {
		o.last = at
	}
	for i := range o.items {
		if o.items[i].LSN == at.Commit {
			o.items[i] = o.items[i].Join(it)
			return
		}
	}
	o.items = append(o.items, it)
	x.queue = append(x.queue, ownRef{h, at.Commit})
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
	for ; n < len(x.queue) && x.queue[n].commit < l; n++ {
		h := x.queue[n].hash
		o := x.own[h]
		if o == nil {
			continue
		}
		for len(o.items) > 0 && o.items[0].LSN < l {
			o.items = o.items[1:]
		}
		if len(o.items) == 0 {
			delete(x.own, h)
		}
	}
	if x.queue = x.queue[n:]; len(x.queue) == 0 {
		x.queue = nil
	}
	x.wake()
}

// Waiting is the commit position of the oldest own change that waits for the self-merge; 0
// when none does.
func (x *Index) Waiting() wal.LSN {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.queue) == 0 {
		return 0
	}
	return x.queue[0].commit
}

// Later reports whether an own change of the key behind the given place waits for the
// self-merge.
func (x *Index) Later(rel wal.RelationName, key []byte, after Place) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	o := x.own[x.hash(rel, key)]
	return o != nil && after.Before(o.last)
}
