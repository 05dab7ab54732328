package tombstone

import (
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Filter says which keys are certainly not among those that were added: a Bloom filter over
// 64-bit hashes. It does not grow; what is too much for it makes it say "perhaps" more often.
type Filter struct {
	bits  []uint64
	mask  uint64
	added int // some of them more than once
	made  int // for how many
}

// filterBits is how many bits one key has: about 1 in 100 other keys is taken for it.
const filterBits = 10

// NewFilter makes a filter for n keys.
func NewFilter(n int) *Filter {
	words := uint64(1)
	for words*64 < uint64(n)*filterBits {
		words *= 2
	}
	return &Filter{bits: make([]uint64, words), mask: words*64 - 1, made: n}
}

// Add adds a hash.
func (f *Filter) Add(h uint64) {
	f.added++
	a, b := h, h>>32|1
	for range 6 {
		f.bits[a&f.mask>>6] |= 1 << (a & 63)
		a += b * 0x9e3779b97f4a7c15
	}
}

// Has reports whether a hash may have been added; false is certain.
func (f *Filter) Has(h uint64) bool {
	a, b := h, h>>32|1
	for range 6 {
		if f.bits[a&f.mask>>6]&(1<<(a&63)) == 0 {
			return false
		}
		a += b * 0x9e3779b97f4a7c15
	}
	return true
}

// loading is a view of the table that is being read while the old one is still in use.
type loading struct {
	keys   map[uint64]known
	rels   map[wal.RelationName]struct{}
	filter *Filter
}

func (n *loading) put(rel wal.RelationName, h uint64, it conflict.Item, limit int) {
	n.rels[rel] = struct{}{}
	n.filter = join(n.keys, n.filter, h, it, limit)
}

// begin starts to take in the table's contents anew; size is how many keys are expected. What
// is put meanwhile counts for both views.
func (x *Index) begin(size int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.next = &loading{keys: map[uint64]known{}, rels: map[wal.RelationName]struct{}{}}
	if size > x.limit {
		x.next.filter = NewFilter(2 * size)
	}
}

// read takes in one item of the table.
func (x *Index) read(rel wal.RelationName, key []byte, it conflict.Item) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.next != nil {
		x.next.put(rel, x.hash(rel, key), it, x.limit)
	}
}

// end makes the view that was read the one in use; not ok gives it up.
func (x *Index) end(ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := x.next
	x.next = nil
	if n == nil || !ok {
		return
	}
	for r := range x.rels {
		// Own changes and holds are not in the table yet.
		if len(x.own.queue)+len(x.own.segments)+len(x.holds) > 0 {
			n.rels[r] = struct{}{}
		}
	}
	x.keys, x.rels, x.filter = n.keys, n.rels, n.filter
}
