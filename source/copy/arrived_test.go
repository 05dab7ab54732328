package copy

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

func TestOnlyRowsThatCameJustSoAreNotSentBack(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "t", Identity: wal.IdentityFull, Columns: []wal.Column{{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true}}, PrimaryKey: []int{0}}
	row := func(id, v string, generation uint32) wal.Change {
		ch := wal.Change{Op: wal.Insert, Relation: rel, New: wal.Tuple{{Kind: wal.Text, Bytes: []byte(id)}, {Kind: wal.Text, Bytes: []byte(v)}}}
		ch.Stamp.Generation = generation
		return ch
	}
	came := func(a *Arrived, chs ...wal.Change) { a.Note([]*wal.Transaction{{Changes: chs}}) }
	take := func(a *Arrived, ch wal.Change) bool { return a.take(&ch) }
	job := Job{Table: rel.Ref(), State: Running, Requested: time.Unix(100, 0)}

	var a Arrived
	came(&a, row("1", "a", 0)) // nothing is to be copied from here
	a.open([]Job{job})
	if take(&a, row("1", "a", 0)) {
		t.Error("a row that came before the copy was asked for is known")
	}
	came(&a, row("1", "a", 0), row("2", "b", 0), row("12", "", 0))
	a.open([]Job{job})
	for _, other := range []wal.Change{row("1", "b", 0), row("1", "a", 1), row("3", "a", 0), row("1", "2", 0)} {
		if take(&a, other) {
			t.Errorf("row %v counts as one that came", other.New)
		}
	}
	if !take(&a, row("1", "a", 0)) || take(&a, row("1", "a", 0)) {
		t.Error("a row that came is known once")
	}
	again := job
	again.Requested = time.Unix(200, 0)
	a.open([]Job{again})
	if take(&a, row("2", "b", 0)) {
		t.Error("a row that came before the copy was asked for anew is known")
	}
	came(&a, row("2", "b", 0))
	done := again
	done.State = Done
	a.open([]Job{done})
	if take(&a, row("2", "b", 0)) || a.rows != 0 {
		t.Error("rows are kept behind the end of the copy")
	}
}

func TestArrivedIsBounded(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "t", Columns: []wal.Column{{Name: "id", OID: 23, Key: true}}, PrimaryKey: []int{0}}
	var a Arrived
	a.open([]Job{{Table: rel.Ref(), State: Pending}})
	tx := &wal.Transaction{}
	for i := range 1000 {
		tx.Changes = append(tx.Changes, wal.Change{Op: wal.Insert, Relation: rel, New: wal.Tuple{{Kind: wal.Text, Bytes: fmt.Append(nil, i)}}})
	}
	a.rows = maxArrived - 10
	a.Note([]*wal.Transaction{tx})
	if n := len(a.tables[rel.Ref()].rows); n != 10 {
		t.Errorf("%d rows were taken where there was room for 10", n)
	}
}
