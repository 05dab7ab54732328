package audit_test

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/wal"
)

func redactor(t *testing.T, patterns ...string) *audit.Redactor {
	t.Helper()
	var parsed []config.ColumnPattern
	for _, p := range patterns {
		c, err := config.ParseColumnPattern(p)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, c)
	}
	return audit.NewRedactor(parsed)
}

func TestRedactorMasksImages(t *testing.T) {
	t.Parallel()
	users := wal.RelationName{Schema: "public", Name: "users"}
	for name, c := range map[string]struct {
		patterns []string
		in, want string
	}{
		"nothing listed":    {nil, `{"a":1}`, `{"a":1}`},
		"other table":       {[]string{"public.other.password"}, `{"password":"x"}`, `{"password":"x"}`},
		"one column":        {[]string{"public.users.password"}, `{"id":1,"password":"secret"}`, `{"id":1,"password":"[redacted]"}`},
		"wildcard":          {[]string{"*.*.p*"}, `{"id":1,"password":null,"pin":4}`, `{"id":1,"password":"[redacted]","pin":"[redacted]"}`},
		"column not there":  {[]string{"public.users.password"}, `{"id":1}`, `{"id":1}`},
		"nested stays":      {[]string{"public.users.password"}, `{"a":{"password":1}}`, `{"a":{"password":1}}`},
		"not an object":     {[]string{"public.users.password"}, `["secret"]`, `"[redacted]"`},
		"quotes in a name":  {[]string{`public.users."a""b"`}, `{"a\"b":1}`, `{"a\"b":"[redacted]"}`},
		"key column listed": {[]string{"public.users.id"}, `{"id":1}`, `{"id":"[redacted]"}`},
	} {
		if got := string(redactor(t, c.patterns...).Image(users, []byte(c.in))); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	var none *audit.Redactor
	if none.Hides(users, "password") || none.Image(users, nil) != nil {
		t.Error("a nil redactor hides something")
	}
}

func TestImagerMasksAndLeavesOutUnchanged(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "users", PrimaryKey: []int{0},
		Columns: []wal.Column{{Name: "id", OID: 20}, {Name: "password", OID: 25}, {Name: "big", OID: 25}}}
	tuple := wal.Tuple{{Kind: wal.Text, Bytes: []byte("7")}, {Kind: wal.Text, Bytes: []byte("secret")}, {Kind: wal.Unchanged}}
	m := audit.NewImager(redactor(t, "public.users.password"))
	if got := string(m.Row(nil, rel, tuple)); got != `{"id":7,"password":"[redacted]"}` {
		t.Errorf("row %s", got)
	}
	if got := string(m.Key(nil, rel, tuple, rel.KeyColumns())); got != `{"id":7}` {
		t.Errorf("key %s", got)
	}
	if m.Row(nil, rel, nil) != nil {
		t.Error("a nil tuple has an image")
	}
}
