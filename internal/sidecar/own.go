package sidecar

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// ownLog is what this process knows of its own region's log: how far it is decoded, how far
// published and merged, and which keys have own changes on the way to the self-merge. The
// appliers wait on it when a decision depends on whether a local change is known yet.
type ownLog struct {
	seed    maphash.Seed
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every move
	decoded wal.LSN       // every own change at or below is stamped
	merged  wal.LSN       // every own change at or below is merged
	safe    wal.LSN       // as merged, and on disk
	pending map[uint64]place
	queue   []pendingKey // in log order
	ping    func()
}

// place orders own changes: by commit, and within a giant transaction by part.
type place struct {
	commit wal.LSN
	part   uint32
}

func (p place) before(q place) bool {
	return p.commit < q.commit || (p.commit == q.commit && p.part < q.part)
}

type pendingKey struct {
	hash uint64
	at   place
}

func newOwnLog() *ownLog {
	return &ownLog{seed: maphash.MakeSeed(), changed: make(chan struct{}), pending: map[uint64]place{}}
}

func (o *ownLog) hash(rel wal.RelationName, key []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(o.seed)
	h.WriteString(rel.Schema)
	h.WriteByte(0)
	h.WriteString(rel.Name)
	h.WriteByte(0)
	h.Write(key)
	return h.Sum64()
}

// reset forgets everything when the log is read anew.
func (o *ownLog) reset(ping func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.decoded, o.ping = 0, ping
	o.wake()
}

func (o *ownLog) wake() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// note records changes that wait for the self-merge.
func (o *ownLog) note(tx *wal.Transaction) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var key []byte
	at := place{tx.CommitLSN, tx.Part}
	for i := range tx.Changes {
		ch := &tx.Changes[i]
		image := ch.New
		if ch.Op == wal.Delete {
			image = ch.Old
		}
		key = appendKeyText(key[:0], ch.Relation, image)
		h := o.hash(ch.Relation.Ref(), key)
		if o.pending[h].before(at) {
			o.pending[h] = at
			o.queue = append(o.queue, pendingKey{h, at})
		}
	}
}

func appendKeyText(dst []byte, rel *wal.Relation, row wal.Tuple) []byte {
	cols := rel.KeyColumns()
	oids := make([]uint32, len(cols))
	vals := make([]wal.Value, len(cols))
	for i, c := range cols {
		oids[i], vals[i] = rel.Columns[c].OID, row[c]
	}
	return wal.AppendKey(dst, oids, vals)
}

// decodedTo moves the decoded position.
func (o *ownLog) decodedTo(l wal.LSN) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l > o.decoded {
		o.decoded = l
		o.wake()
	}
}

// mergedTo moves the merged position and forgets the keys that it covers.
func (o *ownLog) mergedTo(l wal.LSN) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l <= o.merged {
		return
	}
	o.merged = l
	n := 0
	for ; n < len(o.queue) && o.queue[n].at.commit < l; n++ {
		if o.pending[o.queue[n].hash] == o.queue[n].at {
			delete(o.pending, o.queue[n].hash)
		}
	}
	o.queue = o.queue[n:]
	if len(o.queue) == 0 {
		o.queue = nil
	}
	o.wake()
}

// safeTo moves the position up to which the merge is on disk.
func (o *ownLog) safeTo(l wal.LSN) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.safe = max(o.safe, l)
}

func (o *ownLog) safeLSN() wal.LSN {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.safe
}

// later reports whether a change of the key after the given commit waits for the self-merge.
func (o *ownLog) later(rel wal.RelationName, key string, after place) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return after.before(o.pending[o.hash(rel, []byte(key))])
}

// wait blocks until ok holds; it asks the server for its position while it waits.
func (o *ownLog) wait(ctx context.Context, ok func() bool) error {
	for {
		o.mu.Lock()
		done, changed, ping := ok(), o.changed, o.ping
		o.mu.Unlock()
		if done {
			return nil
		}
		if ping != nil {
			ping()
		}
		// The server's answer may come before the log is flushed that far: ask again.
		again := time.NewTimer(20 * time.Millisecond)
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// waitDecoded blocks until every own change at or below at is stamped.
func (o *ownLog) waitDecoded(ctx context.Context, at wal.LSN) error {
	return o.wait(ctx, func() bool { return o.decoded >= at })
}

// waitMerged blocks until every own change at or below at is merged: either the merge is past
// it, or the log is decoded past it and nothing waits.
func (o *ownLog) waitMerged(ctx context.Context, at wal.LSN) error {
	return o.wait(ctx, func() bool {
		return o.merged >= at || (o.decoded >= at && (len(o.queue) == 0 || o.queue[0].at.commit >= at))
	})
}
