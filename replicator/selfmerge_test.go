package replicator

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
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

// What is left out in front of a giant transaction is said to be merged before it begins.
func TestSelfMergeSaysWhatLiesBeforeAGiantTransaction(t *testing.T) {
	t.Parallel()
	m := NewSelfMerge(apply.PolicyFunc(func(wal.RelationName) apply.TablePolicy { return apply.TablePolicy{} }), NewLocalWAL(nil))
	packet := func(end wal.LSN, part uint32, more bool) subscribe.Delivery {
		return subscribe.Delivery{
			Header:     wire.Header{Kind: wire.Data},
			Packet:     &wire.Packet{Transactions: []*wal.Transaction{{CommitLSN: end - 10, EndLSN: end, Part: part, More: more}}},
			Checkpoint: checkpoint.Checkpoint{EndLSN: end},
		}
	}
	var got []string
	pass := func(d subscribe.Delivery) {
		err := m.Filter(t.Context(), d, func(_ context.Context, d subscribe.Delivery) error {
			got = append(got, fmt.Sprintf("%d:%d", d.Checkpoint.EndLSN, len(d.Packet.Transactions)))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	pass(packet(100, 0, false))
	pass(packet(200, 0, false))
	if len(got) != 0 {
		t.Fatalf("let through: %v, want nothing", got)
	}
	if len(m.Kept()) != 1 {
		t.Error("nobody is told that a position is held back")
	}
	pass(packet(300, 0, true))
	pass(packet(300, 1, false))
	if want := []string{"200:0", "300:1", "300:1"}; !slices.Equal(got, want) {
		t.Errorf("let through (position:transactions): %v, want %v", got, want)
	}
	if d := m.Idle(2); d != nil {
		t.Errorf("idle while one of three is not applied: %+v", d)
	}
	if d := m.Idle(3); d != nil {
		t.Errorf("idle with nothing left out: %+v", d)
	}
	pass(packet(400, 0, false))
	<-m.Kept()
	if d := m.Idle(2); d != nil || len(m.Kept()) != 1 {
		t.Errorf("idle too early: %+v, and %d tokens to come again", d, len(m.Kept()))
	}
	if d := m.Idle(3); d == nil || d.Checkpoint.EndLSN != 400 {
		t.Errorf("idle with a position left out: %+v", d)
	}
}

// A truncate goes through: own rows that wait are gone with it. Of a table without a key none waits.
func TestSelfMergeSeesTruncates(t *testing.T) {
	t.Parallel()
	m := NewSelfMerge(apply.PolicyFunc(func(wal.RelationName) apply.TablePolicy { return apply.TablePolicy{} }), NewLocalWAL(nil))
	for identity, want := range map[wal.Identity]int{wal.IdentityDefault: 1, wal.IdentityNothing: 0} {
		rel := &wal.Relation{Schema: "public", Name: "t", Identity: identity, Columns: []wal.Column{{Name: "id", OID: 23, Key: identity == wal.IdentityDefault}}}
		if got := m.pick(&wal.Transaction{CommitLSN: 100, Changes: []wal.Change{{Op: wal.Truncate, Relation: rel}}}); len(got) != want {
			t.Errorf("identity %v: %d changes go through, want %d", identity, len(got), want)
		}
	}
}
