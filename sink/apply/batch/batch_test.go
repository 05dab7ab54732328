package batch

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

var table = &wal.Relation{Schema: "public", Name: "t", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Columns: []wal.Column{
	{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true},
}}

func row(id, v string) wal.Tuple {
	return wal.Tuple{{Kind: wal.Text, Bytes: []byte(id)}, {Kind: wal.Text, Bytes: []byte(v)}}
}

// at is a stamp of generation 0.
func at(version int64) wal.Stamp { return wal.Stamp{Version: version, UpdatedAt: wal.Micros(version)} }

func based(version int64) wal.Base { return wal.Base{Known: true, Stamp: at(version)} }

func insert(id, v string, s wal.Stamp) wal.Change {
	return wal.Change{Op: wal.Insert, Relation: table, New: row(id, v), Stamp: s}
}

func update(id, v string, s wal.Stamp, b wal.Base) wal.Change {
	return wal.Change{Op: wal.Update, Relation: table, New: row(id, v), Stamp: s, Base: b}
}

func remove(id string, s wal.Stamp, b wal.Base) wal.Change {
	return wal.Change{Op: wal.Delete, Relation: table, Old: row(id, ""), OldFull: true, Stamp: s, Base: b}
}

// unknown is an update of which the WAL does not say what it left alone.
func unknown(id string, s wal.Stamp) wal.Change {
	c := update(id, "", s, wal.Base{})
	c.New[1] = wal.Value{Kind: wal.Unchanged}
	return c
}

// runs prints the runs of a batch of one transaction for each change, group by group.
func runs(kind conflict.EventKind, changes ...wal.Change) string {
	b := New()
	for i := range changes {
		b.Add(&wal.Transaction{Changes: changes[i : i+1]}, kind)
	}
	var out []string
	for _, g := range b.Groups {
		for i := range g.Runs {
			r := &g.Runs[i]
			out = append(out, fmt.Sprintf("%s %s %s %s=%s over %d", g.Kind, r.Op, conflict.StampText(r.Stamp)[:3], r.Image[0].Bytes, r.Image[1].Bytes, r.Base.Stamp.Version))
		}
	}
	return strings.Join(out, "; ")
}

// What builds on what makes one run; a row of another region in between parts it.
func TestRuns(t *testing.T) {
	t.Parallel()
	digest := func(v string, s wal.Stamp) wal.Base {
		content, _ := conflict.Content(table, row("1", v))
		return wal.Base{Known: true, Stamp: s, Digest: conflict.Digest(content), HasDigest: true}
	}
	reborn := wal.Stamp{Generation: 1, Version: 1, UpdatedAt: 1}
	part := unknown("1", at(2)) // of which the WAL does not have everything
	part.Base = digest("a", at(1))
	for _, c := range []struct {
		name    string
		changes []wal.Change
		want    string
	}{
		{"a chain", []wal.Change{update("1", "a", at(2), based(1)), update("1", "b", at(3), based(2)), update("1", "c", at(4), based(3))},
			"live update 0/4 1=c over 1"},
		{"keys apart", []wal.Change{update("1", "a", at(2), based(1)), update("2", "b", at(2), based(1)), update("1", "c", at(3), based(2))},
			"live update 0/3 1=c over 1; live update 0/2 2=b over 1"},
		{"born and changed", []wal.Change{insert("1", "a", at(1)), update("1", "b", at(2), based(1))}, "live insert 0/2 1=b over 0"},
		{"deleted", []wal.Change{update("1", "a", at(2), based(1)), remove("1", at(3), based(2))}, "live delete 0/3 1= over 1"},
		{"deleted and born again", []wal.Change{remove("1", at(2), based(1)), insert("1", "n", reborn)}, "live update 1/1 1=n over 1"},
		{"the base is not known", []wal.Change{update("1", "a", at(2), wal.Base{}), update("1", "b", at(3), wal.Base{})}, "live update 0/3 1=b over 0"},
		{"a value that nobody knows, over another region's perhaps", []wal.Change{update("1", "a", at(2), wal.Base{}), unknown("1", at(3))},
			"live update 0/2 1=a over 0; live update 0/3 1= over 0"},
		{"another region came between", []wal.Change{update("1", "a", at(2), based(1)), update("1", "c", at(4), based(3))},
			"live update 0/2 1=a over 1; live update 0/4 1=c over 3"},
		{"another region deleted between", []wal.Change{update("1", "a", at(2), based(1)), insert("1", "n", reborn)},
			"live update 0/2 1=a over 1; live insert 1/1 1=n over 0"},
		{"another region inserted between", []wal.Change{remove("1", at(2), based(1)), update("1", "c", wal.Stamp{Generation: 1, Version: 4}, wal.Base{Known: true, Stamp: reborn})},
			"live delete 0/2 1= over 1; live update 1/4 1=c over 1"},
		{"it does not rise", []wal.Change{update("1", "a", at(3), based(2)), update("1", "b", at(3), based(3))},
			"live update 0/3 1=a over 2; live update 0/3 1=b over 3"},
		{"only the contents rise", []wal.Change{update("1", "z", at(1), digest("a", at(1))), update("1", "b", at(2), based(1))},
			"live update 0/1 1=z over 1; live update 0/2 1=b over 1"},
		{"a digest, and an image that is not whole", []wal.Change{part, update("1", "b", at(3), digest("x", at(2)))}, "live update 0/3 1=b over 1"},
		{"the same, and another region came between", []wal.Change{part, update("1", "c", at(4), digest("x", at(3)))},
			"live update 0/2 1= over 1; live update 0/4 1=c over 3"},
		{"without stamps, a chain", []wal.Change{update("1", "a", at(2), digest("0", wal.Stamp{})), update("1", "b", at(3), digest("a", wal.Stamp{}))},
			"live update 0/3 1=b over 0"},
		{"without stamps, another region came between", []wal.Change{update("1", "a", at(2), digest("0", wal.Stamp{})), update("1", "b", at(4), digest("x", wal.Stamp{}))},
			"live update 0/2 1=a over 0; live update 0/4 1=b over 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := runs(conflict.Live, c.changes...); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestRunsByTheOrderOfTheTable: a run ends where the stamp does not rise by the order that the table has.
func TestRunsByTheOrderOfTheTable(t *testing.T) {
	t.Parallel()
	stamp := func(version int64, us wal.Micros) wal.Stamp { return wal.Stamp{Version: version, UpdatedAt: us} }
	edited := []wal.Change{update("1", "a", stamp(2, 20), wal.Base{}), update("1", "b", stamp(3, 10), wal.Base{})}
	later := []wal.Change{update("1", "a", stamp(3, 10), wal.Base{}), update("1", "b", stamp(2, 20), wal.Base{})}
	for _, c := range []struct {
		order   conflict.Order
		changes []wal.Change
		want    int
	}{{conflict.VersionFirst, edited, 1}, {conflict.TimeFirst, edited, 2}, {conflict.VersionFirst, later, 2}, {conflict.TimeFirst, later, 1}} {
		b := New()
		b.Policy = func(wal.RelationName) conflict.Policy { return conflict.Policy{Order: c.order} }
		for i := range c.changes {
			b.Add(&wal.Transaction{Changes: c.changes[i : i+1]}, conflict.Live)
		}
		n := 0
		for _, g := range b.Groups {
			n += len(g.Runs)
		}
		if n != c.want {
			t.Errorf("by %s: %s and %s make %d runs, want %d", c.order, conflict.StampText(c.changes[0].Stamp), conflict.StampText(c.changes[1].Stamp), n, c.want)
		}
	}
}

// In one transaction nobody comes between: the value is that of the change before.
func TestRunsFillWithinATransaction(t *testing.T) {
	t.Parallel()
	b := New()
	b.Add(&wal.Transaction{Changes: []wal.Change{update("1", "a", at(2), wal.Base{}), unknown("1", at(3))}}, conflict.Live)
	if len(b.Groups) != 1 || len(b.Groups[0].Runs) != 1 || string(b.Groups[0].Runs[0].Image[1].Bytes) != "a" {
		t.Errorf("got %+v", b.Groups)
	}
}

// A repair is merged as a repair in whatever packet it comes, and never continues a write;
// notices leave no trace.
func TestRepairsAndNoticesInABatch(t *testing.T) {
	t.Parallel()
	repair := update("1", "r", at(5), wal.Base{})
	repair.Repair = true
	if got, want := runs(conflict.Live, update("1", "a", at(2), based(1)), repair, update("1", "b", at(6), based(5))),
		"live update 0/2 1=a over 1; repair update 0/5 1=r over 0; live update 0/6 1=b over 5"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	b := New()
	b.Add(&wal.Transaction{Notices: []wal.Notice{{Relation: table, Yours: wal.Entry{Known: true, Alive: true, Row: row("8", "x")}}}}, conflict.Live)
	if len(b.Groups) != 0 || b.Rows != 0 {
		t.Errorf("a notice made %d groups", len(b.Groups))
	}
}

// TestOwnRunsThatAreFollowed: of own changes of one key that do not rise, the self-merge knows that
// only the last one is in the table.
func TestOwnRunsThatAreFollowed(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "t", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Columns: []wal.Column{
		{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true},
	}}
	update := func(id, v string, gen uint32) wal.Change {
		return wal.Change{Op: wal.Update, Relation: rel, Stamp: wal.Stamp{Generation: gen, Version: 1},
			New: wal.Tuple{{Kind: wal.Text, Bytes: []byte(id)}, {Kind: wal.Text, Bytes: []byte(v)}}}
	}
	tx := &wal.Transaction{Changes: []wal.Change{update("1", "a", 1), update("2", "a", 1), update("1", "b", 1), update("2", "b", 1), update("1", "c", 1)}}
	for _, kind := range []conflict.EventKind{conflict.Self, conflict.Live} {
		b := New()
		b.Add(tx, kind)
		followed, last := 0, map[string]string{}
		for _, g := range b.Groups {
			for i := range g.Runs {
				r := &g.Runs[i]
				if r.Followed {
					followed++
				} else {
					last[string(r.Image[0].Bytes)] = string(r.Image[1].Bytes)
				}
			}
		}
		switch {
		case kind == conflict.Live && followed != 0:
			t.Errorf("%d runs of another region count as followed", followed)
		case kind == conflict.Self && (followed != 3 || last["1"] != "c" || last["2"] != "b"):
			t.Errorf("%d runs are followed, the last ones are %v", followed, last)
		}
	}
}

// TestOwnRunsInPieces: where own changes are applied one by one, each piece knows whether a later one
// of its key is in another piece.
func TestOwnRunsInPieces(t *testing.T) {
	t.Parallel()
	first := &wal.Transaction{CommitLSN: 10, Changes: []wal.Change{update("1", "a", at(2), based(1)), update("2", "a", at(2), based(1)), update("1", "b", at(3), based(2))}}
	second := &wal.Transaction{CommitLSN: 20, Changes: []wal.Change{update("2", "c", at(3), based(2))}}
	lasts := LastsOf([]*wal.Transaction{first, second})
	piece := func(tx *wal.Transaction, places ...int) (out string) {
		one := *tx
		one.Changes = nil
		for _, i := range places {
			one.Changes = append(one.Changes, tx.Changes[i])
		}
		b := New()
		b.Lasts = lasts
		b.AddPicked(&one, conflict.Self, places)
		for _, g := range b.Groups {
			for i := range g.Runs {
				out += fmt.Sprintf("%s=%s %t ", g.Runs[i].Image[0].Bytes, g.Runs[i].Image[1].Bytes, g.Runs[i].Followed)
			}
		}
		return strings.TrimSpace(out)
	}
	for want, got := range map[string]string{
		"1=a true":           piece(first, 0),
		"1=b false":          piece(first, 2),
		"1=b false 2=a true": piece(first, 0, 1, 2),
		"2=c false":          piece(second, 0),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestOwnRunsInFrontOfATruncate: of own changes the table holds nothing that was written in front of a truncate; a row that is written behind
// it is there, also where both are one run. What another region truncates stays here.
func TestOwnRunsInFrontOfATruncate(t *testing.T) {
	t.Parallel()
	cut := wal.Change{Op: wal.Truncate, Relation: table}
	again := insert("2", "again", at(3))
	tx := &wal.Transaction{CommitLSN: 10, Changes: []wal.Change{insert("1", "a", at(2)), insert("2", "a", at(2)), remove("3", at(2), based(1)), cut, again, insert("4", "a", at(2))}}
	for kind, want := range map[conflict.EventKind]string{conflict.Self: "1 true 2 false 3 false 4 false ", conflict.Live: "1 false 2 false 3 false 4 false "} {
		b := New()
		b.Add(tx, kind)
		last := map[string]bool{}
		for _, g := range b.Groups {
			for i := range g.Runs {
				last[string(g.Runs[i].Key[0].Bytes)] = g.Runs[i].Followed
			}
		}
		got := ""
		for _, k := range slices.Sorted(maps.Keys(last)) {
			got += fmt.Sprint(k, " ", last[k], " ")
		}
		if got != want {
			t.Errorf("kind %d: followed are %s, want %s", kind, got, want)
		}
	}
}

// TestPiecesInFrontOfATruncate: who applies own changes piece by piece knows which of them stand in front of a truncate, also where the table was renamed in
// between, and another one was truncated.
func TestPiecesInFrontOfATruncate(t *testing.T) {
	t.Parallel()
	named := func(name string, oid uint32) *wal.Relation {
		rel := *table
		rel.Name, rel.Columns = name, slices.Clone(table.Columns)
		for i := range rel.Columns {
			rel.Columns[i].ID = wal.ColumnID(oid, int16(i+1))
		}
		return &rel
	}
	of := func(rel *wal.Relation, ch wal.Change) wal.Change { ch.Relation = rel; return ch }
	cut := func(rel *wal.Relation) wal.Change { return wal.Change{Op: wal.Truncate, Relation: rel} }
	first, renamed, other, unknown := named("t", 7), named("u", 7), named("t", 8), *table
	unknown.Name = "u"
	tx := &wal.Transaction{CommitLSN: 10, Changes: []wal.Change{of(first, insert("1", "a", at(2))), of(first, insert("2", "a", at(2))), of(first, remove("3", at(2), based(1))),
		of(other, insert("4", "a", at(2))), cut(renamed), of(renamed, insert("2", "b", at(3))), cut(named("v", 9)), of(&unknown, insert("5", "a", at(2))), cut(renamed)}}
	want := "1 true, 2 true, 3 false, 4 false, 2 true, 5 true"
	for _, whole := range []bool{true, false} {
		b := New()
		b.Lasts = LastsOf([]*wal.Transaction{tx})
		var got []string
		note := func() {
			for _, g := range b.Groups {
				for i := range g.Runs {
					got = append(got, fmt.Sprintf("%s %v", g.Runs[i].Key[0].Bytes, g.Runs[i].Followed))
				}
			}
		}
		for i := range tx.Changes {
			if whole {
				b.Add(tx, conflict.Self)
				break
			}
			b.Reset()
			one := *tx
			one.Changes = tx.Changes[i : i+1]
			b.AddPicked(&one, conflict.Self, []int{i})
			note()
		}
		if whole {
			note()
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("as a whole %v: followed are %s; want %s", whole, s, want)
		}
	}
}

// BenchmarkAdd gathers transactions as they come in a backlog.
func BenchmarkAdd(b *testing.B) {
	rel := &wal.Relation{Schema: "public", Name: "t", Identity: wal.IdentityDefault, PrimaryKey: []int{0},
		Columns: []wal.Column{{Name: "id", OID: wal.OIDInt8, Key: true}, {Name: "v", OID: wal.OIDText}}}
	for _, rows := range []int{1, 4000} {
		var txs []*wal.Transaction
		for n := range max(1, 4000/rows) {
			tx := &wal.Transaction{CommitLSN: wal.LSN(n)}
			for i := range rows {
				tx.Changes = append(tx.Changes, wal.Change{Op: wal.Update, Relation: rel, Stamp: wal.Stamp{Version: 2},
					New: wal.Tuple{{Kind: wal.Text, Bytes: fmt.Append(nil, n*rows+i)}, {Kind: wal.Text, Bytes: []byte("value")}}})
			}
			txs = append(txs, tx)
		}
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			x := New()
			b.ReportAllocs()
			for b.Loop() {
				x.Reset()
				for _, tx := range txs {
					x.Expect(tx)
				}
				for _, tx := range txs {
					x.Add(tx, conflict.Live)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/4000, "ns/row")
		})
	}
}
