package copy

import (
	"sync"

	"github.com/pgwaltz/pgwaltz/wal"
)

// maxWatched bounds the rows that a Watch remembers, some 100 bytes each. A giant transaction may change all rows of a
// table while one chunk waits for its end. A copied row that is sent although it was changed loses at the peer, and is
// recorded there.
const maxWatched = 1 << 18

// Watch remembers which rows of the table being copied were changed and framed since the
// chunk at hand was read. Their changes are on the way already, and newer; the copied rows
// would only meet them at the peer as if they were somebody else's. Its methods may be called
// from any goroutine.
type Watch struct {
	mu   sync.Mutex
	on   bool
	rel  wal.RelationName
	keys map[string]wal.LSN
}

func (w *Watch) start(rel wal.RelationName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.on, w.rel, w.keys = true, rel, map[string]wal.LSN{}
}

func (w *Watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.on, w.keys = false, nil
}

// Changed notes the keys of a transaction that was framed. The outbound pipe calls it before
// any later packet is framed. A change that does not carry its whole row does not count: the
// copied row is needed then.
func (w *Watch) Changed(tx *wal.Transaction) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.on {
		return
	}
	for i := range tx.Changes {
		ch := &tx.Changes[i]
		if ch.Relation.Ref() != w.rel || ch.Op == wal.Truncate || !ch.New.Complete() {
			continue
		}
		key := string(ch.AppendKey(nil))
		if _, held := w.keys[key]; held || len(w.keys) < maxWatched {
			w.keys[key] = tx.CommitLSN
		}
	}
}

// unchanged reports whether a row read at the given position may still go out.
func (w *Watch) unchanged(ch *wal.Change, at wal.LSN) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.keys[string(ch.AppendKey(nil))] < at
}

// forget drops what is older than the next chunk can be.
func (w *Watch) forget(at wal.LSN) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, l := range w.keys {
		if l < at {
			delete(w.keys, k)
		}
	}
}
