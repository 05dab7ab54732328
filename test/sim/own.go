package sim

import (
	"context"
	"slices"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// ownLog is what a sidecar knows of its own region's log: how far it is decoded and merged,
// and which keys have own changes on the way to the self-merge.
type ownLog struct {
	decoded, merged wal.LSN
	pending         map[rowKey]part
	queue           []ownKey
	items           map[rowKey][]conflict.Item
}

type ownKey struct {
	key rowKey
	at  part
}

func newOwnLog() *ownLog {
	return &ownLog{pending: map[rowKey]part{}, items: map[rowKey][]conflict.Item{}}
}

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
	for k, l := range o.items {
		if l = slices.DeleteFunc(l, func(it conflict.Item) bool { return it.LSN < o.merged }); len(l) == 0 {
			delete(o.items, k)
		} else {
			o.items[k] = l
		}
	}
}

// passed reports whether every own change at or below at is merged.
func (o *ownLog) passed(at wal.LSN) bool {
	return o.merged >= at || o.decoded >= at && (len(o.queue) == 0 || o.queue[0].at.commit >= at)
}

// later reports whether a change of the key after the given one waits for the merge, be it
// in a later part of the same transaction.
func (o *ownLog) later(k rowKey, after part) bool { return o.pending[k].above(after) }

// items is what a stamper knows of keys: the tables as they are now, and the own changes that
// are not merged yet.
type items struct {
	s    *sidecar
	own  *ownLog
	live bool // this is the pipe, not the oracle
	time *tombstone.Clock
}

// beginClock begins the clock of a decoding from a position, with what was stored when that was
// confirmed.
func (d *database) beginClock(from wal.LSN) *tombstone.Clock {
	at, high := wal.LSN(0), wal.Micros(0)
	for l, h := range d.clock {
		if l <= from && l >= at {
			at, high = l, h
		}
	}
	c := &tombstone.Clock{}
	c.Begin(from, high)
	return c
}

func (items) Free(wal.XID, wal.LSN) {}

func (i items) Clock(commit wal.LSN, t wal.Micros) wal.Micros { return i.time.Time(commit, t) }

func (i items) Open(_ context.Context, xid wal.XID, commit wal.LSN) error {
	if i.live {
		i.s.index.Open(xid, commit)
	}
	return nil
}

func (i items) Any(wal.RelationName) bool { return true }

func (i items) Below(_ context.Context, at wal.LSN, refs []tombstone.Ref) ([]conflict.Item, error) {
	if i.s.w.cfg.Break == Restamp {
		at = 1 << 62
	}
	out := make([]conflict.Item, len(refs))
	for n, r := range refs {
		k := rowKey{tableOf(r.Relation), r.Key}
		for _, l := range [][]conflict.Item{i.s.r.db.keys[k].items, i.own.items[k]} {
			for _, it := range l {
				if it.LSN < at {
					out[n] = out[n].Join(it)
				}
			}
		}
	}
	return out, nil
}

func (i items) Note(rel wal.RelationName, key []byte, at tombstone.Place, next uint32, t wal.Micros) {
	k, it := rowKey{tableOf(rel), string(key)}, conflict.Item{LSN: at.Commit, Next: next, At: t}
	if at.Commit >= i.own.merged {
		i.own.items[k] = append(i.own.items[k], it)
	}
}

// horizon is a position in front of which nothing is decoded any more: neither after a crash,
// nor by the session at hand, which may be behind what is confirmed.
func (s *sidecar) horizon() wal.LSN { return min(s.r.db.saved, s.own.decoded) }
