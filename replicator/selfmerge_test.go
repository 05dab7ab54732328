package replicator

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/wal"
)

// With an insert that goes through, every other change of its key in the transaction goes: without
// the update the delete would not continue the insert.
func TestSelfMergePicksWholeLives(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "t", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Columns: []wal.Column{
		{Name: "id", OID: 23, Key: true}, {Name: "version", OID: 20, Key: true}, {Name: "updated_at", OID: 1184, Key: true},
	}}
	row := func(id, version string) wal.Tuple {
		return wal.Tuple{
			{Kind: wal.Text, Bytes: []byte(id)}, {Kind: wal.Text, Bytes: []byte(version)}, {Kind: wal.Text, Bytes: []byte("2024-01-01 00:00:00+00")},
		}
	}
	change := func(op wal.Op, id, version string) wal.Change {
		ch := wal.Change{Op: op, Relation: rel, New: row(id, version)}
		if op == wal.Delete {
			ch.New, ch.Old, ch.OldFull = nil, row(id, version), true
		}
		return ch
	}
	tx := &wal.Transaction{CommitLSN: 100, Changes: []wal.Change{
		change(wal.Update, "1", "2"), // before the insert: of another row with that key
		change(wal.Insert, "1", "1"), change(wal.Insert, "2", "1"),
		change(wal.Update, "2", "2"), change(wal.Update, "1", "2"), change(wal.Delete, "1", "2"),
	}}
	local := NewLocalWAL(nil)
	local.Put(rel.Ref(), tx.Changes[1].AppendKey(nil), conflict.Item{LSN: 50, Next: 1})
	m := NewSelfMerge(apply.PolicyFunc(func(wal.RelationName) apply.TablePolicy {
		return apply.TablePolicy{Version: "version", UpdatedAt: "updated_at"}
	}), local)
	var got string
	for _, ch := range m.pick(tx) {
		got += ch.Op.String() + " "
	}
	if want := "insert update delete "; got != want {
		t.Errorf("picked %s, want %s", got, want)
	}
}
