package tombstone

import (
	"cmp"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Ref names a row: its relation and its key text.
type Ref struct {
	Relation wal.RelationName
	Key      string
}

// Index is what one process knows of the keys of its region beside their rows. It is safe for
// concurrent use: the publisher asks and notes, the appliers hold before they commit.
//
// Up to its limit it knows the items of every key. Beyond it, it knows which keys may have some
// (a filter), and those are looked up in the table; Load leaves the limit again.
type Index struct {
	mu      sync.Mutex
	seeds   [2]maphash.Seed // of relations and of keys
	limits  Limits
	limit   int           // of keys
	changed chan struct{} // closed and replaced when somebody who waits may go on

	keys   map[uint64]known // committed; of each key the join of its items
	rels   map[wal.RelationName]struct{}
	filter *Filter // nil: keys holds every key that has items
	next   *loading

	own        own              // own changes that are not merged yet
	holds      map[string]*hold // by applier
	committing map[string]uint64
	settled    map[string]uint64 // by applier: how many transactions it has committed
	ending     map[uint32]bool   // server processes of sessions that this process ends
	commits    uint64
	wal        stamped
	clock      Clock

	ledgers atomic.Pointer[Ledgers]       // nil: every table has its own under its name
	copies  map[wal.RelationName]struct{} // ledgers that were begun as copies of others
}

// known is the join of the items of a key.
type known struct {
	conflict.Item
	older bool  // the table has more, at lower positions
	open  int32 // transactions that are writing it: until they end the table is asked
}

// DefaultLimit is how many keys the index holds before lookups go to the table: about 64 MiB.
const DefaultLimit = 1 << 20

// Limits bound what an Index holds in memory. Zero means the usual limit.
type Limits struct {
	Keys    int // that are known exactly: DefaultLimit
	Own     int // items of own changes that are held as they are
	OwnKeys int // of how many keys; where Own is given, as many
	Segment int // keys that the filter of a segment behind those is made for
	Held    int // keys of one applier's open transaction that are held one by one
	// Hash names keys within the process. nil: by a seed of its own, so that nobody can make keys
	// that collide. The simulation needs the same names each time.
	Hash func(wal.RelationName, []byte) uint64
}

// NewIndex makes an empty index for at most limit keys; 0 means DefaultLimit.
func NewIndex(limit int) *Index { return NewLimitedIndex(Limits{Keys: max(limit, 0)}) }

// NewLimitedIndex makes an empty index with limits of its own.
func NewLimitedIndex(l Limits) *Index {
	usual := func(n *int, to int) {
		if *n == 0 {
			*n = to
		}
	}
	usual(&l.Keys, DefaultLimit)
	usual(&l.OwnKeys, min(cmp.Or(l.Own, ownKeys), ownKeys))
	usual(&l.Own, ownLimit)
	usual(&l.Segment, segmentKeys)
	usual(&l.Held, maxHeld)
	x := &Index{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, limits: l, limit: l.Keys, changed: make(chan struct{})}
	x.Reset()
	return x
}

// Reset forgets everything, before the index is loaded for a new term of this process.
func (x *Index) Reset() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.keys, x.rels, x.filter, x.next = map[uint64]known{}, map[wal.RelationName]struct{}{}, nil, nil
	x.own = own{keys: map[uint64]*ownKey{}, most: x.limits.OwnKeys, limit: x.limits.Own, size: x.limits.Segment}
	x.holds, x.committing, x.ending, x.settled = map[string]*hold{}, map[string]uint64{}, map[uint32]bool{}, map[string]uint64{}
	x.wal = stamped{recent: map[uint32]struct{}{}}
	x.clock = Clock{}
	x.ledgers.Store(nil)
	x.copies = map[wal.RelationName]struct{}{}
	x.wake()
}

// Changed returns a channel that is closed at the next change that a waiting caller may want
// to know of.
func (x *Index) Changed() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.changed
}

func (x *Index) wake() {
	close(x.changed)
	x.changed = make(chan struct{})
}

func (x *Index) hash(rel wal.RelationName, key []byte) uint64 {
	if x.limits.Hash != nil {
		return x.limits.Hash(rel, key)
	}
	return x.relation(rel) ^ maphash.Bytes(x.seeds[1], key)
}

// relation is the part that the relation has in the hash of a key. With that of another relation in its place it is the same key there.
func (x *Index) relation(rel wal.RelationName) uint64 {
	var h maphash.Hash
	h.SetSeed(x.seeds[0])
	h.WriteString(rel.Schema)
	h.WriteByte(0)
	h.WriteString(rel.Name)
	return h.Sum64()
}

// Any reports whether keys of the relation may have items at all. Most relations have none,
// and then no key needs to be looked up.
func (x *Index) Any(rel wal.RelationName) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	_, ok := x.rels[rel]
	return ok
}

// May reports whether something may be known of a key beside its row. False is certain.
func (x *Index) May(rel wal.RelationName, key []byte) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.rels[rel]; !ok {
		return false
	}
	h := x.hash(rel, key)
	if _, ok := x.keys[h]; ok {
		return true
	}
	if x.own.may(h) || (x.filter != nil && x.filter.Has(h)) {
		return true
	}
	for _, o := range x.holds {
		if o.blocks(h, rel, math.MaxInt64) {
			return true
		}
	}
	return false
}

// Put notes a committed item.
func (x *Index) Put(rel wal.RelationName, key []byte, it conflict.Item) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.put(rel, x.hash(rel, key), it)
}

func (x *Index) put(rel wal.RelationName, h uint64, it conflict.Item) {
	x.rels[rel] = struct{}{}
	if n := x.next; n != nil {
		n.put(rel, h, it, x.limit)
	}
	x.filter = join(x.keys, x.filter, h, it, x.limit)
}

// join adds an item to a map of keys, or to the filter when there is no room in it.
func join(keys map[uint64]known, f *Filter, h uint64, it conflict.Item, limit int) *Filter {
	old, ok := keys[h]
	switch {
	case ok:
		keys[h] = known{old.Join(it), old.older || (it != old.Item && old.Item != conflict.Item{}), old.open}
	case len(keys) < limit && f == nil:
		keys[h] = known{Item: it}
	default:
		if f == nil {
			f = NewFilter(4 * limit)
			for k := range keys {
				f.Add(k)
			}
		}
		f.Add(h)
	}
	return f
}

// Below joins the items of the keys strictly below a position, into items, which has the
// length of refs. What it does not know is returned by index in refs: these have to be looked
// up in the table (Lookup), by a query that begins after this call. A channel is returned
// when the answer depends on an applier's transaction that has not ended, or on own changes
// that are not merged: ask again after it is closed.
func (x *Index) Below(at wal.LSN, refs []Ref, items []conflict.Item) (missing []int, wait <-chan struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, r := range refs {
		h := x.hash(r.Relation, []byte(r.Key))
		for _, o := range x.holds {
			if o.blocks(h, r.Relation, at) {
				return nil, x.changed
			}
		}
		if upTo := x.own.waits(h, at); upTo != 0 && upTo >= max(x.wal.merged, x.wal.recorded) {
			x.wal.stalled = upTo + 1
			return nil, x.changed
		}
		it := conflict.Item{}
		if o := x.own.keys[h]; o != nil {
			it = o.below(at)
		}
		k, ok := x.keys[h]
		switch {
		case ok && k.LSN < at && k.open == 0:
			it = it.Join(k.Item)
		case ok && (k.older || k.open > 0), !ok && x.filter != nil && x.filter.Has(h):
			missing = append(missing, i)
		}
		items[i] = it
	}
	return missing, nil
}

// Remove forgets a key that was collected.
func (x *Index) Remove(rel wal.RelationName, key []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.hash(rel, key)
	delete(x.keys, h)
	if x.next != nil {
		delete(x.next.keys, h)
	}
}

// Len is the number of keys held.
func (x *Index) Len() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.keys)
}

// Crowded reports that more keys were added than the filter was made for: it takes ever more keys
// for those, and each costs a look-up. Load makes a larger one.
func (x *Index) Crowded() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.filter != nil && x.filter.added > x.filter.made
}

// Full reports that there are more keys than the index holds.
func (x *Index) Full() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.filter != nil
}
