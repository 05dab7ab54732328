package copy

import (
	"encoding/binary"
	"hash/maphash"
	"sync"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Arrived remembers rows that a peer's copy has brought while the same table is still to be copied
// from here. A row that is read just as it came, with the same stamp, need not be sent back: the
// peer has it. What is forgotten, or not remembered, is sent, which is harmless. The zero value
// is ready. Its methods may be called from any goroutine.
type Arrived struct {
	mu     sync.Mutex
	begun  bool
	seeds  [2]maphash.Seed
	tables map[wal.RelationName]*arrivedTable
	rows   int
}

type arrivedTable struct {
	requested time.Time // of the copy from here
	rows      map[[2]uint64]struct{}
}

// maxArrived bounds the rows that are remembered, some 40 bytes each.
const maxArrived = 1 << 20

// open keeps what belongs to copies that are open still, and were not asked for anew.
func (a *Arrived) open(jobs []Job) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.begun {
		a.begun, a.seeds = true, [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	}
	old := a.tables
	a.tables, a.rows = map[wal.RelationName]*arrivedTable{}, 0
	for i := range jobs {
		j := &jobs[i]
		if !j.Open() {
			continue
		}
		t := old[j.Table]
		if t == nil || !t.requested.Equal(j.Requested) {
			t = &arrivedTable{requested: j.Requested, rows: map[[2]uint64]struct{}{}}
		}
		a.tables[j.Table] = t
		a.rows += len(t.rows)
	}
}

// Note takes copied rows that were applied here.
func (a *Arrived) Note(txs []*wal.Transaction) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.tables) == 0 {
		return
	}
	for _, tx := range txs {
		for i := range tx.Changes {
			ch := &tx.Changes[i]
			if t := a.tables[ch.Relation.Ref()]; t != nil && ch.Op == wal.Insert && a.rows < maxArrived {
				t.rows[a.hash(ch)] = struct{}{}
				a.rows++
			}
		}
	}
}

// take reports whether the row came just so, and forgets it.
func (a *Arrived) take(ch *wal.Change) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tables[ch.Relation.Ref()]
	if t == nil || len(t.rows) == 0 {
		return false
	}
	h := a.hash(ch)
	if _, ok := t.rows[h]; !ok {
		return false
	}
	delete(t.rows, h)
	a.rows--
	return true
}

// hash is of the whole row, with the names of its columns and its stamp. The caller holds mu.
func (a *Arrived) hash(ch *wal.Change) (sum [2]uint64) {
	b := make([]byte, 0, 512)
	b = binary.AppendVarint(b, int64(ch.Stamp.Generation))
	b = binary.AppendVarint(b, int64(ch.Stamp.Version))
	b = binary.AppendVarint(b, int64(ch.Stamp.UpdatedAt))
	for i := range ch.New {
		name := ch.Relation.Columns[i].Name
		b = append(binary.AppendUvarint(b, uint64(len(name))), name...)
		b = append(b, byte(ch.New[i].Kind))
		b = append(binary.AppendUvarint(b, uint64(len(ch.New[i].Bytes))), ch.New[i].Bytes...)
	}
	for n, seed := range a.seeds {
		sum[n] = maphash.Bytes(seed, b)
	}
	return sum
}
