package pglogical

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
)

func tableOf(columns ...string) *pg.Table {
	t := &pg.Table{Schema: "public", Name: "item", PrimaryKey: []string{"id", "k"}}
	for _, c := range columns {
		t.Columns = append(t.Columns, pg.Column{Name: c})
	}
	return t
}

// As PostgreSQL 15 with pglogical 2.4.2 wrote them, in its three forms.
const (
	inText = "2026-11-23 12:21:37.227 UTC [19232] LOG:  CONFLICT: remote UPDATE on relation public.item (local index item_pkey). Resolution: apply_remote.\n" +
		"2026-11-23 12:21:37.227 UTC [19232] DETAIL:  existing local tuple {id[int4]:1 k[text]:a b n[int4]:1 body[text]:new\n\tline \"quoted\" \\ back ézzzzzzzz... at[timestamptz]:2026-11-23 12:21:34.952967+00} xid=734,origin=0,timestamp=2026-11-23 12:21:37.103832+00; remote tuple {id[int4]:1 k[text]:a b n[int4]:2 body[text]:(null) at[timestamptz]:2026-11-23 12:21:34.952967+00} in xact origin=7,timestamp=2026-11-23 12:21:37.225836+00,commit_lsn=0/15C18A8\n" +
		"2026-11-23 12:21:37.227 UTC [19232] CONTEXT:  apply UPDATE from remote relation public.item in commit before 0/15C18A8\n"
	inCSV = `2026-11-23 12:21:37.227 UTC,,"postgres",19232,,6b042fce.4b20,2,"",2026-11-23 12:21:34 UTC,6/12,736,LOG,23000,"CONFLICT: remote UPDATE on relation public.item (local index item_pkey). Resolution: apply_remote.","existing local tuple {id[int4]:1 k[text]:a b n[int4]:1 body[text]:new
line ""quoted"" \ back ézzzzzzzz... at[timestamptz]:2026-11-23 12:21:34.952967+00} xid=734,origin=0,timestamp=2026-11-23 12:21:37.103832+00; remote tuple {id[int4]:1 k[text]:a b n[int4]:2 body[text]:(null) at[timestamptz]:2026-11-23 12:21:34.952967+00} in xact origin=7,timestamp=2026-11-23 12:21:37.225836+00,commit_lsn=0/15C18A8",,,,"apply UPDATE from remote relation public.item"
`
	inJSON = `{"dbname":"postgres","error_severity":"LOG","message":"CONFLICT: remote UPDATE on relation public.item (local index item_pkey). Resolution: apply_remote.","detail":"existing local tuple {id[int4]:1 k[text]:a b n[int4]:1 body[text]:new\nline \"quoted\" \\ back ézzzzzzzz... at[timestamptz]:2026-11-23 12:21:34.952967+00} xid=734,origin=0,timestamp=2026-11-23 12:21:37.103832+00; remote tuple {id[int4]:1 k[text]:a b n[int4]:2 body[text]:(null) at[timestamptz]:2026-11-23 12:21:34.952967+00} in xact origin=7,timestamp=2026-11-23 12:21:37.225836+00,commit_lsn=0/15C18A8","context":"apply UPDATE"}
`
)

// read is what a file of that name and content tells.
func read(t *testing.T, name, content string) []Conflict {
	t.Helper()
	l := &ServerLog{Path: filepath.Join(t.TempDir(), name)}
	if err := os.WriteFile(l.Path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	texts, _, err := l.Next(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []Conflict
	for _, text := range texts {
		if c, ok := Parse(text); ok {
			out = append(out, c)
		}
	}
	return out
}

func TestEachFormOfTheLogTellsTheSame(t *testing.T) {
	t.Parallel()
	var first audit.Record
	for _, f := range []struct{ name, content string }{{"server.log", inText}, {"server.csv", inCSV}, {"server.json", inJSON}} {
		list := read(t, f.name, "something else\n"+f.content+"more\n")
		if len(list) != 1 {
			t.Fatalf("%s: %+v", f.name, list)
		}
		r := list[0].Record("us", "eu", tableOf("id", "k", "n", "body", "at"), nil)
		if first.Type == "" {
			first = r
		}
		if r.EventID != first.EventID {
			t.Errorf("%s: another event", f.name)
		}
		if string(r.Key) != `{"id":1,"k":"a b"}` || r.Type != "update_origin_differs" || r.Verdict != "apply" || r.Winner != "eu" || r.Loser != "us" || r.CommitLSN.String() != "0/15C18A8" ||
			string(r.RemoteRow) != `{"at":"2026-11-23 12:21:34.952967+00","body":null,"id":1,"k":"a b","n":2}` ||
			!strings.Contains(string(r.LocalRow), `"body":"new\nline \"quoted\" \\ back ézzzzzzzz..."`) || list[0].Origin != 7 {
			t.Errorf("%s: %+v %s %s %s", f.name, list[0], r.Key, r.LocalRow, r.RemoteRow)
		}
		if at := time.Date(2026, 11, 23, 12, 21, 37, 225836000, time.UTC); !r.CommitTime.Time().Equal(at) || list[0].Since(at.Add(time.Second)) || !list[0].Since(at) {
			t.Errorf("%s: committed %s", f.name, r.CommitTime.Time())
		}
	}
}

func TestKindsOfConflicts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, kind, winner, relation string }{
		{`INSERT on relation public."My.T a""b" (local index My.T a"b_pkey). Resolution: keep_local.` + "\nDETAIL:  existing local tuple {a[int4]:1} xid=1,origin=0,timestamp=x; remote tuple {a[int4]:1} in xact origin=1,timestamp=2026-11-23 12:21:37+00,commit_lsn=0/1\n", "insert_exists", "us", `My.T a"b`},
		{"UPDATE on relation public.item replica identity index item_pkey (tuple not found). Resolution: skip.\nDETAIL:  remote tuple {id[int4]:1} in xact origin=1,timestamp=x,commit_lsn=0/1\n", "update_missing", "us", "item"},
		{"DELETE on relation public.item replica identity index item_pkey (tuple not found). Resolution: skip.\nDETAIL:  remote tuple {id[int4]:1} in xact origin=1,timestamp=x,commit_lsn=0/1\n", "delete_missing", "us", "item"},
	} {
		got, ok := Parse(c.text)
		if r := got.Record("us", "eu", nil, nil); !ok || r.Type != c.kind || r.Winner != c.winner || r.Relation.Schema != "public" || r.Relation.Name != c.relation || r.Key != nil || r.RemoteRow != nil {
			t.Errorf("%q: %t %+v", c.text, ok, r)
		}
	}
	for _, text := range []string{"", "INSERT on relation item", "UPDATE on relation public.item (local index x). Resolution: skip. commit_lsn=0/1\n"} {
		if c, ok := Parse(text); ok {
			t.Errorf("%q is a conflict: %+v", text, c)
		}
	}
}

// bodies selects the columns of that name.
type bodies struct{}

func (bodies) Match(names ...string) bool { return names[2] == "body" }

// Where a value looks like the columns behind it, no row is told: what is hidden might stand in it.
func TestRowThatMayBeReadInTwoWays(t *testing.T) {
	t.Parallel()
	redact := audit.NewRedactor([]bodies{{}})
	c, _ := Parse("UPDATE on relation public.item replica identity index item_pkey (tuple not found). Resolution: skip.\nremote tuple {id[int4]:1 k[text]:x body[text]:hidden} in xact origin=1,timestamp=x,commit_lsn=0/1\n")
	if r := c.Record("us", "eu", tableOf("id", "k", "body"), redact); string(r.RemoteRow) != `{"body":"[redacted]","id":1,"k":"x"}` {
		t.Errorf("%s", r.RemoteRow)
	}
	c.Remote = "id[int4]:1 k[text]:x body[text]:y body[text]:hidden"
	if r := c.Record("us", "eu", tableOf("id", "k", "body"), redact); r.RemoteRow != nil || r.Key != nil {
		t.Errorf("%s %s", r.Key, r.RemoteRow)
	}
}

// What was read is read once, a part of a line waits for its end, and a file that begins anew is read from its beginning.
func TestLogThatGrows(t *testing.T) {
	t.Parallel()
	l := &ServerLog{Path: filepath.Join(t.TempDir(), "server.log")}
	step := func(name, content string, want int) {
		t.Helper()
		if err := os.WriteFile(l.Path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		texts, _, err := l.Next(t.Context(), nil)
		if err != nil || len(texts) != want {
			t.Errorf("%s: %d texts, want %d (%v)", name, len(texts), want, err)
		}
	}
	half := len(inText) / 2
	step("half a line", inText[:half], 0)
	step("its end", inText, 1)
	step("nothing", inText, 0)
	step("another one behind it", inText+inText, 2)
	step("another file", inText[:half], 0)
	if err := os.Remove(l.Path); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Next(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("%v", err)
	}
	if got := unescape(`a\\b\303\251\000`); got != "a\\bé\x00" {
		t.Errorf("%q", got)
	}
}
