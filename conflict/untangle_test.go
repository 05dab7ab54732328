package conflict

import (
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

func TestUntangle(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "d", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Deferrable: true,
		Columns: []wal.Column{{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true}}}
	row := func(s string) wal.Tuple {
		if s == "" {
			return nil
		}
		id, v, _ := strings.Cut(s, "=")
		return wal.Tuple{{Kind: wal.Text, Bytes: []byte(id)}, {Kind: wal.Text, Bytes: []byte(v)}}
	}
	// A change is written old>new.
	parse := func(s string, rel *wal.Relation) (out []wal.Change) {
		for _, f := range strings.Fields(s) {
			o, n, _ := strings.Cut(f, ">")
			ch := wal.Change{Op: wal.Update, Relation: rel, Old: row(o), New: row(n), OldFull: o != ""}
			if o == "" {
				ch.Op = wal.Insert
			} else if n == "" {
				ch.Op = wal.Delete
			}
			if del, ins, ok := SplitKeyChange(ch); ok {
				out = append(out, del, ins)
			} else {
				out = append(out, ch)
			}
		}
		return out
	}
	print := func(changes []wal.Change) string {
		one := func(t wal.Tuple) string {
			if t == nil {
				return ""
			}
			return string(t[0].Bytes) + "=" + string(t[1].Bytes)
		}
		var out []string
		for i := range changes {
			out = append(out, one(changes[i].Old)+">"+one(changes[i].New))
		}
		return strings.Join(out, " ")
	}
	for name, c := range map[string]struct{ in, want string }{
		"a swap":                      {"1=a>2=a 2=b>1=b", "1=a> 2=b> >2=a >1=b"},
		"a ring of three":             {"1=a>2=a 2=b>3=b 3=c>1=c", "1=a> 2=b> >2=a 3=c> >3=b >1=c"},
		"a chain, then a delete":      {"1=a>2=a 2=b>", "1=a> 2=b> >2=a"},
		"an update of the old row":    {">1=n 1=o>1=p 1=p>", "1=o>1=p 1=p> >1=n"},
		"the new row moves on":        {"1=a>2=b 2=b>3=c", "1=a> >3=c"},
		"insert, update, delete":      {">1=n 1=n>1=m 1=m>", ""},
		"equal rows, whichever it is": {"1=a>2=a 2=a>1=a", "1=a> >1=a"},
		"equal rows move on by one":   {"1=a>2=a 2=a>3=a 3=a>4=a", "1=a> >4=a"},
		"equal rows, one is changed":  {"1=a>2=a 2=a>2=b 2=a>3=a", "1=a> 2=a> >2=a 2=a>2=b >3=a"},
		"equal rows, one goes":        {"1=a>2=a 2=a>2=b 2=b>", "1=a>"},
	} {
		if got := print(Untangle(parse(c.in, rel))); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
	plain := *rel
	plain.Deferrable = false
	changes := parse("1=a>2=a 2=b>1=b", &plain)
	if got := Untangle(changes); print(got) != print(changes) {
		t.Errorf("a key that is not deferrable was untangled: %s", print(got))
	}
}
