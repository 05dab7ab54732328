package replicator

import (
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// Screen keeps an origin to the tables that this region lets it write. It belongs to the
// goroutine of one inbound pipe.
type Screen struct {
	// Allowed says whether a table may be written.
	Allowed func(wal.RelationName) bool

	known map[*wal.Relation]bool
}

// maxScreened bounds what a Screen remembers.
const maxScreened = 4096

// Pass removes changes and notices of other tables from the packet. It returns how many, by
// table; nil when there were none. The transactions stay, perhaps empty.
func (s *Screen) Pass(p *wire.Packet) map[wal.RelationName]uint64 {
	var out map[wal.RelationName]uint64
	drop := func(rel *wal.Relation) bool {
		if s.allowed(rel) {
			return false
		}
		if out == nil {
			out = map[wal.RelationName]uint64{}
		}
		out[rel.Ref()]++
		return true
	}
	for _, tx := range p.Transactions {
		tx.Changes = without(tx.Changes, func(c *wal.Change) bool { return drop(c.Relation) })
		tx.Notices = without(tx.Notices, func(n *wal.Notice) bool { return drop(n.Relation) })
	}
	return out
}

func (s *Screen) allowed(rel *wal.Relation) bool {
	ok, seen := s.known[rel]
	if !seen {
		if ok = s.Allowed(rel.Ref()); s.known == nil || len(s.known) >= maxScreened {
			s.known = map[*wal.Relation]bool{}
		}
		s.known[rel] = ok
	}
	return ok
}

// without returns list without the elements that drop wants gone; list itself when there are none.
func without[T any](list []T, drop func(*T) bool) []T {
	n := 0
	for n < len(list) && !drop(&list[n]) {
		n++
	}
	if n == len(list) {
		return list
	}
	kept := append([]T(nil), list[:n]...)
	for i := n + 1; i < len(list); i++ {
		if !drop(&list[i]) {
			kept = append(kept, list[i])
		}
	}
	return kept
}
