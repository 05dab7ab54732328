package copy

import (
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

func TestParentsComeFirst(t *testing.T) {
	t.Parallel()
	name := func(n string) wal.RelationName { return wal.RelationName{Schema: "public", Name: n} }
	parents := func(text string) map[wal.RelationName][]wal.RelationName {
		out := map[wal.RelationName][]wal.RelationName{}
		for _, edge := range strings.Fields(text) {
			child, parent, _ := strings.Cut(edge, ">")
			out[name(child)] = append(out[name(child)], name(parent))
		}
		return out
	}
	for keys, want := range map[string]string{
		"":                "a b c d",
		"a>d":             "b c d a",
		"a>b b>c c>d":     "d c b a",
		"a>a b>d":         "a c d b",
		"a>x x>d":         "b c d a", // x is not to be copied
		"b>a c>a d>b d>c": "a b c d",
	} {
		var jobs []Job
		for _, n := range []string{"a", "b", "c", "d"} {
			jobs = append(jobs, Job{Table: name(n)})
		}
		var got []string
		for _, j := range parentsFirst(jobs, parents(keys)) {
			got = append(got, j.Table.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %v, want %s", keys, got, want)
		}
	}
	circle := parentsFirst([]Job{{Table: name("a")}, {Table: name("b")}}, parents("a>b b>a"))
	if len(circle) != 2 {
		t.Errorf("a circle: %v", circle)
	}
}
