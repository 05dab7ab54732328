package apply

import (
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// What a change keeps of its columns when the origin says which ones its table has.
func TestLessen(t *testing.T) {
	t.Parallel()
	id := func(n int16) uint64 { return wal.ColumnID(70000, n) }
	rel := &wal.Relation{Schema: "public", Name: "t", PrimaryKey: []int{1}, Columns: []wal.Column{{Name: "v", ID: id(2)}, {Name: "id", ID: id(1)}, {Name: "w", ID: id(3)}}}
	keyless := &wal.Relation{Schema: "public", Name: "t", Columns: rel.Columns}
	for name, c := range map[string]struct {
		rel   *wal.Relation
		there map[int16]string
		here  string
		want  string
	}{
		"dropped there and here":                 {rel, map[int16]string{1: "id", 3: "w"}, "id w", "id w"},
		"two of them, another one added":         {rel, map[int16]string{1: "id", 4: "x"}, "id", "id"},
		"dropped here alone":                     {rel, map[int16]string{1: "id", 2: "v", 3: "w"}, "id w", ""},
		"dropped there alone":                    {rel, map[int16]string{1: "id", 3: "w"}, "id v w", ""},
		"renamed there":                          {rel, map[int16]string{1: "id", 2: "u", 3: "w"}, "id w", ""},
		"dropped there and added again":          {rel, map[int16]string{1: "id", 3: "w", 4: "v"}, "id w", ""},
		"the key is dropped":                     {rel, map[int16]string{2: "v", 3: "w"}, "v w", ""},
		"the number belongs to another table":    {rel, map[int16]string{1: "a", 3: "w"}, "id w", ""},
		"a table without a key":                  {keyless, map[int16]string{1: "id", 3: "w"}, "id w", "id w"},
		"a table without a key, nothing is left": {keyless, map[int16]string{}, "", ""},
	} {
		here := map[string]bool{}
		for _, n := range strings.Fields(c.here) {
			here[n] = true
		}
		got := ""
		out, places := lessen(c.rel, c.there, func(n string) bool { return here[n] })
		if out != nil {
			for i, col := range out.Columns {
				if c.rel.Columns[places[i]].ID != col.ID {
					t.Errorf("%s: column %s came from place %d", name, col.Name, places[i])
				}
				if i > 0 {
					got += " "
				}
				got += col.Name
			}
			if c.rel.PrimaryKey != nil && (len(out.PrimaryKey) != 1 || out.Columns[out.PrimaryKey[0]].Name != "id") {
				t.Errorf("%s: the key is %v", name, out.PrimaryKey)
			}
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// An answer tells that a column is gone only where the column was there before the question: one that was added since is in no answer either.
func TestSaidColumns(t *testing.T) {
	t.Parallel()
	var s saidColumns
	answer := func(names map[int16]string) {
		for _, table := range s.take() {
			s.say(table, names)
		}
	}
	three := map[int16]string{1: "id", 2: "v", 3: "w"}
	if s.of(7, 3) != nil {
		t.Error("told before anybody asked")
	}
	s.say(7, three)
	if s.of(7, 3) != nil {
		t.Error("an answer to another question tells of a column that nobody asked for")
	}
	s.ask(7, 3)
	s.ask(7, 2)
	answer(three)
	if len(s.of(7, 3)) != 3 || s.of(7, 4) != nil {
		t.Errorf("told: %v, and of one that was added since: %v", s.of(7, 3), s.of(7, 4))
	}
	s.ask(7, 4)
	if s.take(); s.of(7, 4) != nil {
		t.Error("told before the answer came")
	}
	s.ask(7, 5) // while the question is on its way
	s.say(7, map[int16]string{1: "id", 4: "x"})
	if len(s.of(7, 4)) != 2 || len(s.of(7, 3)) != 2 || s.of(7, 5) != nil {
		t.Errorf("told: %v, %v, and of one that was added since: %v", s.of(7, 4), s.of(7, 3), s.of(7, 5))
	}
	answer(map[int16]string{1: "id", 4: "x", 5: "y"})
	if len(s.of(7, 5)) != 3 {
		t.Errorf("told: %v", s.of(7, 5))
	}
	for table := uint32(100); table < 100+2*maxSaid; table++ {
		s.ask(table, 1)
	}
	if n := len(s.asks); n != maxSaid {
		t.Errorf("%d are asked for at once", n)
	}
	if answer(three); len(s.tables) > maxSaid {
		t.Errorf("%d are kept", len(s.tables))
	}
}

// A change waits for a column that its origin has added since it was asked last: it is asked once more before the change goes in without the column.
func TestAnAnswerOfBeforeTellsNothingOfANewColumn(t *testing.T) {
	t.Parallel()
	b := newBench(t, "create table acct(id int primary key, version bigint, updated_at timestamptz)")
	r := acct()
	for i, num := range []int16{1, 4, 2, 3} {
		r.Columns[i].ID = wal.ColumnID(70000, num)
	}
	s := b.a.cfg.Suspects
	s.SayColumns(70000, map[int16]string{1: "id", 2: "version", 3: "updated_at"})
	b.apply(b.tx(nil, insert(r, row("1", "a", 1, 1))))
	b.retry()
	b.want("select sqlstate from pgwaltz.parked", "42703")
	if got := s.Lacking(); len(got) != 1 || got[0] != 70000 {
		t.Fatalf("asked for: %v", got)
	}
	s.SayColumns(70000, map[int16]string{1: "id", 2: "version", 3: "updated_at", 4: "v"})
	b.retry()
	b.want("select sqlstate from pgwaltz.parked", "42703")
	if got := s.Lacking(); len(got) != 1 {
		t.Fatalf("asked for once more: %v", got)
	}
	s.SayColumns(70000, map[int16]string{1: "id", 2: "version", 3: "updated_at"})
	b.retry()
	b.want("select (select count(*) from pgwaltz.parked), (select count(*) from acct)", "0|1")
}
