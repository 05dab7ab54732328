package conflict

import (
	"bytes"
	"fmt"
	"math"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Stamping is what StampChange found out beside the stamp itself.
type Stamping struct {
	// Lifted: the write did not raise the stamp of the row it overwrote, and was given the
	// next generation, so that it wins over what it replaced.
	Lifted bool
	// SelfMerge: this region must run the event (as kind Self) against its own database,
	// because the stamp is not a function of its own row alone, or because a tombstone has
	// to be written.
	SelfMerge bool
	// Next is the generation that the next change of the same key is stamped from.
	Next uint32
}

// StampChange sets ch.Stamp and ch.Base of one local change, for an Insert, Update or
// Delete whose key did not change (SplitKeyChange comes first). A Truncate is left as it is.
//
// at is the commit time; for tables without stamp columns it is the stamp (Item.After): then
// it must be strictly higher than for any earlier change of the key, also within one
// transaction.
//
// gen is the generation of the row as it was just before the change in this region's WAL, or
// that an insert gets (Item.Born).
//
// The base is known when the old image, or a replica identity over the stamp columns, says
// what was overwritten. Stampless tables have no stamp in the old image: there Base carries
// the digest of it and a zero Stamp.
func StampChange(p Policy, c Columns, ch *wal.Change, at wal.Micros, gen uint32) (Stamping, error) {
	return StampOver(p, c, ch, at, gen, gen)
}

// StampOver is StampChange for a change that is put into a higher generation than the row that it
// overwrote had: over (Item.Over).
func StampOver(p Policy, c Columns, ch *wal.Change, at wal.Micros, gen, over uint32) (Stamping, error) {
	ch.Base = wal.Base{}
	switch ch.Op {
	case wal.Insert:
		s, err := StampOf(c, ch.Relation, ch.New, at)
		if err != nil {
			return Stamping{}, err
		}
		s.Generation = gen
		ch.Stamp = s
		return stamping(c, ch, false), nil
	case wal.Update:
		return stampUpdate(p, c, ch, at, gen, over)
	case wal.Delete:
		return stampDelete(p, c, ch, at, gen, over)
	case wal.Truncate:
		return Stamping{}, nil
	}
	return Stamping{}, fmt.Errorf("stamp change of %s: unknown operation %q", ch.Relation, byte(ch.Op))
}

func stampUpdate(p Policy, c Columns, ch *wal.Change, at wal.Micros, gen, over uint32) (Stamping, error) {
	s, err := StampOf(c, ch.Relation, ch.New, at)
	if err != nil {
		return Stamping{}, err
	}
	s.Generation = gen
	if err := setBase(c, ch, over); err != nil {
		return Stamping{}, err
	}
	lifted := false
	if ch.Base.Known && !c.Stampless() && !rises(p, ch, s) {
		s.Generation = nextGeneration(s.Generation)
		lifted = true
	}
	ch.Stamp = s
	return stamping(c, ch, lifted), nil
}

// rises reports whether the new row with stamp s is above the one it overwrote. An update
// that changed nothing at all counts as risen: it is the same entry. Any other update that
// leaves the stamp as it was does not, whichever content is higher: a stamp must name one row,
// or a peer that deletes the row before it is taken for one that has seen this one. Where the
// stamps are equal the base gets its digest, because its stamp does not identify it any more.
func rises(p Policy, ch *wal.Change, s wal.Stamp) bool {
	if n := p.Compare(s, ch.Base.Stamp); n != 0 {
		return n > 0
	}
	if !ch.OldFull {
		return false
	}
	before, ok := Content(ch.Relation, ch.Old)
	if !ok {
		return false
	}
	if !ch.Base.HasDigest {
		ch.Base.Digest, ch.Base.HasDigest = Digest(before), true
	}
	after, ok := Content(ch.Relation, ch.New.Filled(ch.Old))
	return ok && bytes.Equal(after, before)
}

func stampDelete(p Policy, c Columns, ch *wal.Change, at wal.Micros, gen, over uint32) (Stamping, error) {
	if err := setBase(c, ch, over); err != nil {
		return Stamping{}, err
	}
	s := wal.Stamp{Generation: gen, Version: wal.NullVersion, UpdatedAt: at}
	switch {
	case c.Stampless():
	case !ch.Base.Known:
		s.Version = wal.MaxVersion
	default:
		b := ch.Base.Stamp
		if b.Version != wal.NullVersion {
			s.Version = b.Version
			if s.Version != math.MaxInt64 {
				s.Version++
			}
		}
		if b.UpdatedAt == wal.MaxMicros {
			s.UpdatedAt = wal.MaxMicros
		} else if above := addMicros(b.UpdatedAt, 1); above > at {
			s.UpdatedAt = above
		}
		if p.Compare(s, b) <= 0 {
			// The row has the highest stamp there is; only a new generation is above it.
			s.Generation = nextGeneration(gen)
		}
	}
	ch.Stamp = s
	return stamping(c, ch, s.Generation > gen), nil
}

// setBase fills ch.Base for an update or delete of a row of generation gen.
func setBase(c Columns, ch *wal.Change, gen uint32) error {
	old := ch.Old
	switch {
	case c.Stampless():
		if ch.OldFull && old != nil {
			if content, ok := Content(ch.Relation, old); ok {
				ch.Base = wal.Base{Known: true, Digest: Digest(content), HasDigest: true}
			}
		}
		return nil
	case ch.OldFull && old != nil:
	case !inIdentity(ch.Relation, c):
		return nil
	case old == nil && ch.Op == wal.Update:
		// The WAL names the old identity only when it changed.
		old = ch.New
	case old == nil:
		return nil
	}
	s, err := StampOf(c, ch.Relation, old, wal.MinMicros)
	if err != nil {
		return err
	}
	s.Generation = gen
	ch.Base = wal.Base{Known: true, Stamp: s}
	if (s.UpdatedAt == wal.MinMicros || gen > 0) && ch.OldFull {
		// Without a time, rows of different regions easily have equal stamps. And the generation is that of the row as far as
		// this region's WAL says: a row of the first one, put over a lifted own one that was not known yet, leaves no item.
		if content, ok := Content(ch.Relation, old); ok {
			ch.Base.Digest, ch.Base.HasDigest = Digest(content), true
		}
	}
	return nil
}

// inIdentity reports whether a key-only old tuple carries the stamp.
func inIdentity(rel *wal.Relation, c Columns) bool {
	if rel.Identity != wal.IdentityDefault && rel.Identity != wal.IdentityIndex {
		return false
	}
	for _, i := range [...]int{c.Version, c.UpdatedAt} {
		if i >= 0 && (i >= len(rel.Columns) || !rel.Columns[i].Key) {
			return false
		}
	}
	return true
}

func stamping(c Columns, ch *wal.Change, lifted bool) Stamping {
	return Stamping{
		Lifted:    lifted,
		SelfMerge: ch.Op == wal.Delete || ch.Stamp.Generation > 0 || c.Stampless(),
		Next:      NextGeneration(ch.Stamp, ch.Op != wal.Delete),
	}
}

// nextGeneration saturates; a key does not get there within the life of a disk.
func nextGeneration(g uint32) uint32 {
	if g == math.MaxUint32 {
		return g
	}
	return g + 1
}

// Plain reports whether a change of a table without stamp columns says of its row what is so of
// every row that nothing is known of: it is in generation 0, and was written at its commit time.
func Plain(ch *wal.Change, commit wal.Micros) bool {
	return ch.Op != wal.Delete && ch.Op != wal.Truncate && ch.Stamp.Generation == 0 && ch.Stamp.UpdatedAt == commit
}
