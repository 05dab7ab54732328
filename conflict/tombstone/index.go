package tombstone

import (
	"hash/maphash"
	"sync"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Grave is what the index knows of one key.
type Grave struct {
	Generation uint32
	LSN        wal.LSN // local position at which the grave was written
}

// Before returns the generation that a row had just before the local change at lsn, given
// this grave: the grave counts only if it is older than the change.
func (g Grave) Before(lsn wal.LSN) uint32 {
	if g.LSN >= lsn {
		return g.Generation
	}
	return g.Generation + 1
}

// Index is the in-memory view of the graves of one region. It is safe for concurrent use:
// the publisher asks and adds, the appliers add before they commit.
//
// A grave that was added by a transaction which then failed stays in the index; that costs
// a look into the table and nothing else.
type Index struct {
	mu    sync.RWMutex
	seed  maphash.Seed
	limit int
	full  bool
	keys  map[uint64]Grave
	count map[string]int
}

// DefaultLimit is how many graves the index holds before lookups go to the table: about
// 64 MiB.
const DefaultLimit = 1 << 20

// NewIndex makes an empty index for at most limit graves; 0 means DefaultLimit.
func NewIndex(limit int) *Index {
	if limit <= 0 {
		limit = DefaultLimit
	}
	return &Index{
		seed:  maphash.MakeSeed(),
		limit: limit,
		keys:  map[uint64]Grave{},
		count: map[string]int{},
	}
}

func (x *Index) hash(rel wal.RelationName, key []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(x.seed)
	// As the table names it, so that what is loaded and what is asked hash alike.
	h.WriteString(rel.Schema)
	h.WriteByte('.')
	h.WriteString(rel.Name)
	h.WriteByte(0)
	h.Write(key)
	return h.Sum64()
}

// Any reports whether the relation may have graves at all. Most have none, and then no key
// needs to be looked up.
func (x *Index) Any(rel wal.RelationName) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.full || x.count[rel.String()] > 0
}

// Full reports that the index holds no longer every grave: a miss means nothing then.
func (x *Index) Full() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.full
}

// Get returns the grave of a key. When the index is full, a miss has to be looked up in the
// table.
func (x *Index) Get(rel wal.RelationName, key []byte) (Grave, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	g, ok := x.keys[x.hash(rel, key)]
	return g, ok
}

// Put notes a grave. An entry only rises: the publisher may have to stamp local changes that
// are older than what was applied since, and of two graves of one generation the older
// position tells from where on the generation counts.
func (x *Index) Put(rel wal.RelationName, key []byte, g Grave) {
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.hash(rel, key)
	old, ok := x.keys[h]
	if !ok {
		if len(x.keys) >= x.limit {
			x.full = true
			return
		}
		x.count[rel.String()]++
	} else if old.Generation > g.Generation || (old.Generation == g.Generation && old.LSN <= g.LSN) {
		return
	}
	x.keys[h] = g
}

// Remove forgets a grave that was collected.
func (x *Index) Remove(rel wal.RelationName, key []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.hash(rel, key)
	if _, ok := x.keys[h]; ok {
		delete(x.keys, h)
		x.count[rel.String()]--
	}
}

// Len is the number of graves held.
func (x *Index) Len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.keys)
}

// Reset empties the index before it is loaded again.
func (x *Index) Reset() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.full = false
	clear(x.keys)
	clear(x.count)
}
