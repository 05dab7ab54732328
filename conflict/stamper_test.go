package conflict

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// account is a table with both stamp columns.
func account(identity wal.Identity) *wal.Relation {
	full := identity == wal.IdentityFull
	return &wal.Relation{Schema: "public", Name: "acct", Identity: identity, PrimaryKey: []int{0}, Columns: []wal.Column{
		{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: full},
		{Name: "version", OID: 20, Key: full}, {Name: "updated_at", OID: 1184, Key: full},
	}}
}

var nothing = wal.Value{Kind: wal.Null}

func acct(v, version, at string) wal.Tuple {
	t := wal.Tuple{textOf("1"), textOf(v), nothing, nothing}
	if version != "" {
		t[2] = textOf(version)
	}
	if at != "" {
		t[3] = textOf(at)
	}
	return t
}

func TestStampChange(t *testing.T) {
	t.Parallel()
	const noon, later = "1970-01-01 00:00:10+00", "1970-01-01 00:00:20+00"
	full, key := account(wal.IdentityFull), account(wal.IdentityDefault)
	keyOnly := wal.Tuple{textOf("1"), nothing, nothing, nothing}
	stamp := func(g uint32, v int64, at wal.Micros) wal.Stamp {
		return wal.Stamp{Generation: g, Version: v, UpdatedAt: at}
	}
	both := Columns{2, 3}
	for name, c := range map[string]struct {
		cols   Columns
		ch     wal.Change
		gen    uint32
		want   wal.Stamp
		base   bool
		lifted bool
		self   bool
	}{
		"insert":                      {both, wal.Change{Op: wal.Insert, Relation: full, New: acct("a", "1", noon)}, 0, stamp(0, 1, 10e6), false, false, false},
		"insert over a tombstone":     {both, wal.Change{Op: wal.Insert, Relation: full, New: acct("a", "1", noon)}, 5, stamp(5, 1, 10e6), false, false, true},
		"update":                      {both, wal.Change{Op: wal.Update, Relation: full, Old: acct("a", "1", noon), OldFull: true, New: acct("b", "2", later)}, 0, stamp(0, 2, 20e6), true, false, false},
		"update of a later life":      {both, wal.Change{Op: wal.Update, Relation: full, Old: acct("a", "1", noon), OldFull: true, New: acct("b", "2", later)}, 1, stamp(1, 2, 20e6), true, false, true},
		"version set back":            {both, wal.Change{Op: wal.Update, Relation: full, Old: acct("a", "5", noon), OldFull: true, New: acct("b", "1", noon)}, 0, stamp(1, 1, 10e6), true, true, true},
		"same stamp, higher content":  {both, wal.Change{Op: wal.Update, Relation: full, Old: acct("0", "1", noon), OldFull: true, New: acct("A", "1", noon)}, 0, stamp(1, 1, 10e6), true, true, true},
		"same stamp, lower content":   {both, wal.Change{Op: wal.Update, Relation: full, Old: acct("b", "1", noon), OldFull: true, New: acct("a", "1", noon)}, 0, stamp(1, 1, 10e6), true, true, true},
		"nothing changed":             {both, wal.Change{Op: wal.Update, Relation: full, Old: acct("b", "1", noon), OldFull: true, New: acct("b", "1", noon)}, 0, stamp(0, 1, 10e6), true, false, false},
		"base unknown":                {both, wal.Change{Op: wal.Update, Relation: key, New: acct("b", "1", noon)}, 0, stamp(0, 1, 10e6), false, false, false},
		"delete":                      {both, wal.Change{Op: wal.Delete, Relation: full, Old: acct("b", "1", noon), OldFull: true}, 0, stamp(0, 2, 100e6), true, false, true},
		"delete of a row ahead":       {both, wal.Change{Op: wal.Delete, Relation: full, Old: acct("b", "1", "1970-01-01 00:05:00+00"), OldFull: true}, 0, stamp(0, 2, 300e6+1), true, false, true},
		"delete of NULLs":             {both, wal.Change{Op: wal.Delete, Relation: full, Old: acct("b", "", ""), OldFull: true}, 0, stamp(0, wal.NullVersion, 100e6), true, false, true},
		"delete of the highest row":   {both, wal.Change{Op: wal.Delete, Relation: full, Old: acct("b", "9223372036854775807", "infinity"), OldFull: true}, 0, stamp(1, wal.MaxVersion, wal.MaxMicros), true, true, true},
		"delete that knows its key":   {both, wal.Change{Op: wal.Delete, Relation: key, Old: keyOnly}, 0, stamp(0, wal.MaxVersion, 100e6), false, false, true},
		"stampless update":            {Columns{-1, -1}, wal.Change{Op: wal.Update, Relation: full, Old: acct("b", "1", noon), OldFull: true, New: acct("a", "1", noon)}, 0, stamp(0, wal.NullVersion, 100e6), true, false, true},
		"stampless delete by its key": {Columns{-1, -1}, wal.Change{Op: wal.Delete, Relation: key, Old: keyOnly}, 0, stamp(0, wal.NullVersion, 100e6), false, false, true},
	} {
		got, err := StampChange(Policy{}, c.cols, &c.ch, 100e6, c.gen)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.ch.Stamp != c.want || c.ch.Base.Known != c.base || got.Lifted != c.lifted || got.SelfMerge != c.self {
			t.Errorf("%s: stamp %s base %v %+v; want %s, %v, %v, %v", name, StampText(c.ch.Stamp), c.ch.Base.Known, got, StampText(c.want), c.base, c.lifted, c.self)
		}
		// P10: above what was overwritten, unless it is the same row.
		if c.base && !c.cols.Stampless() && (Policy{}).Compare(c.ch.Stamp, c.ch.Base.Stamp) <= 0 && name != "nothing changed" {
			t.Errorf("%s: the stamp %s is not above its base", name, StampText(c.ch.Stamp))
		}
	}
}

// TestIdentityIndexKnowsTheBase: the WAL names the old identity only when it changed.
func TestIdentityIndexKnowsTheBase(t *testing.T) {
	t.Parallel()
	rel := account(wal.IdentityIndex)
	rel.Columns[2].Key, rel.Columns[3].Key = true, true
	ch := wal.Change{Op: wal.Update, Relation: rel, New: acct("b", "1", "1970-01-01 00:00:10+00")}
	got, err := StampChange(Policy{}, Columns{2, 3}, &ch, 0, 0)
	if err != nil || !ch.Base.Known || !got.Lifted || ch.Base.Stamp.Version != 1 {
		t.Errorf("%+v %+v %v", ch.Base, got, err)
	}
}

// In a later generation a base is known by its digest: what this region's WAL says of the row's generation may be another one's,
// which has the same version and time.
func TestBaseOfALaterGeneration(t *testing.T) {
	t.Parallel()
	rel, both := account(wal.IdentityFull), Columns{2, 3}
	for _, op := range []wal.Op{wal.Update, wal.Delete} {
		for gen := range uint32(2) {
			old := acct("mine", "1", "1970-01-01 00:00:10+00")
			ch := wal.Change{Op: op, Relation: rel, Old: old, OldFull: true}
			if op == wal.Update {
				ch.New = acct("new", "2", "1970-01-01 00:00:20+00")
			}
			if _, err := StampChange(Policy{}, both, &ch, 100e6, gen); err != nil {
				t.Fatal(err)
			}
			e := Event{Op: op, Stamp: ch.Stamp, Base: ch.Base, Complete: true}
			if op == wal.Update {
				e.Content, _ = Content(rel, ch.New)
			}
			same, _ := Content(rel, old)
			twin, _ := Content(rel, acct("twin", "1", "1970-01-01 00:00:10+00"))
			for content, want := range map[string]Reason{string(same): FastForward, string(twin): ByVersion} {
				l := Side{Known: true, Alive: true, Stamp: ch.Base.Stamp, Content: []byte(content)}
				if gen == 0 {
					want = FastForward // the first generation is as it is, and stamps identify its rows
				}
				if d := Resolve(Policy{}, e, l); d.Verdict != Apply || d.Reason != want || d.Conflict() != (want != FastForward) {
					t.Errorf("%s in generation %d over %q: %+v", op, gen, content, d)
				}
			}
		}
	}
}

// TestReuse is P26: five lives of one key, each above everything before it.
func TestReuse(t *testing.T) {
	t.Parallel()
	rel := account(wal.IdentityFull)
	var gen uint32
	var last wal.Stamp
	for life := range uint32(5) {
		row := acct("a", "0", "1970-01-01 00:00:10+00")
		for _, ch := range []wal.Change{
			{Op: wal.Insert, Relation: rel, New: row},
			{Op: wal.Delete, Relation: rel, Old: row, OldFull: true},
		} {
			st, err := StampChange(Policy{}, Columns{2, 3}, &ch, 100e6, gen)
			if err != nil {
				t.Fatal(err)
			}
			if ch.Stamp.Generation != life || (life > 0 && (Policy{}).Compare(ch.Stamp, last) <= 0) {
				t.Errorf("life %d: %s of %s after %s", life, ch.Op, StampText(ch.Stamp), StampText(last))
			}
			last = ch.Stamp
			gen = st.Next
		}
	}
}

func TestSplitKeyChange(t *testing.T) {
	t.Parallel()
	rel := account(wal.IdentityFull)
	old := acct("big", "1", "")
	moved := wal.Tuple{textOf("2"), {Kind: wal.Unchanged}, textOf("2"), nothing}
	del, ins, ok := SplitKeyChange(wal.Change{Op: wal.Update, Relation: rel, Old: old, OldFull: true, New: moved})
	if !ok || del.Op != wal.Delete || ins.Op != wal.Insert || !ins.New.Complete() || string(ins.New[1].Bytes) != "big" || ins.Old != nil || del.New != nil {
		t.Errorf("%v %+v %+v", ok, del, ins)
	}
	if moved[1].Kind != wal.Unchanged {
		t.Error("the caller's tuple was changed")
	}
	for name, ch := range map[string]wal.Change{
		"same key":  {Op: wal.Update, Relation: rel, Old: old, OldFull: true, New: acct("x", "2", "")},
		"no old":    {Op: wal.Update, Relation: rel, New: moved},
		"an insert": {Op: wal.Insert, Relation: rel, New: moved},
	} {
		if _, _, ok := SplitKeyChange(ch); ok {
			t.Errorf("%s was split", name)
		}
	}
	if _, _, ok := SplitKeyChange(wal.Change{Op: wal.Update, Relation: account(wal.IdentityDefault), Old: wal.Tuple{textOf("1"), nothing, nothing, nothing}, New: moved}); !ok {
		t.Error("a key-only old image was not split")
	}
}

// A region writes a row twice with one stamp; the second write is lifted. Another region has the first one alone, and the key in the same generation
// by a change of its own. What it writes over the first is not taken for a successor of the second.
func TestABaseOfALaterLifeIsNoOtherRowOfItsStamp(t *testing.T) {
	t.Parallel()
	const noon, later = "1970-01-01 00:00:10+00", "1970-01-01 00:00:20+00"
	rel, both := account(wal.IdentityFull), Columns{2, 3}
	second := wal.Change{Op: wal.Update, Relation: rel, Old: acct("first", "1", noon), OldFull: true, New: acct("second", "1", noon)}
	for _, ch := range []wal.Change{
		{Op: wal.Update, Relation: rel, Old: acct("first", "1", noon), OldFull: true, New: acct("other", "2", later)},
		{Op: wal.Delete, Relation: rel, Old: acct("first", "1", noon), OldFull: true},
	} {
		for _, c := range []struct {
			change *wal.Change
			gen    uint32
		}{{&second, 0}, {&ch, 1}} {
			if _, err := StampChange(Policy{}, both, c.change, 100e6, c.gen); err != nil {
				t.Fatal(err)
			}
		}
		if ch.Base.Stamp != second.Stamp {
			t.Fatalf("the base is %s, and the other row %s", StampText(ch.Base.Stamp), StampText(second.Stamp))
		}
		for v, conflicts := range map[string]bool{"first": false, "second": true} {
			content, _ := Content(rel, acct(v, "1", noon))
			written, _ := Content(rel, ch.New)
			d := Resolve(Policy{}, Event{Op: ch.Op, Kind: Live, Stamp: ch.Stamp, Base: ch.Base, Content: written, Complete: true, CommitTime: 100e6}, Side{Known: true, Alive: true, Stamp: second.Stamp, Content: content})
			if d.Verdict != Apply || d.Conflict() != conflicts {
				t.Errorf("%s over the %s row: %+v", ch.Op, v, d)
			}
		}
	}
}
