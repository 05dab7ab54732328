package sidecar

import (
	"sync"

	"github.com/pgwaltz/pgwaltz/wal"
)

// copyWatch remembers which rows of the table being copied were changed and framed since the
// chunk at hand was read. Their changes are on the way already, and newer; the copied rows
// would only meet them at the peer as if they were somebody else's.
type copyWatch struct {
	mu   sync.Mutex
	on   bool
	rel  wal.RelationName
	keys map[string]wal.LSN
}

func (w *copyWatch) start(rel wal.RelationName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.on, w.rel, w.keys = true, rel, map[string]wal.LSN{}
}

func (w *copyWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.on, w.keys = false, nil
}

// changed notes the keys of a transaction that was framed. A change that does not carry its
// whole row does not count: the copied row is needed then.
func (w *copyWatch) changed(tx *wal.Transaction) {
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
		w.keys[string(changeKey(ch))] = tx.CommitLSN
	}
}

// unchanged reports whether a row read at the given position may still go out.
func (w *copyWatch) unchanged(ch *wal.Change, at wal.LSN) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.keys[string(changeKey(ch))] < at
}

// forget drops what is older than the next chunk can be.
func (w *copyWatch) forget(at wal.LSN) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, l := range w.keys {
		if l < at {
			delete(w.keys, k)
		}
	}
}

func changeKey(ch *wal.Change) []byte {
	image := ch.New
	if ch.Op == wal.Delete {
		image = ch.Old
	}
	return appendKeyText(nil, ch.Relation, image)
}
