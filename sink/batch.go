package sink

import (
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A batch gathers whole transactions of one origin and reduces them, for each table, to one
// net effect for each key. That is allowed because the events of one origin on one key come
// in order and each later one supersedes the earlier: the base of the run is the base of its
// first event, the stamp and the image are those of its last.
type batch struct {
	groups []*group
	latest map[wal.RelationName]*group
	rows   int
	bytes  int
	policy func(wal.RelationName) conflict.Policy // the order of stamps; nil is the default
}

// group is the part of a batch that touches one table under one definition of it. A table
// that changes its definition within a batch has several groups, applied in order.
type group struct {
	rel    *wal.Relation
	binary bool
	kind   conflict.EventKind
	key    []int
	index  map[string]int
	runs   []run
	policy conflict.Policy
	exact  []exactChange // tables without a key: every change, in order
	trunc  int           // truncates seen (never applied)
	truncs []*wal.Transaction
}

// run is the net effect of a batch on one key.
type run struct {
	op    wal.Op // Insert, Update or Delete: what the run amounts to
	born  bool   // the first event was an insert
	base  wal.Base
	stamp wal.Stamp
	image wal.Tuple // the row after the run; for deletes the old image or key
	full  bool      // deletes: image is the whole row
	key   []wal.Value
	tx    *wal.Transaction
	loser *wal.Change // repairs: the change that lost at the sender, if it is told
}

type exactChange struct {
	change *wal.Change
	tx     *wal.Transaction
}

func newBatch() *batch {
	return &batch{latest: map[wal.RelationName]*group{}}
}

func (b *batch) reset() {
	b.groups = b.groups[:0]
	clear(b.latest)
	b.rows, b.bytes = 0, 0
}

// add takes in one transaction, or part of one. The batch keeps references into it.
func (b *batch) add(tx *wal.Transaction, kind conflict.EventKind) {
	for i := range tx.Changes {
		ch := &tx.Changes[i]
		g := b.group(ch, kind, false)
		b.rows++
		b.bytes += ch.New.Size() + ch.Old.Size()
		switch {
		case ch.Op == wal.Truncate:
			g.trunc++
			g.truncs = append(g.truncs, tx)
		case g.key == nil:
			g.exact = append(g.exact, exactChange{ch, tx})
		case kind == conflict.Repair && isNotice(tx, i):
			g.runs[len(g.runs)-1].loser = ch
		case !g.add(ch, tx):
			// The stamp does not rise over that of the change before it: the two are merged
			// one after the other.
			b.group(ch, kind, true).add(ch, tx)
		}
	}
}

// isNotice reports whether a change of a repair tells which change lost against the one
// before it: an insert behind another change of the same relation and transaction.
func isNotice(tx *wal.Transaction, i int) bool {
	return i > 0 && tx.Changes[i].Base.Known && tx.Changes[i].Base.Stamp == tx.Changes[i-1].Stamp &&
		tx.Changes[i].Relation == tx.Changes[i-1].Relation &&
		(tx.Changes[i].Base.Digest == noticeLost || tx.Changes[i].Base.Digest == noticeWon)
}

// These stand as base digest of a notice: the change of the region that is told has lost, or
// it has won over the one that is named.
var (
	noticeLost = [16]byte{'l', 'o', 's', 't'}
	noticeWon  = [16]byte{'w', 'o', 'n'}
	// noticeOnly stands at the winner: it is not to be applied, only to be told of.
	noticeOnly = [16]byte{'o', 'n', 'l', 'y'}
)

// group finds or opens the group of a change; fresh opens one in any case.
func (b *batch) group(ch *wal.Change, kind conflict.EventKind, fresh bool) *group {
	name := ch.Relation.Ref()
	bin := isBinary(ch.New) || isBinary(ch.Old)
	if g := b.latest[name]; !fresh && g != nil && g.rel == ch.Relation && g.binary == bin && g.kind == kind {
		return g
	}
	g := &group{
		rel: ch.Relation, binary: bin, kind: kind,
		key:   ch.Relation.KeyColumns(),
		index: map[string]int{},
	}
	if b.policy != nil {
		g.policy = b.policy(name)
	}
	b.latest[name] = g
	b.groups = append(b.groups, g)
	return g
}

func isBinary(t wal.Tuple) bool {
	for i := range t {
		switch t[i].Kind {
		case wal.Binary:
			return true
		case wal.Text:
			return false
		}
	}
	return false
}

// add takes in one change. It reports false, and takes nothing, when the key has a run whose
// stamp the change's does not exceed.
func (g *group) add(ch *wal.Change, tx *wal.Transaction) bool {
	image := ch.New
	if ch.Op == wal.Delete {
		image = ch.Old
	}
	var raw [64]byte
	k := appendRawKey(raw[:0], g.key, image)
	i, seen := g.index[string(k)]
	if !seen {
		i = len(g.runs)
		g.index[string(k)] = i
		key := make([]wal.Value, len(g.key))
		for n, c := range g.key {
			key[n] = image[c]
		}
		g.runs = append(g.runs, run{
			op: ch.Op, born: ch.Op == wal.Insert, base: ch.Base, stamp: ch.Stamp,
			image: image, full: ch.OldFull, key: key, tx: tx,
		})
		return true
	}
	r := &g.runs[i]
	if g.policy.Compare(ch.Stamp, r.stamp) <= 0 {
		return false
	}
	if ch.Op == wal.Update && r.op != wal.Delete {
		image = fill(image, r.image)
	}
	switch {
	case ch.Op == wal.Delete:
		r.op = wal.Delete
	case r.born:
		r.op = wal.Insert
	default:
		r.op = wal.Update // a delete and insert of a row that was there amount to an update
	}
	r.image, r.full, r.stamp, r.tx = image, ch.OldFull, ch.Stamp, tx
	return true
}

// appendRawKey appends the key columns of a tuple, each with its length; the result names a
// row within one group.
func appendRawKey(dst []byte, key []int, t wal.Tuple) []byte {
	for _, c := range key {
		n := len(t[c].Bytes)
		dst = append(dst, byte(t[c].Kind), byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
		dst = append(dst, t[c].Bytes...)
	}
	return dst
}

// fill completes an image with the values of the one before it in the same run, for the
// columns that the update left untouched. Both come from the same origin, in order.
func fill(image, before wal.Tuple) wal.Tuple {
	if image.Complete() || len(image) != len(before) {
		return image
	}
	out := make(wal.Tuple, len(image))
	copy(out, image)
	for i := range out {
		if out[i].Kind == wal.Unchanged {
			out[i] = before[i]
		}
	}
	return out
}

// keyText is the canonical text of the run's key.
func (g *group) keyText(r *run) string {
	oids := make([]uint32, len(g.key))
	for i, c := range g.key {
		oids[i] = g.rel.Columns[c].OID
	}
	return string(wal.AppendKey(nil, oids, r.key))
}
