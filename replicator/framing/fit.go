package framing

import (
	"slices"

	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// fitSpare is what a packet holds beside its largest change, in bytes.
const fitSpare = 16 << 20

// fit leaves changes out that no packet can hold, so that they do not hold up all others. Of a
// deleted row the key is enough.
func (f *Framer) fit(tx *wal.Transaction) {
	most := f.cfg.Encoder.MaxPacket
	if most <= 0 {
		most = wire.DefaultMaxPacket
	}
	most -= min(fitSpare, most/4)
	tx.Changes = slices.DeleteFunc(tx.Changes, func(ch wal.Change) bool {
		large := ch.Size() > most && !named(&ch)
		if large && f.cfg.TooLarge != nil {
			f.cfg.TooLarge(ch.Relation, ch.Op, ch.Size())
		}
		return large
	})
	for i := range tx.Changes {
		if ch := &tx.Changes[i]; ch.Size() > most {
			ch.Old, ch.OldFull = keyOnly(ch.Relation, ch.Old), false
		}
	}
}

// named reports whether a change says all that is needed by the key of its old row.
func named(ch *wal.Change) bool { return ch.Op == wal.Delete && ch.Relation.PrimaryKey != nil }

// keyOnly is an old row without the columns beside its key.
func keyOnly(rel *wal.Relation, old wal.Tuple) wal.Tuple {
	key := make(wal.Tuple, len(old))
	for i := range key {
		key[i].Kind = wal.Null
	}
	for _, i := range rel.KeyColumns() {
		key[i] = old[i]
	}
	return key
}
