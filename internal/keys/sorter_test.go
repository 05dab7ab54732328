package keys

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

func entries(n int) []Entry {
	r := rand.New(rand.NewPCG(1, 2))
	var out []Entry
	for range n {
		v := strings.Repeat("ü\n\x00", r.IntN(3)) + fmt.Sprint(r.IntN(n))
		e := Entry{Key: `["` + v + `"]`, State: Row, Values: []string{v, ""}}
		if r.IntN(3) == 0 {
			e = Entry{Key: e.Key, State: Dead, Note: "0/1/-"}
		}
		out = append(out, e)
	}
	return out
}

func same(a, b Entry) bool {
	return a.Key == b.Key && a.State == b.State && a.Note == b.Note && slices.Equal(a.Values, b.Values)
}

// TestSorter: whatever is spilled, all comes back in order.
func TestSorter(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1, 2000, 1 << 30} {
		s := newSorter()
		s.limit = limit
		all := entries(500)
		for _, e := range all {
			if err := s.add(e); err != nil {
				t.Fatal(err)
			}
		}
		if (len(s.runs) > 0) != (limit < 1<<30) {
			t.Errorf("limit %d: %d files", limit, len(s.runs))
		}
		var got []Entry
		if err := s.each(func(e Entry) error { got = append(got, e); return nil }); err != nil {
			t.Fatal(err)
		}
		s.close()
		if !slices.IsSortedFunc(got, order) {
			t.Errorf("limit %d: not in order", limit)
		}
		slices.SortStableFunc(all, order)
		if !slices.EqualFunc(got, all, same) {
			t.Errorf("limit %d: %d entries of %d, or others", limit, len(got), len(all))
		}
	}
}

// TestSpool: differences come back in order and in batches.
func TestSpool(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, batchRows, 2*batchRows + 3} {
		s := newSpool()
		for i := range n {
			if err := s.add(Difference{In: "eu", Entry: Entry{Key: fmt.Sprint(i), Values: []string{"v"}}}); err != nil {
				t.Fatal(err)
			}
		}
		got := 0
		err := s.batches(func(all []Difference) error {
			for _, d := range all {
				if d.Key != fmt.Sprint(got) || d.In != "eu" || len(d.Values) != 1 {
					t.Fatalf("got %+v as number %d", d, got)
				}
				got++
			}
			return nil
		})
		s.close()
		if err != nil || got != n || s.any() != (n > 0) {
			t.Errorf("%d of %d: %v", got, n, err)
		}
	}
}

// list is a Source in memory.
type list struct {
	region string
	tables map[string][]Entry
}

func (l list) Region() string { return l.region }

func (l list) Tables() (out []wal.RelationName) {
	for t := range l.tables {
		out = append(out, wal.RelationName{Schema: "public", Name: t})
	}
	slices.SortFunc(out, byName)
	return out
}

func (l list) List(t wal.RelationName, f func(Entry) error) error {
	for _, e := range l.tables[t.Name] {
		if e.Key == "broken" {
			return errors.New("the disk is gone")
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

func row(key string) Entry { return Entry{Key: key, State: Row, Values: []string{key}} }

func compared(t *testing.T, here, there Source) (string, Result) {
	t.Helper()
	var out []string
	c := Comparison{Here: here, There: there}
	r, err := c.Run(func(d Difference) error {
		out = append(out, fmt.Sprintf("%s %s in %s, other %c%s", d.Table.Name, d.Key, d.In, d.Other, d.Note))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "; "), r
}

func TestComparison(t *testing.T) {
	t.Parallel()
	here := list{"eu", map[string][]Entry{
		"a": {row("1"), {Key: "2", State: Dead, Note: "0/3"}, row("3"), {Key: "4", State: Parked}, {Key: "4", State: Dead}, row("8"), {Key: "8", State: Parked}, row("9"), {Key: "9", State: Dead}},
		"b": {}, "mine": {},
	}}
	there := list{"us", map[string][]Entry{
		"a": {row("0"), row("1"), row("2"), {Key: "3", State: Dead, Note: "1/7"}, row("4"), {Key: "7", State: Dead}, row("8"), row("9")},
		"b": {row("x")}, "theirs": {},
	}}
	want := "a 0 in us, other n; a 2 in us, other t0/3; a 3 in eu, other t1/7; a 4 in us, other s; b x in us, other n"
	got, r := compared(t, here, there)
	if got != want || r.Tables != 2 || r.Rows != 11 || r.Differences != 5 || len(r.Missing) != 2 || r.Missing[wal.RelationName{Schema: "public", Name: "mine"}] != "eu" {
		t.Errorf("got %s\n%+v", got, r)
	}
	if got, r := compared(t, there, there); got != "" || r.Differences != 0 {
		t.Errorf("with itself: %s", got)
	}
	c := Comparison{Here: here, There: list{"us", map[string][]Entry{"a": {row("0"), {Key: "broken"}}}}}
	if _, err := c.Run(func(Difference) error { return nil }); err == nil || !strings.Contains(err.Error(), "disk") {
		t.Errorf("a list that ends with an error: %v", err)
	}
}

// TestFile: a list that is written is read the same, and one that is cut off is refused.
func TestFile(t *testing.T) {
	t.Parallel()
	rows := entries(300)
	slices.SortFunc(rows, order)
	src := list{"us", map[string][]Entry{"a": rows, "B.x": {row("1")}, "empty": nil}}
	var b bytes.Buffer
	if err := Write(&b, "main", src); err != nil {
		t.Fatal(err)
	}
	f, err := Read(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if f.Region() != "us" || f.Cluster != "main" || !slices.Equal(f.Tables(), src.Tables()) {
		t.Errorf("got %s of %s with %v", f.Region(), f.Cluster, f.Tables())
	}
	if got, r := compared(t, f, src); got != "" || r.Tables != 3 {
		t.Errorf("got %s, %+v", got, r)
	}
	text := b.String()
	for name, bad := range map[string]string{
		"nothing": "", "cut off": text[:len(text)-8], "no end": strings.TrimSuffix(text, "[\"end\"]\n"), "another file": "hello\n", "another version": strings.Replace(text, format, "x", 1),
	} {
		if _, err := Read(strings.NewReader(bad)); !errors.Is(err, ErrFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	lines := strings.SplitAfter(text, "\n")
	at := slices.Index(lines, "[\"table\",\"public.a\"]\n")
	lines[at+1], lines[at+9] = lines[at+9], lines[at+1]
	f, err = Read(strings.NewReader(strings.Join(lines, "")))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.List(wal.RelationName{Schema: "public", Name: "a"}, func(Entry) error { return nil }); !errors.Is(err, ErrFile) {
		t.Errorf("not sorted: %v", err)
	}
}
