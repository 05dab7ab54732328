package sim

import (
	"context"
	"hash/fnv"
	"maps"
	"slices"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/wal"
)

// What a sidecar knows of its own region's WAL is replicator.LocalWAL. Its methods that wait are
// not called here: what they wait for is asked again as events come.

// newLocal is what a process knows at its start: what the tables hold.
func (s *sidecar) newLocal(limits tombstone.Limits) *replicator.LocalWAL {
	limits.Hash = nameOf
	l := replicator.NewLocalWAL(nil)
	l.Index = tombstone.NewLimitedIndex(limits)
	d := s.r.db
	for i, t := range d.tables { // in an order: which of them find room is a function of the seed
		for n := range t.conf.Keys {
			k := keyText(n)
			for _, it := range d.keys[rowKey{i, k}].items {
				l.Put(t.rel.Ref(), []byte(k), it)
			}
		}
	}
	return l
}

// nameOf is the same in every run.
func nameOf(rel wal.RelationName, key []byte) uint64 {
	h := fnv.New64a()
	h.Write([]byte(rel.Name))
	h.Write([]byte{0})
	h.Write(key)
	n := h.Sum64()
	n ^= n >> 29
	return n * 0xbf58476d1ce4e5b9
}

// apply policy of the tables, as the applier's functions want it.
func (s *sidecar) applyPolicy() apply.Policy {
	return apply.PolicyFunc(func(n wal.RelationName) apply.TablePolicy {
		t := s.r.db.tables[tableOf(n)]
		return apply.TablePolicy{Version: "version", UpdatedAt: "updated_at", Order: t.conf.Order, Resolve: t.pol}
	})
}

// place names what the decoder gives out at once.
func place(tx *wal.Transaction) tombstone.Place {
	return tombstone.Place{Commit: tx.CommitLSN, Part: tx.Part}
}

func (s *sidecar) ref(k rowKey) tombstone.Ref {
	return tombstone.Ref{Relation: s.r.db.tables[k.table].rel.Ref(), Key: k.key}
}

// noted reports whether an own change of a key is known to wait for the self-merge.
func (s *sidecar) noted(k rowKey) bool {
	r := s.ref(k)
	return s.local.Noted(r.Relation, r.Key)
}

// mergedTo is told of a commit of the self-merge.
func (s *sidecar) mergedTo(l wal.LSN) {
	s.merged = l
	s.local.MergedTo(l)
}

// items is what a stamper knows of keys: the index, and the tables as they are now.
type items struct {
	s     *sidecar
	index *tombstone.Index
	live  bool // this is the pipe, not the oracle
}

// beginClock begins the clock of a decoding from a position, with what was stored when that was
// confirmed.
func (d *database) beginClock(x *tombstone.Index, from wal.LSN) {
	at, high := wal.LSN(0), wal.Micros(0)
	for l, h := range d.clock {
		if l <= from && l >= at {
			at, high = l, h
		}
	}
	x.BeginClock(from, high)
}

// clocks are the positions that the clock is stored for.
func (d *database) clocks() []wal.LSN { return slices.Sorted(maps.Keys(d.clock)) }

// clockAhead stores the clock for where the decoding is, as the outbound pipe does now and then.
func (s *sidecar) clockAhead() {
	d := s.r.db
	if !s.w.cfg.Ahead || s.out == nil || s.local.Unseen(d.unseen()) {
		return
	}
	if at, high := s.local.ClockAt(s.local.Session()); at != 0 {
		d.clock[at] = high
	}
}

func (i items) Free(xid wal.XID, commit wal.LSN) { i.index.Free(xid, commit) }

func (i items) Own(rel *wal.Relation) wal.RelationName { return i.index.Own(rel) }

func (i items) Also(rel *wal.Relation) []wal.RelationName { return i.index.Also(rel) }

func (i items) Truncated(rel wal.RelationName, at tombstone.Place) { i.index.Truncated(rel, at) }

func (i items) Clock(commit wal.LSN, t wal.Micros) wal.Micros { return i.index.Clock(commit, t) }

func (i items) Open(_ context.Context, xid wal.XID, commit wal.LSN) error {
	i.index.Open(xid, commit)
	return nil
}

func (i items) Any(rel wal.RelationName) bool { return i.index.Any(rel) }

func (i items) Below(_ context.Context, at wal.LSN, refs []tombstone.Ref) ([]conflict.Item, error) {
	out := make([]conflict.Item, len(refs))
	missing, wait := i.index.Below(at, refs, out)
	if i.s.w.cfg.Break == Restamp || i.s.w.cfg.Break == BlindStamps {
		wait, missing = nil, nil
		for n := range refs {
			missing = append(missing, n)
		}
		if i.s.w.cfg.Break == Restamp {
			at = 1 << 62
		}
	}
	if wait != nil && !i.live {
		i.s.w.fail("a decoding of the WAL of %s without a limit has to wait at %s", i.s.r.name, at)
	}
	for o := i.s.out; wait != nil; { // in the middle of a giant transaction
		o.stall(at, refs)
		i.s.w.step(func() bool { return i.s.out != o })
		missing, wait = i.index.Below(at, refs, out)
	}
	if w := i.s.w; len(missing) > 0 && i.live && w.cfg.Catalog && w.chance(50) {
		if w.cfg.Break != ErrorsAreAnswers {
			return nil, errCatalog
		}
		missing = nil
	}
	for _, n := range missing {
		for _, it := range i.s.r.db.keys[rowKey{tableOf(refs[n].Relation), refs[n].Key}].items {
			if it.LSN < at {
				out[n] = out[n].Join(it)
			}
		}
	}
	return out, nil
}

func (i items) Note(rel wal.RelationName, key []byte, at tombstone.Place, it conflict.Item) {
	i.index.Note(rel, key, at, it)
}

// horizon is a position in front of which nothing is decoded any more: neither after a crash,
// nor by the session at hand, which may be behind what is confirmed.
func (s *sidecar) horizon() wal.LSN { return min(s.r.db.saved, s.local.Session()) }
