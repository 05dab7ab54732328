package counterpart

import (
	"fmt"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// What an origin calls its columns now is stored with the next transaction, and again where one that was under way had an
// older word of it.
func TestSee(t *testing.T) {
	t.Parallel()
	var m Map
	rel := func(names ...string) *wal.Relation {
		r := &wal.Relation{}
		for i, n := range names {
			if n != "" {
				r.Columns = append(r.Columns, wal.Column{Name: n, ID: wal.ColumnID(9, int16(i+1))})
			}
		}
		return r
	}
	want := func(n int, names string) {
		t.Helper()
		got := map[int16]string{}
		for _, c := range m.Of(9) {
			got[wal.NumOf(c.Theirs)] = c.Name
		}
		if fmt.Sprint(got) != names || len(m.Unstored()) != n {
			t.Errorf("names are %v, %d to be stored; want %s and %d", got, len(m.Unstored()), names, n)
		}
	}
	m.See(rel("id", "a", "b"))
	want(0, "map[]") // matched by nobody yet
	m.Settle([]Column{{wal.ColumnID(9, 1), 5, 1, "id"}, {wal.ColumnID(9, 2), 5, 3, "a"}, {wal.ColumnID(9, 3), 5, 2, "b"}})
	want(0, "map[1:id 2:a 3:b]")
	if !m.Stands(5) || m.Stands(9) {
		t.Error("the tables here are mistaken")
	}
	m.See(rel("id", "b", "a"))
	want(2, "map[1:id 2:b 3:a]")
	under := m.Unstored()
	m.See(rel("id", "", "a"))
	want(2, "map[1:id 2: 3:a]")
	m.Settle(under)
	want(1, "map[1:id 2: 3:a]")
	m.See(&wal.Relation{Columns: []wal.Column{{Name: "id"}}})
	want(1, "map[1:id 2: 3:a]")
	m.Settle(m.Unstored())
	want(0, "map[1:id 2: 3:a]")
}

// What a region makes anew, or makes up, does not fill the memory: of the tables that stand for one here, the newest are known.
func TestBounded(t *testing.T) {
	t.Parallel()
	var m Map
	for table := uint32(1); table <= 1000; table++ {
		m.Settle([]Column{{wal.ColumnID(table, 1), 5, 1, "id"}, {wal.ColumnID(table, 2), 5, 2, "a"}})
		m.See(&wal.Relation{Columns: []wal.Column{{Name: "id", ID: wal.ColumnID(table, 1)}}})
	}
	if n := len(m.tables); n != maxTables || len(m.here[5]) != n || len(m.unstored) != n || len(m.seen) != n {
		t.Errorf("%d tables are known, %d of the one here, %d to be stored, %d seen", n, len(m.here[5]), len(m.unstored), len(m.seen))
	}
	if len(m.Of(1000)) != 2 || len(m.Of(1)) != 0 {
		t.Error("the newest is not known, or the oldest is")
	}
	m.Settle([]Column{{wal.ColumnID(1, 1), 5, 1, "id"}}) // it comes again, restored
	if len(m.Of(1)) != 1 || len(m.here[5]) != maxTables {
		t.Error("what was put last is not known")
	}
	// A column passes to another table here: the one before has none.
	m.replace([]Column{{wal.ColumnID(7, 1), 5, 1, "id"}, {wal.ColumnID(7, 2), 5, 2, "a"}})
	m.Settle([]Column{{wal.ColumnID(7, 1), 6, 1, "id"}})
	if !m.Stands(5) || !m.Stands(6) {
		t.Error("the columns are in two tables")
	}
	m.Settle([]Column{{wal.ColumnID(7, 2), 6, 2, "a"}})
	if m.Stands(5) || !m.Stands(6) {
		t.Error("no column is in the first table any more")
	}
}

// Each commit asks what is to be stored.
func BenchmarkUnstored(b *testing.B) {
	var m Map
	var list []Column
	for t := range uint32(10000) {
		for n := range int16(20) {
			list = append(list, Column{wal.ColumnID(t+1, n+1), t + 1, n + 1, "a"})
		}
	}
	m.Settle(list)
	for b.Loop() {
		if len(m.Unstored()) > 0 {
			b.Fatal("all is stored")
		}
	}
}

// Two tables of the origin that stand for two here are told apart whatever they are called; a table that stands for nothing yet, or for one
// that another one has replaced, is taken by its name.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	var m Map
	m.Settle([]Column{{wal.ColumnID(1, 1), 11, 1, "id"}, {wal.ColumnID(1, 2), 11, 2, "v"}, {wal.ColumnID(2, 1), 12, 1, "id"}})
	for _, x := range []struct{ here, theirs, want uint32 }{
		{11, 1, 0}, {12, 2, 0}, // as ever
		{12, 1, 11}, {11, 2, 12}, // swapped
		{11, 3, 0}, // made anew there
		{13, 1, 0}, // made anew here
	} {
		if got := m.Elsewhere(x.here, x.theirs); got != x.want {
			t.Errorf("table %d there and %d here: belongs into %d, want %d", x.theirs, x.here, got, x.want)
		}
	}
	m.Settle([]Column{{wal.ColumnID(2, 1), 13, 1, "id"}}) // 13 has taken the name of 12
	if m.Elsewhere(12, 1) != 0 || m.Elsewhere(13, 1) != 11 {
		t.Error("12 stands for nothing any more, and 13 for the table 2")
	}
	if _, known := m.Called(1); known {
		t.Error("nobody has said what the table 1 is called")
	}
	m.See(&wal.Relation{Schema: "s", Name: "t", Columns: []wal.Column{{Name: "id", ID: wal.ColumnID(1, 1)}}})
	if n, known := m.Called(1); !known || n != (wal.RelationName{Schema: "s", Name: "t"}) {
		t.Error("the table 1 is not called as it was seen")
	}
}

// A table whose name another one has taken here is told again when the origin calls its own so: by then both names have gone one further.
func TestFormer(t *testing.T) {
	t.Parallel()
	var m Map
	m.replace([]Column{Former(2, 11), {wal.ColumnID(2, 1), 21, 1, "id"}, {wal.ColumnID(3, 1), 11, 1, "id"}, {wal.ColumnID(4, 1), 14, 1, "id"}})
	if got := m.Elsewhere(11, 2); got != 0 {
		t.Errorf("what 2 stood for before has the name that it has there: it belongs into %d", got)
	}
	if got := m.Elsewhere(14, 2); got != 21 {
		t.Errorf("any other one: it belongs into %d, want 21", got)
	}
	if len(m.Of(2)) != 1 || len(m.Unstored()) != 0 || m.any(2, 11) {
		t.Error("it is taken for a column")
	}
	m.drop(2, 21)
	if len(m.former) != 0 {
		t.Error("it is remembered of a table of which nothing is known any more")
	}
}

// Names are passed on day by day. What a table of the origin stood for is kept where it was the first to stand for it, because the names were passed on here
// first. Where they were at the origin, the new table stood for that by its name alone: it must not be told so again a day later, when the origin is first once more.
func TestLeaves(t *testing.T) {
	t.Parallel()
	var m Map
	m.replace(nil)
	comes := func(theirs, here uint32) (elsewhere uint32) {
		if elsewhere = m.Elsewhere(here, theirs); elsewhere != 0 {
			return elsewhere
		}
		m.Settle(append([]Column{{wal.ColumnID(theirs, 1), here, 1, "id"}}, m.Leaves(theirs, here)...))
		return 0
	}
	step := func(what string, theirs, here, want uint32) {
		t.Helper()
		if got := comes(theirs, here); got != want {
			t.Errorf("%s: %d comes by the name of %d, and belongs into %d, want %d", what, theirs, here, got, want)
		}
	}
	step("the table", 1, 11, 0)
	step("the one of the day before", 5, 10, 0)
	step("the origin is first: a new one", 2, 11, 0)
	step("the old one waits", 1, 10, 11)
	step("it was passed on here, too", 2, 12, 0)
	step("the old one", 1, 11, 0)
	step("a day later the origin is first once more", 2, 11, 12)
	step("and a new one", 3, 12, 0)
	step("it was passed on here, too", 2, 12, 0)
	step("it was passed on here, too", 3, 13, 0)
	step("on the third day this region is first", 3, 14, 0)
	step("the older one", 2, 13, 0)
	step("the origin follows", 3, 13, 0)
}

// Names are passed on twice in a row, at the origin first each time, and nothing comes of the new table between that has its right place here.
func TestLeavesTwice(t *testing.T) {
	t.Parallel()
	var m Map
	m.replace(nil)
	step := func(what string, theirs, here, want uint32) {
		t.Helper()
		got := m.Elsewhere(here, theirs)
		if got == 0 {
			m.Settle(append([]Column{{wal.ColumnID(theirs, 1), here, 1, "id"}}, m.Leaves(theirs, here)...))
		}
		if got != want {
			t.Errorf("%s: %d comes by the name of %d, and belongs into %d, want %d", what, theirs, here, got, want)
		}
	}
	step("the table", 1, 11, 0)
	step("the one before", 5, 10, 0)
	step("the origin is first: a new one", 2, 11, 0)
	step("the table waits", 1, 10, 11)
	step("passed on here, too", 1, 11, 0)
	step("the origin again: a newer one", 3, 12, 0)
	step("the new one goes by its name", 2, 11, 0)
	step("the table waits", 1, 10, 11)
	step("passed on here, too", 1, 11, 0)
	step("the newer one has the place of the new one still", 2, 12, 11)
	step("until it has its own", 3, 13, 0)
	step("the new one", 2, 12, 0)
	step("a third time: the newer one waits", 3, 12, 13)
	step("the new one waits", 2, 11, 12)
	if len(m.former) != 0 {
		t.Errorf("kept: %v", m.former)
	}
}

// The names are passed on here first, and rows of both tables come by the names before the origin follows: in whatever order they come, it goes on behind that.
func TestLeavesHereFirst(t *testing.T) {
	t.Parallel()
	for _, first := range []uint32{1, 2} {
		var m Map
		m.replace(nil)
		comes := func(theirs, here uint32) {
			t.Helper()
			if got := m.Elsewhere(here, theirs); got != 0 && got != 10 { // 10 is gone
				t.Errorf("with %d first: %d comes by the name of %d, and belongs into %d", first, theirs, here, got)
			}
			m.Settle(append([]Column{{wal.ColumnID(theirs, 1), here, 1, "id"}}, m.Leaves(theirs, here)...))
		}
		comes(1, 10)
		comes(2, 11)
		if first == 2 {
			comes(2, 12)
			comes(1, 11)
		} else {
			comes(1, 11)
			comes(2, 12)
		}
		comes(2, 11)
		comes(3, 12)
	}
}

// What the origin says of its columns when it is asked is taken like a newer description.
func TestSay(t *testing.T) {
	t.Parallel()
	var m Map
	m.replace([]Column{{wal.ColumnID(7, 1), 5, 1, "id"}, {wal.ColumnID(7, 2), 5, 2, "a"}, {wal.ColumnID(7, 3), 5, 3, "b"}})
	if list := m.Theirs(5); len(list) != 1 || list[0] != 7 || len(m.Theirs(6)) != 0 {
		t.Errorf("5 stands for %v", list)
	}
	m.Say(7, map[int16]string{1: "id", 2: "b"})
	m.Say(8, map[int16]string{1: "id"}) // nothing is known of it
	got := map[int16]string{}
	for _, c := range m.Of(7) {
		got[wal.NumOf(c.Theirs)] = c.Name
	}
	if fmt.Sprint(got) != "map[1:id 2:b 3:]" || len(m.Unstored()) != 2 || len(m.Of(8)) != 0 {
		t.Errorf("names are %v, %d to be stored", got, len(m.Unstored()))
	}
}

// TestStrays: the origin has passed its names on first: 1 is the former t and 2 the new one. What was written to 2 went into 11 by the name, where 1 belongs. As soon
// as 11 has given the name away here, and also when 2 was written again since, 2 is listed with the table that it went into.
func TestStrays(t *testing.T) {
	t.Parallel()
	m := &Map{}
	see := func(table uint32, name string) {
		m.See(&wal.Relation{Schema: "public", Name: name, Columns: []wal.Column{{Name: "id", ID: wal.ColumnID(table, 1)}}})
	}
	stands := func(table, here uint32) {
		m.Settle([]Column{{Theirs: wal.ColumnID(table, 1), Table: here, Num: 1, Name: "id"}})
	}
	see(1, "t")
	stands(1, 11)
	if got := m.Strays(); got != nil {
		t.Errorf("one table strays: %v", got)
	}
	see(2, "t")
	stands(2, 11)
	see(1, "t_old")
	old, now := Stray{1, 11, wal.RelationName{Schema: "public", Name: "t_old"}}, Stray{2, 11, wal.RelationName{Schema: "public", Name: "t"}}
	list := func() map[Stray]bool {
		out := map[Stray]bool{}
		for _, s := range m.Strays() {
			out[s] = true
		}
		return out
	}
	if got := list(); len(got) != 2 || !got[old] || !got[now] {
		t.Errorf("before: %v", got)
	}
	stands(2, 21)
	if got := list(); len(got) != 1 || !got[now] {
		t.Errorf("behind: %v", got)
	}
	m.Forget()
	if got := m.Strays(); got != nil {
		t.Errorf("forgotten: %v", got)
	}
}

// TestReturned: the names were passed on here first, so what came by the name went into 21 until the origin had followed.
func TestReturned(t *testing.T) {
	t.Parallel()
	m := &Map{}
	stands := func(here uint32) {
		m.Settle(append([]Column{{wal.ColumnID(1, 1), here, 1, "id"}}, m.Leaves(1, here)...))
	}
	stands(11)
	stands(21)
	if got := m.Returned(); len(got) != 0 {
		t.Errorf("away: %v", got)
	}
	stands(11)
	if got := m.Returned(); got[1] != 21 || len(got) != 1 {
		t.Errorf("back: %v", got)
	}
}
