package sim

import (
	"sort"

	"github.com/pgwaltz/pgwaltz/replicator/framing"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// copyTables sends every row and tombstone of the region through its stream, as a copy does.
func (s *sidecar) copyTables() {
	if !s.up || s.out == nil {
		return
	}
	d := s.r.db
	d.flush()
	var keys []rowKey
	for k, e := range d.keys {
		if e.row != nil || e.tomb != nil && !e.tomb.live {
			keys = append(keys, k)
		}
	}
	sort.Slice(keys, func(i, j int) bool {
		return keys[i].table < keys[j].table || keys[i].table == keys[j].table && keys[i].key < keys[j].key
	})
	tx := &wal.Transaction{CommitTime: d.now(), CommitLSN: d.insert, EndLSN: d.insert + 1}
	for _, k := range keys {
		e := d.keys[k]
		if e.row == nil {
			old, ok := d.tables[k.table].rel.ParseKey(k.key)
			if !ok {
				d.w.fail("the key %s cannot be read", k.key)
			}
			tx.Changes = append(tx.Changes, wal.Change{Op: wal.Delete, Relation: d.tables[k.table].rel, Old: old, Stamp: e.tomb.stamp})
			continue
		}
		if d.tables[k.table].conf.stampless() && !e.stampd {
			continue // not merged yet: it travels by itself
		}
		tx.Changes = append(tx.Changes, wal.Change{Op: wal.Insert, Relation: d.tables[k.table].rel, New: e.row, Stamp: d.side(k, e).Stamp})
	}
	s.w.note(s.r.id, "copy", uint64(len(tx.Changes)), uint64(d.insert))
	if len(tx.Changes) == 0 {
		d.copies = false
		return
	}
	s.out.framer.Hold(framing.Extra{Kind: wire.Copy, Transactions: []*wal.Transaction{tx}, After: d.insert, Done: func(h wire.Header) { d.copied = h.Position() }})
	s.out.wake()
}
