package replicator

import (
	"maps"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

func TestScreen(t *testing.T) {
	t.Parallel()
	ours := &wal.Relation{Schema: "public", Name: "ours"}
	secret := &wal.Relation{Schema: "public", Name: "secret"}
	node := &wal.Relation{Schema: "pgwaltz", Name: "node"}
	change := func(r *wal.Relation) wal.Change { return wal.Change{Op: wal.Insert, Relation: r} }
	s := Screen{Allowed: func(n wal.RelationName) bool { return n == ours.Ref() }}

	clean := &wire.Packet{Transactions: []*wal.Transaction{{Changes: []wal.Change{change(ours), change(ours)}}}}
	if got := s.Pass(clean); got != nil || len(clean.Transactions[0].Changes) != 2 {
		t.Errorf("a clean packet: %v, %d changes", got, len(clean.Transactions[0].Changes))
	}
	mixed := &wire.Packet{Transactions: []*wal.Transaction{
		{Changes: []wal.Change{change(ours), change(secret), change(ours), change(node), change(node)}},
		{Changes: []wal.Change{change(node)}, Notices: []wal.Notice{{Relation: secret}, {Relation: ours}}},
	}}
	got := s.Pass(mixed)
	if want := map[wal.RelationName]uint64{secret.Ref(): 2, node.Ref(): 3}; !maps.Equal(got, want) {
		t.Errorf("dropped %v, want %v", got, want)
	}
	for i, want := range [][2]int{{2, 0}, {0, 1}} {
		tx := mixed.Transactions[i]
		if len(tx.Changes) != want[0] || len(tx.Notices) != want[1] {
			t.Errorf("transaction %d holds %d changes and %d notices", i, len(tx.Changes), len(tx.Notices))
		}
		for _, c := range tx.Changes {
			if c.Relation != ours {
				t.Errorf("a change of %s passed", c.Relation)
			}
		}
	}
}
