package replicator

import (
	"context"
	"fmt"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Items is what the stamper knows of keys beside their changes; see package tombstone for why
// that makes the stamps the same at every decoding.
type Items interface {
	// Open is told of each own transaction, or part of one, before its changes are asked for.
	Open(ctx context.Context, xid wal.XID, commit wal.LSN) error
	// Own is the name under which a relation's items are kept (tombstone.Index.Own).
	Own(rel *wal.Relation) wal.RelationName
	// Also are other names under which they are kept as well; asked for behind each note under the first (tombstone.Index.Also).
	Also(rel *wal.Relation) []wal.RelationName
	// Any reports whether keys of a relation may have items at all; false is certain.
	Any(wal.RelationName) bool
	// Clock is the time of an own transaction: its commit time, or just above all in front of it.
	Clock(commit wal.LSN, t wal.Micros) wal.Micros
	// Below joins the items of each key strictly below a position. It may block until what the
	// answer depends on is known.
	Below(ctx context.Context, at wal.LSN, refs []tombstone.Ref) ([]conflict.Item, error)
	// Free is told of a change of a table without stamp columns that needs no item: nothing is
	// known of its key, and its stamp is its commit time.
	Free(xid wal.XID, commit wal.LSN)
	// Truncated is told of a truncate.
	Truncated(rel wal.RelationName, at tombstone.Place)
	// Note records the item of a change that the self-merge has to write.
	Note(rel wal.RelationName, key []byte, at tombstone.Place, it conflict.Item)
}

// Stamper turns the decoded changes of this region into events: it gives each its stamp and
// its base, splits changes of a key, and drops what a receiver has no use for. It belongs to
// the goroutine of the outbound pipe and sees every transaction in commit order, also those
// that were published before a restart. What it gives to a change is a function of the WAL and
// of the items below the change, so it is the same at every decoding.
type Stamper struct {
	policy func(wal.RelationName) TablePolicy
	items  Items
	rels   map[*wal.Relation]*stamping
	open   openTransaction
	keys   []byte // key texts of the part at hand
	places []place
	// Lifted counts local writes whose version or time did not rise.
	Lifted uint64
}

// TablePolicy is what stamping needs to know of a table.
type TablePolicy struct {
	Version, UpdatedAt string
	Resolve            conflict.Policy
}

// stamping is what is derived from one relation.
type stamping struct {
	cols    conflict.Columns
	policy  conflict.Policy
	name    wal.RelationName // its ledger
	keyless bool
	less    bool // no stamp columns
}

// openTransaction is what the transaction at hand did already. It is rebuilt by decoding the
// transaction again, from its beginning.
type openTransaction struct {
	xid    wal.XID
	commit wal.LSN
	keys   overlay
	tangle conflict.Tangle
	less   int        // changes of tables without stamp columns
	time   wal.Micros // of its changes of such tables; 0: not asked for yet
}

// place is where the key of a change stands in Stamper.keys; from < 0: not needed yet.
type place struct {
	from, to int
	item     conflict.Item
}

// NewStamper makes a stamper.
func NewStamper(policy func(wal.RelationName) TablePolicy, items Items) *Stamper {
	return &Stamper{policy: policy, items: items, rels: map[*wal.Relation]*stamping{}}
}

func (s *Stamper) of(rel *wal.Relation) *stamping {
	if st := s.rels[rel]; st != nil {
		return st
	}
	if len(s.rels) > 4096 {
		clear(s.rels)
	}
	p := s.policy(rel.Ref())
	st := &stamping{
		cols:   conflict.ColumnsOf(rel, p.Version, p.UpdatedAt),
		policy: p.Resolve, name: s.items.Own(rel),
	}
	st.keyless = rel.KeyColumns() == nil
	st.less = st.cols.Stampless()
	s.rels[rel] = st
	return st
}

// Stamp stamps all changes of a transaction, or of a part of one, in place. Parts come in
// order; a transaction that is given again from its beginning gets the same stamps again.
// After an error the transaction has to be decoded again.
func (s *Stamper) Stamp(ctx context.Context, tx *wal.Transaction) error {
	again := tx.Part > 0 && tx.XID == s.open.xid && tx.CommitLSN == s.open.commit
	if len(tx.Changes) == 0 && !(again && s.open.tangle.Holds()) {
		return nil
	}
	if err := s.items.Open(ctx, tx.XID, tx.CommitLSN); err != nil {
		return fmt.Errorf("stamp the transaction at %s: %w", tx.CommitLSN, err)
	}
	if o := &s.open; tx.Part == 0 || tx.XID != o.xid || tx.CommitLSN != o.commit {
		*o = openTransaction{xid: tx.XID, commit: tx.CommitLSN, keys: o.keys}
		o.keys.reset()
	}
	if err := s.split(tx); err != nil {
		return fmt.Errorf("stamp the transaction at %s: %w", tx.CommitLSN, err)
	}
	if err := s.ask(ctx, tx); err != nil {
		return fmt.Errorf("stamp the transaction at %s: %w", tx.CommitLSN, err)
	}
	for i := range tx.Changes {
		if err := s.change(tx, i); err != nil {
			return fmt.Errorf("stamp %s of %s in the transaction at %s: %w", tx.Changes[i].Op, tx.Changes[i].Relation, tx.CommitLSN, err)
		}
	}
	return nil
}

// split replaces each change of a key by a delete and an insert, in an order that no key has two
// rows.
func (s *Stamper) split(tx *wal.Transaction) error {
	var out []wal.Change
	for i, ch := range tx.Changes {
		if ch.Op == wal.Update && ch.Old != nil && !s.of(ch.Relation).keyless {
			if del, ins, ok := conflict.SplitKeyChange(ch); ok {
				if out == nil {
					out = append(make([]wal.Change, 0, len(tx.Changes)+8), tx.Changes[:i]...)
				}
				out = append(out, del, ins)
				continue
			}
		}
		if out != nil {
			out = append(out, ch)
		}
	}
	if out != nil {
		tx.Changes = out
	}
	var err error
	tx.Changes, err = s.open.tangle.Take(tx.Changes, tx.More)
	return err
}

// ask finds out what is known of the keys of a transaction, at once for all.
func (s *Stamper) ask(ctx context.Context, tx *wal.Transaction) error {
	s.keys, s.places = s.keys[:0], s.places[:0]
	var refs []tombstone.Ref
	var of []int
	asked := map[tombstone.Ref]int{}
	for i := range tx.Changes {
		ch := &tx.Changes[i]
		p := place{from: -1}
		if st := s.of(ch.Relation); ch.Op != wal.Truncate && !st.keyless && s.items.Any(st.name) {
			p = s.key(st, ch)
			r := tombstone.Ref{Relation: st.name, Key: string(s.keys[p.from:p.to])}
			n, ok := asked[r]
			if !ok {
				n = len(refs)
				asked[r] = n
				refs = append(refs, r)
			}
			of = append(of, i, n)
		}
		s.places = append(s.places, p)
	}
	if len(refs) == 0 {
		return nil
	}
	items, err := s.items.Below(ctx, tx.CommitLSN, refs)
	if err != nil {
		return err
	}
	for n := 0; n < len(of); n += 2 {
		s.places[of[n]].item = items[of[n+1]]
	}
	return nil
}

// key appends the key text of a change.
func (s *Stamper) key(st *stamping, ch *wal.Change) place {
	p := place{from: len(s.keys)}
	s.keys = ch.AppendKey(s.keys)
	p.to = len(s.keys)
	return p
}

func (s *Stamper) change(tx *wal.Transaction, i int) error {
	ch := &tx.Changes[i]
	if ch.Op == wal.Truncate {
		ch.Stamp = wal.Stamp{UpdatedAt: tx.CommitTime}
		at := tombstone.Place{Commit: tx.CommitLSN, Part: tx.Part}
		s.items.Truncated(s.of(ch.Relation).name, at)
		for _, name := range s.items.Also(ch.Relation) {
			s.items.Truncated(name, at)
		}
		return nil
	}
	st := s.of(ch.Relation)
	if st.keyless {
		ch.Stamp = wal.Stamp{Version: wal.NullVersion, UpdatedAt: tx.CommitTime}
		return nil
	}
	p := &s.places[i]
	gen, over, at := s.before(tx, st, ch, p)
	found, err := conflict.StampOver(st.policy, st.cols, ch, at, gen, over)
	if err != nil {
		return err
	}
	if found.Lifted {
		s.Lifted++
	}
	ch.Raised = ch.Op != wal.Delete && ch.Stamp.Generation > p.item.Next
	if found.SelfMerge || st.policy.Skewed(ch.Stamp, tx.CommitTime) {
		s.note(tx, st, ch, p, found.Next)
	}
	if ch.Op == wal.Update {
		ch.Old, ch.OldFull = nil, false // the base says all that a receiver needs of it
	}
	return nil
}

// before is the generation that a change begins with, that of the row just before it, and the time that
// the change has.
func (s *Stamper) before(tx *wal.Transaction, st *stamping, ch *wal.Change, p *place) (gen, over uint32, at wal.Micros) {
	o := &s.open
	at = tx.CommitTime
	if ch.Op == wal.Insert {
		gen = p.item.Born()
		over = gen
	} else {
		over, gen = p.item.Over()
	}
	again := 0
	if o.keys.any() {
		if p.from < 0 {
			*p = s.key(st, ch)
		}
		if n, ok := o.keys.raised(s.mark(st, p)); ok {
			over, again = p.item.Next+n, o.less
			gen = max(gen, over)
		}
	}
	if st.less {
		if o.time == 0 {
			o.time = s.items.Clock(tx.CommitLSN, tx.CommitTime)
		}
		at = p.item.Time(o.time, again)
	}
	return gen, over, at
}

// note remembers what later changes of the key are stamped from.
func (s *Stamper) note(tx *wal.Transaction, st *stamping, ch *wal.Change, p *place, next uint32) {
	if p.from < 0 {
		*p = s.key(st, ch)
	}
	t := wal.Micros(0)
	if st.less {
		t = ch.Stamp.UpdatedAt
		s.open.less++
	}
	s.open.keys.set(s.mark(st, p), next-p.item.Next)
	if st.less && p.item == (conflict.Item{}) && conflict.Plain(ch, tx.CommitTime) && !st.policy.Skewed(ch.Stamp, tx.CommitTime) {
		s.items.Free(tx.XID, tx.CommitLSN)
		return
	}
	at, it := tombstone.Place{Commit: tx.CommitLSN, Part: tx.Part}, conflict.Item{Next: next, Live: ch.Op != wal.Delete, At: t}
	s.items.Note(st.name, s.keys[p.from:p.to], at, it)
	for _, name := range s.items.Also(ch.Relation) {
		s.items.Note(name, s.keys[p.from:p.to], at, it)
	}
}

// mark names a row across relations.
func (s *Stamper) mark(st *stamping, p *place) uint64 {
	return keyHash([]byte(st.name.Schema), []byte(st.name.Name), s.keys[p.from:p.to])
}
