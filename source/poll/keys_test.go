package poll

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/adapter/rowkey"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A key is gathered once, both keys of a row that got another one are, and a key that the WAL does not hold is an error.
func TestKeys(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "t", Columns: []wal.Column{{Name: "a"}, {Name: "b"}, {Name: "c"}}, PrimaryKey: []int{1, 2}}
	table := &Table{Rel: rel, key: &rowkey.Key{Columns: []rowkey.Column{{Name: "b"}, {Name: "c"}}}}
	row := func(values ...string) (out wal.Tuple) {
		for _, v := range values {
			out = append(out, wal.Value{Kind: wal.Text, Bytes: []byte(v)})
		}
		return out
	}
	k := table.Keys()
	for _, ch := range []wal.Change{
		{Op: wal.Insert, Relation: rel, New: row("x", "1", "23")},
		{Op: wal.Update, Relation: rel, New: row("y", "1", "23")},
		{Op: wal.Update, Relation: rel, Old: row("", "1", "23"), New: row("y", "12", "3")},
		{Op: wal.Delete, Relation: rel, Old: row("", "12", "3")},
	} {
		if err := k.Add(&ch); err != nil {
			t.Fatal(err)
		}
	}
	if k.Len() != 2 || k.Truncated {
		t.Errorf("gathered %v", k.list)
	}
	if err := k.Add(&wal.Change{Op: wal.Truncate, Relation: rel}); err != nil || !k.Truncated {
		t.Errorf("a truncate: %v", err)
	}
	k.Clear()
	if k.Len() != 0 || k.Truncated {
		t.Error("something is left")
	}
	if err := k.Add(&wal.Change{Op: wal.Delete, Relation: rel, Old: wal.Tuple{{}, {Kind: wal.Text, Bytes: []byte("1")}, {Kind: wal.Null}}}); err == nil {
		t.Error("half a key is taken")
	}
	renamed := &wal.Relation{Schema: "public", Name: "t", Columns: []wal.Column{{Name: "a"}, {Name: "b"}, {Name: "d"}}}
	if err := k.Add(&wal.Change{Op: wal.Delete, Relation: renamed, Old: row("1", "2", "3")}); err == nil {
		t.Error("a key with another column is taken")
	}
}

func TestBarrier(t *testing.T) {
	t.Parallel()
	s := &State{Slot: "a", SlotLSN: 100, Barrier: "7", Seen: Snapshot{XMin: "7"}}
	for _, tt := range []struct {
		slot      string
		confirmed wal.LSN
		barrier   string
		want      bool
	}{{"a", 100, "7", true}, {"a", 99, "7", true}, {"a", 101, "7", false}, {"b", 100, "7", false}, {"a", 100, "8", false}, {"a", 100, "", false}} {
		s.Barrier = tt.barrier
		if got := s.Streams(tt.slot, tt.confirmed); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}
