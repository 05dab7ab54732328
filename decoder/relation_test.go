package decoder

import (
	"errors"
	"reflect"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

func TestRelationDescription(t *testing.T) {
	t.Parallel()
	tx := feedOne(t, New(Config{}), begin(7, 100),
		typ(20001, "zz", "mood"), typ(20002, "", "int4"),
		relation(16400, "", "odd", wal.IdentityIndex, col{"id", 20, true}, col{"m", 20001, false}, col{"n", 20002, false}),
		insert(16400, "1", "x", "2"), commit(100, 120))
	want := &wal.Relation{Schema: "pg_catalog", Name: "odd", OID: 16400, Identity: wal.IdentityIndex, Columns: []wal.Column{
		{Name: "id", OID: 20, TypeMod: -1, Key: true},
		{Name: "m", OID: 20001, Type: "zz.mood", TypeMod: -1},
		{Name: "n", OID: 20002, Type: "pg_catalog.int4", TypeMod: -1},
	}}
	if got := tx.Changes[0].Relation; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// A description that differs makes a new Relation and leaves the old one alone; one that only
// repeats what is known does not.
func TestRelationChanges(t *testing.T) {
	t.Parallel()
	ins := insert(16400, "1", "x", nil)
	tests := []struct {
		name  string
		again []byte
		row   []byte
		same  bool
	}{
		{"repeated", users('d'), ins, true},
		{"identity", users('f'), ins, false},
		{"column added", relation(16400, "public", "users", 'd', col{"id", 20, true}, col{"name", 25, false}, col{"bio", 25, false}, col{"n", 23, false}),
			insert(16400, "1", "x", nil, "2"), false},
		{"column renamed", relation(16400, "public", "users", 'd', col{"id", 20, true}, col{"title", 25, false}, col{"bio", 25, false}), ins, false},
		{"type changed", relation(16400, "public", "users", 'd', col{"id", 23, true}, col{"name", 25, false}, col{"bio", 25, false}), ins, false},
		{"table renamed", relation(16400, "public", "people", 'd', col{"id", 20, true}, col{"name", 25, false}, col{"bio", 25, false}), ins, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tx := feedOne(t, New(Config{}), begin(7, 100), users('d'), ins, tt.again, tt.row, commit(100, 120))
			first, second := tx.Changes[0].Relation, tx.Changes[1].Relation
			if (first == second) != tt.same {
				t.Errorf("same relation: %t", first == second)
			}
			if first.Name != "users" || len(first.Columns) != 3 || first.Columns[1].Name != "name" || first.Identity != 'd' {
				t.Errorf("the first relation became %+v", first)
			}
		})
	}
}

// What repeats a description within a transaction that has changed rows of the table may stand for values that were converted. It is another one
// where old images are whole.
func TestRelationRepeatedWithinATransaction(t *testing.T) {
	t.Parallel()
	ins, d := insert(16400, "1", "x", nil), New(Config{})
	first := feedOne(t, d, begin(7, 100), users('f'), ins, users('f'), ins, ins, commit(100, 120)).Changes
	if first[0].Relation == first[1].Relation || first[1].Relation != first[2].Relation || !equal(first[0].Relation, first[1].Relation) {
		t.Error("the second description is not another one")
	}
	next := feedOne(t, d, begin(8, 200), users('f'), ins, commit(200, 220)).Changes
	if next[0].Relation != first[2].Relation {
		t.Error("between transactions a repeated description is another one")
	}
}

func TestPrimaryKey(t *testing.T) {
	t.Parallel()
	pair := func(id wal.Identity, aKey, bKey, nKey bool) []byte {
		return relation(16400, "s", "pair", id, col{"a", 23, aKey}, col{"b", 23, bKey}, col{"n", 23, nKey})
	}
	tests := []struct {
		name   string
		rel    []byte
		answer []int
		want   []int
		asked  int
	}{
		{"full", pair('f', true, true, true), []int{1, 0}, []int{1, 0}, 1},
		{"full without a key", pair('f', true, true, true), nil, nil, 1},
		{"default in key order", pair('d', true, true, false), []int{1, 0}, []int{1, 0}, 1},
		{"default, the catalog says more", pair('d', true, true, false), []int{0, 1, 2}, nil, 1},
		{"default, the catalog says less", pair('d', true, true, false), []int{0}, nil, 1},
		{"default, the catalog says another", pair('d', true, true, false), []int{0, 2}, nil, 1},
		{"default, twice the same", pair('d', true, true, false), []int{0, 0}, nil, 1},
		{"out of range", pair('f', true, true, true), []int{3}, nil, 1},
		{"negative", pair('f', true, true, true), []int{-1}, nil, 1},
		{"empty answer", pair('f', true, true, true), []int{}, nil, 1},
		{"index", pair('i', true, true, false), []int{1, 0}, []int{1, 0}, 1},
		{"index, the catalog says another", pair('i', false, true, false), []int{0}, nil, 1},
		{"nothing", pair('n', false, false, false), []int{0}, nil, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			d := New(Config{Key: func(rel *wal.Relation) error {
				asked++
				if rel.Schema != "s" || rel.Name != "pair" || len(rel.Columns) != 3 {
					t.Errorf("asked for %s with %d columns", rel, len(rel.Columns))
				}
				rel.PrimaryKey = tt.answer
				return nil
			}})
			tx := feedOne(t, d, begin(7, 100), tt.rel, insert(16400, "1", "2", "3"), insert(16400, "4", "5", "6"), commit(100, 120))
			if got := tx.Changes[0].Relation.PrimaryKey; !reflect.DeepEqual(got, tt.want) {
				t.Errorf("primary key %v, want %v", got, tt.want)
			}
			if asked != tt.asked {
				t.Errorf("asked %d times, want %d", asked, tt.asked)
			}
		})
	}
}

func TestUnknownPrimaryKeyIsAnError(t *testing.T) {
	t.Parallel()
	lost := errors.New("connection refused")
	d := New(Config{Key: func(*wal.Relation) error { return lost }})
	var err error
	for _, m := range [][]byte{begin(7, 100), relation(16400, "s", "pair", 'f', col{"a", 23, true})} {
		if _, err = d.Feed(100, m); err != nil {
			break
		}
	}
	if !errors.Is(err, lost) {
		t.Errorf("got %v: a key that could not be looked up must not count as none", err)
	}
}

// Where what the columns are is not known, it is asked for again by the first transaction that commits far enough, and not
// before.
func TestNumberedLater(t *testing.T) {
	t.Parallel()
	var asked []wal.LSN
	d := New(Config{Number: func(rel *wal.Relation, table uint32, at wal.LSN) (wal.LSN, error) {
		asked = append(asked, at)
		if at < 300 {
			return 300, nil
		}
		for i := range rel.Columns {
			rel.Columns[i].ID = wal.ColumnID(table, int16(i+1))
		}
		return 0, nil
	}})
	ins := insert(16400, "1", "x", nil)
	one := feedOne(t, d, begin(7, 100), users('d'), ins, commit(100, 120)).Changes[0].Relation
	two := feedOne(t, d, begin(8, 200), ins, commit(200, 220)).Changes[0].Relation
	three := feedOne(t, d, begin(9, 300), ins, commit(300, 320)).Changes[0].Relation
	four := feedOne(t, d, begin(10, 400), ins, commit(400, 420)).Changes[0].Relation
	if one != two || one.Numbered() || !three.Numbered() || three != four || one == three || len(asked) != 2 {
		t.Errorf("asked at %v; numbered: %t %t %t", asked, one.Numbered(), two.Numbered(), three.Numbered())
	}
}
