package sim

import "github.com/pgwaltz/pgwaltz/wal"

// ownLog is what a sidecar knows of its own region's log: how far it is decoded and merged,
// and which keys have own changes on the way to the self-merge.
type ownLog struct {
	decoded, merged wal.LSN
	pending         map[rowKey]part
	queue           []ownKey
}

type ownKey struct {
	key rowKey
	at  part
}

func newOwnLog() *ownLog { return &ownLog{pending: map[rowKey]part{}} }

// above orders the parts of a log.
func (p part) above(o part) bool {
	return p.commit > o.commit || p.commit == o.commit && p.part > o.part
}

func (o *ownLog) note(k rowKey, at part) {
	if at.above(o.pending[k]) {
		o.pending[k] = at
		o.queue = append(o.queue, ownKey{k, at})
	}
}

func (o *ownLog) mergedTo(l wal.LSN) {
	if l <= o.merged {
		return
	}
	o.merged = l
	n := 0
	for ; n < len(o.queue) && o.queue[n].at.commit < l; n++ {
		if o.pending[o.queue[n].key] == o.queue[n].at {
			delete(o.pending, o.queue[n].key)
		}
	}
	o.queue = o.queue[n:]
}

// passed reports whether every own change at or below at is merged.
func (o *ownLog) passed(at wal.LSN) bool {
	return o.merged >= at || o.decoded >= at && (len(o.queue) == 0 || o.queue[0].at.commit >= at)
}

// later reports whether a change of the key after the given one waits for the merge, be it
// in a later part of the same transaction.
func (o *ownLog) later(k rowKey, after part) bool { return o.pending[k].above(after) }
