package parked

import (
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"

	"github.com/pgwaltz/pgwaltz/wal"
)

// filterBits is the size of the filter: 1 MiB, with three bits set for each key. A million
// parked keys leave one miss in thirty to be looked up in the table.
const filterBits = 1 << 23

// Index says quickly that nothing waits under a key. It is shared by the appliers of a
// region and safe for concurrent use. Its memory is fixed, whatever waits.
type Index struct {
	mu      sync.RWMutex
	seed    maphash.Seed
	bits    []uint64
	tables  map[wal.RelationName]int64
	origins map[string]int64
	wanted  bool
}

// Want says that an operator asked for another try; what waits is looked at again soon.
func (x *Index) Want(wanted bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.wanted = wanted
}

// Wanted reports what Want said last.
func (x *Index) Wanted() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.wanted
}

// NewIndex makes an empty index.
func NewIndex() *Index {
	return &Index{seed: maphash.MakeSeed(), tables: map[wal.RelationName]int64{}, origins: map[string]int64{}}
}

// places are the bits of a key.
func (x *Index) places(rel wal.RelationName, key string) [3]uint64 {
	var h maphash.Hash
	h.SetSeed(x.seed)
	h.WriteString(rel.Schema)
	h.WriteByte(0)
	h.WriteString(rel.Name)
	h.WriteByte(0)
	h.WriteString(key)
	n := h.Sum64()
	a, b := n&(filterBits-1), n>>32|1
	return [3]uint64{a, (a + b) & (filterBits - 1), (a + 2*b) & (filterBits - 1)}
}

// Put notes a key before its change is committed.
func (x *Index) Put(rel wal.RelationName, key string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.set(rel, key)
	x.tables[rel]++
}

func (x *Index) set(rel wal.RelationName, key string) {
	if x.bits == nil {
		x.bits = make([]uint64, filterBits/64)
	}
	for _, p := range x.places(rel, key) {
		x.bits[p/64] |= 1 << (p % 64)
	}
}

// Any reports whether something may wait in the table.
func (x *Index) Any(rel wal.RelationName) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.tables[rel] > 0
}

// Has reports whether something may wait under the key; false is certain for what this
// process parked or loaded.
func (x *Index) Has(rel wal.RelationName, key string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.tables[rel] == 0 || x.bits == nil {
		return false
	}
	for _, p := range x.places(rel, key) {
		if x.bits[p/64]&(1<<(p%64)) == 0 {
			return false
		}
	}
	return true
}

// Used reports whether anything was parked since the index was loaded, or before.
func (x *Index) Used() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.tables) > 0
}

// Add moves the count of an origin, after a commit.
func (x *Index) Add(origin string, n int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.origins[origin] = max(0, x.origins[origin]+n)
}

// Count is how many changes of an origin wait.
func (x *Index) Count(origin string) int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.origins[origin]
}

// Origins lists the origins of which changes wait, in order.
func (x *Index) Origins() []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []string
	for origin, n := range x.origins {
		if n > 0 {
			out = append(out, origin)
		}
	}
	slices.Sort(out)
	return out
}

// Waits reports whether changes of any origin wait.
func (x *Index) Waits() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, n := range x.origins {
		if n > 0 {
			return true
		}
	}
	return false
}

// Counted takes over the sizes of an origin's queues as the table has them.
func (x *Index) Counted(origin string, queues map[Queue]Size) {
	n := int64(0)
	for k, s := range queues {
		if k.Origin == origin {
			n += s.Changes
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.origins[origin] = n
}

// Load fills the index from the table. Called before the appliers of a process begin.
func (x *Index) Load(ctx context.Context, q Querier) error {
	rows, err := q.Query(ctx, `select origin, schema_name, table_name, key from pgwaltz.parked`)
	if err != nil {
		return fmt.Errorf("load parked changes: %w", err)
	}
	defer rows.Close()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.bits, x.tables, x.origins = nil, map[wal.RelationName]int64{}, map[string]int64{}
	for rows.Next() {
		var n wal.RelationName
		var origin, key string
		if err := rows.Scan(&origin, &n.Schema, &n.Name, &key); err != nil {
			return fmt.Errorf("load parked changes: %w", err)
		}
		x.set(n, key)
		x.tables[n]++
		x.origins[origin]++
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("load parked changes: %w", err)
	}
	return nil
}
