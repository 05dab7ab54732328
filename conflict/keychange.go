package conflict

import (
	"bytes"

	"github.com/pgwaltz/pgwaltz/wal"
)

// SplitKeyChange turns an update that changes the key of its row into the delete of the old
// key and the insert of the new one, which is what it means for the merge. It reports false
// for every other change. The insert's unchanged values are filled from a full old image;
// with a key-only one they stay wal.Unchanged, and the publisher has to read them.
//
// Several rows that swap keys in one statement come as several such changes: the deletes
// then meet rows of the same transaction. The later change of a key decides, as ever.
func SplitKeyChange(ch wal.Change) (del, ins wal.Change, ok bool) {
	if ch.Op != wal.Update || ch.Old == nil || !keyChanged(&ch) {
		return wal.Change{}, wal.Change{}, false
	}
	del = wal.Change{Op: wal.Delete, Relation: ch.Relation, Old: ch.Old, OldFull: ch.OldFull}
	ins = wal.Change{Op: wal.Insert, Relation: ch.Relation, New: ch.New}
	if ch.Keys != nil {
		del.Keys, ins.Keys = &wal.Keys{Old: ch.Keys.Old}, &wal.Keys{New: ch.Keys.New}
	}
	if ch.OldFull {
		ins.New = ch.New.Filled(ch.Old)
	}
	return del, ins, true
}

// keyChanged compares the keys by what names a row: another spelling of the same value is the
// same key.
func keyChanged(ch *wal.Change) bool {
	if ch.Keys != nil {
		return !bytes.Equal(ch.Keys.Old, ch.Keys.New)
	}
	for _, i := range ch.Relation.KeyColumns() {
		if i >= len(ch.Old) || i >= len(ch.New) {
			return false
		}
		o, n, f := ch.Old[i], ch.New[i], ch.Relation.Columns[i].Form
		if n.Kind != wal.Unchanged && (o.Kind != n.Kind || !bytes.Equal(f.Canonical(o.Bytes), f.Canonical(n.Bytes))) {
			return true
		}
	}
	return false
}
