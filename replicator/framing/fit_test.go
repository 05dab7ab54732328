package framing

import (
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// A change that no packet can hold is left out and told; of a deleted row the key goes out.
func TestWhatNoPacketHoldsIsLeftOut(t *testing.T) {
	t.Parallel()
	var told []int
	f := &Framer{cfg: Config{Encoder: wire.EncoderConfig{MaxPacket: 4 << 20},
		TooLarge: func(_ *wal.Relation, _ wal.Op, size int) { told = append(told, size) }}}
	row := func(size int) wal.Tuple {
		return wal.Tuple{{Kind: wal.Text, Bytes: []byte("1")}, {Kind: wal.Text, Bytes: []byte(strings.Repeat("v", size))}}
	}
	keyless := *rel
	keyless.PrimaryKey = nil
	tx := &wal.Transaction{Changes: []wal.Change{
		{Op: wal.Insert, Relation: rel, New: row(2 << 20)},
		{Op: wal.Insert, Relation: rel, New: row(4 << 20)},
		{Op: wal.Delete, Relation: rel, Old: row(4 << 20), OldFull: true},
		{Op: wal.Delete, Relation: &keyless, Old: row(4 << 20), OldFull: true},
	}}
	f.fit(tx)
	if len(tx.Changes) != 2 || tx.Changes[0].Op != wal.Insert || len(told) != 2 || told[0] < 4<<20 {
		t.Fatalf("%d changes stay, %d are told of", len(tx.Changes), len(told))
	}
	del := tx.Changes[1]
	if del.Op != wal.Delete || del.OldFull || string(del.Old[0].Bytes) != "1" || del.Old[1].Kind != wal.Null {
		t.Errorf("the delete says %+v", del)
	}
}
