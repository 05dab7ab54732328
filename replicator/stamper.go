package replicator

import (
	"fmt"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Stamper turns the decoded changes of this region into events: it gives each its stamp and
// its base, splits changes of a key, and drops what a receiver has no use for. It belongs to
// the goroutine of the outbound pipe and sees every transaction in commit order, also those
// that were published before a restart: that is how it learns again which keys died.
type Stamper struct {
	policy func(wal.RelationName) TablePolicy
	graves *tombstone.Index
	clock  *Clock
	stamps *Stamps
	rels   map[*wal.Relation]*stamping

	find func(wal.RelationName, string) (tombstone.Grave, bool, error)

	local map[string]uint32 // generations set by the open transaction, by relation and key
	xid   wal.XID
	at    wal.Micros // time of the open transaction in tables without stamps; 0: none given yet
	keep  bool       // stamps were given that the rows do not hold
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
	key     []int
	oids    []uint32
	name    wal.RelationName
	keyless bool
	less    bool // no stamp columns
}

// NewStamper makes a stamper. graves is shared with the appliers, clock with everything that
// sees times of other regions.
func NewStamper(policy func(wal.RelationName) TablePolicy, graves *tombstone.Index, clock *Clock, stamps *Stamps) *Stamper {
	return &Stamper{policy: policy, graves: graves, clock: clock, stamps: stamps,
		rels: map[*wal.Relation]*stamping{}, local: map[string]uint32{}}
}

// Find sets the look into the table for the time when the index holds no longer every grave.
func (s *Stamper) Find(f func(wal.RelationName, string) (tombstone.Grave, bool, error)) { s.find = f }

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
		policy: p.Resolve, key: rel.KeyColumns(), name: rel.Ref(),
	}
	st.keyless = st.key == nil
	st.less = st.cols.Stampless()
	for _, k := range st.key {
		st.oids = append(st.oids, rel.Columns[k].OID)
	}
	s.rels[rel] = st
	return st
}

// Stamp stamps all changes of a transaction, or of a part of one, in place.
func (s *Stamper) Stamp(tx *wal.Transaction) error {
	if len(tx.Changes) == 0 {
		return nil
	}
	if tx.Part == 0 || tx.XID != s.xid {
		clear(s.local)
		s.xid = tx.XID
		s.at = 0
	}
	split := false
	for i := range tx.Changes {
		ch := &tx.Changes[i]
		if ch.Op == wal.Update && ch.Old != nil && !s.of(ch.Relation).keyless {
			if _, _, ok := conflict.SplitKeyChange(*ch); ok {
				split = true
				break
			}
		}
	}
	if split {
		s.split(tx)
	}
	before, again := s.stamps.get(tx)
	s.keep = false
	for i := range tx.Changes {
		var given *keptStamp
		if again {
			given = &before.stamps[i]
		}
		if err := s.change(tx, &tx.Changes[i], given); err != nil {
			return fmt.Errorf("stamp %s of %s in the transaction at %s: %w", tx.Changes[i].Op, tx.Changes[i].Relation, tx.CommitLSN, err)
		}
	}
	if s.keep && !again {
		s.stamps.put(tx, s.at)
	}
	return nil
}

// split replaces each change of a key by a delete and an insert.
func (s *Stamper) split(tx *wal.Transaction) {
	out := make([]wal.Change, 0, len(tx.Changes)+8)
	for _, ch := range tx.Changes {
		if ch.Op == wal.Update && ch.Old != nil && !s.of(ch.Relation).keyless {
			if del, ins, ok := conflict.SplitKeyChange(ch); ok {
				out = append(out, del, ins)
				continue
			}
		}
		out = append(out, ch)
	}
	tx.Changes = out
}

func (s *Stamper) change(tx *wal.Transaction, ch *wal.Change, given *keptStamp) error {
	if ch.Op == wal.Truncate {
		ch.Stamp = wal.Stamp{UpdatedAt: tx.CommitTime}
		return nil
	}
	st := s.of(ch.Relation)
	if st.keyless {
		ch.Stamp = wal.Stamp{Version: wal.NullVersion, UpdatedAt: tx.CommitTime}
		return nil
	}
	row := ch.New
	if ch.Op == wal.Delete {
		row = ch.Old
	}
	var raw [128]byte
	var key []byte
	gen := uint32(0)
	if len(s.local) > 0 || s.graves.Any(st.name) {
		key = appendKey(raw[:0], st, row)
		var err error
		if gen, err = s.generation(st, key, tx.CommitLSN); err != nil {
			return err
		}
	}
	if given != nil {
		gen = given.base
		if ch.Op == wal.Insert {
			gen = given.stamp.Generation
		}
	}
	grave := conflict.Grave{Present: gen > 0}
	if gen > 0 {
		grave.Generation = gen - 1
	}
	// The rows of a stamped table say all that their stamps need; others get a time.
	at := tx.CommitTime
	switch {
	case !st.less:
	case given != nil:
		at = given.stamp.UpdatedAt
		s.clock.Observe(at)
	case s.at == 0:
		s.at = s.clock.Commit(tx.CommitTime)
		at = s.at
	default:
		at = s.clock.Tick() // each change of a key needs a time of its own
	}
	found, err := conflict.StampChange(st.policy, st.cols, ch, at, grave)
	if err != nil {
		return err
	}
	if found.Lifted {
		s.Lifted++
	}
	if given != nil {
		ch.Stamp = given.stamp
	}
	s.keep = s.keep || st.less || ch.Stamp.Generation > 0 || gen > 0
	if ch.Op == wal.Delete || ch.Stamp.Generation > gen {
		s.bury(st, key, row, found.Grave.Generation, tx.CommitLSN)
	}
	if ch.Op == wal.Update {
		ch.Old, ch.OldFull = nil, false // the base says all that a receiver needs of it
	}
	return nil
}

// generation is that of the row that lives under the key just before the change, or that an
// insert of the key would have.
func (s *Stamper) generation(st *stamping, key []byte, at wal.LSN) (uint32, error) {
	if g, ok := s.local[string(key)]; ok {
		return g, nil
	}
	text := key[len(st.name.Schema)+len(st.name.Name)+2:]
	g, ok := s.graves.Get(st.name, text)
	if !ok && s.graves.Full() && s.find != nil {
		var err error
		if g, ok, err = s.find(st.name, string(text)); err != nil {
			return 0, err
		}
	}
	if !ok {
		return 0, nil
	}
	return g.Before(at), nil
}

// bury notes that the generation of a key has ended.
func (s *Stamper) bury(st *stamping, key []byte, row wal.Tuple, gen uint32, at wal.LSN) {
	var raw [128]byte
	if key == nil {
		key = appendKey(raw[:0], st, row)
	}
	s.local[string(key)] = gen + 1
	s.graves.Put(st.name, key[len(st.name.Schema)+len(st.name.Name)+2:], tombstone.Grave{Generation: gen, LSN: at})
}

// appendKey names a row across relations: schema, relation, and the key's canonical text.
func appendKey(dst []byte, st *stamping, row wal.Tuple) []byte {
	dst = append(dst, st.name.Schema...)
	dst = append(dst, 0)
	dst = append(dst, st.name.Name...)
	dst = append(dst, 0)
	var few [4]wal.Value
	vals := few[:0]
	for _, k := range st.key {
		vals = append(vals, row[k])
	}
	return wal.AppendKey(dst, st.oids, vals)
}
