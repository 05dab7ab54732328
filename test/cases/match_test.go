package cases

import (
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

func row(kind, id, winner, reason string) harness.Conflict {
	return harness.Conflict{Type: kind, Schema: "public", Table: "acct", Key: map[string]string{"id": id}, Winner: winner, Reason: reason}
}

func TestMatchAudit(t *testing.T) {
	t.Parallel()
	one := []harness.Conflict{row("update_origin_differs", "1", "b", "content")}
	for name, tc := range map[string]struct {
		lines []string
		rows  []harness.Conflict
		want  string // part of the error, empty for none
	}{
		"alias":              {[]string{"both: update_concurrent acct id=1 winner=b"}, one, ""},
		"tie reason":         {[]string{"both: update_concurrent acct id=1 reason=tie_origin"}, one, ""},
		"wrong winner":       {[]string{"A: update_concurrent acct id=1 winner=a"}, one, "no row for"},
		"rule covers keys":   {[]string{"A: update_concurrent acct id=1 winner=b reason=tie_origin"}, append(one, row("update_origin_differs", "2", "b", "content")), ""},
		"missing":            {[]string{"A: update_concurrent acct id=2"}, one, "no row for"},
		"unexpected":         {[]string{"A: update_concurrent acct id=1"}, append(one, row("insert_exists", "7", "a", "")), "1 rows that no line expects"},
		"twice":              {[]string{"A: update_concurrent acct id=1"}, append(one, one[0]), "no line expects"},
		"none":               {[]string{"none"}, one, "no line expects"},
		"none and none":      {[]string{"both: none"}, nil, ""},
		"skew is a note":     {[]string{"none"}, []harness.Conflict{row("clock_skew", "1", "", "")}, ""},
		"skew by star":       {[]string{"both: * acct id=1"}, []harness.Conflict{row("clock_skew", "1", "", "")}, ""},
		"star wants a row":   {[]string{"both: * acct id=1"}, nil, "no row for"},
		"range":              {[]string{"A: insert_exists acct id=1..3"}, []harness.Conflict{row("insert_exists", "1", "a", ""), row("insert_exists", "2", "a", ""), row("insert_exists", "3", "a", "")}, ""},
		"short range":        {[]string{"A: insert_exists acct id=1..3"}, []harness.Conflict{row("insert_exists", "1", "a", ""), row("insert_exists", "2", "a", "")}, "key map[id:3]"},
		"many":               {[]string{"A: insert_exists acct *"}, []harness.Conflict{row("insert_exists", "1", "a", ""), row("insert_exists", "2", "a", "")}, ""},
		"seen from B":        {[]string{"A: update_deleted acct id=1"}, []harness.Conflict{row("delete_origin_differs", "1", "a", "")}, ""},
		"glob":               {[]string{"A: unique_* acct id=1"}, []harness.Conflict{row("unique_claim_lost", "1", "a", "")}, ""},
		"any":                {[]string{"A: *"}, one, ""},
		"schema in the line": {[]string{"A: update_concurrent public.acct id=1"}, one, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var want []expectation
			for _, l := range tc.lines {
				m, err := parseAudit(l)
				if err != nil {
					t.Fatal(err)
				}
				if e, ok := m["A"]; ok {
					want = append(want, e)
				}
			}
			err := matchAudit("A", want, tc.rows)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestCondition(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text, got string
		want      bool
	}{
		"equal":     {"5", "5", true},
		"number":    {">= 5", "10", true},
		"size":      {"<= 512MiB", "536870912", true},
		"position":  {">= 0/FF", "0/1000", true},
		"position2": {"< 0/FF", "1/0", false},
		"text":      {"= gap", "gap", true},
		"not":       {"!= gap", "gap", false},
		"pattern":   {"~ ^a+$", "aaa", true},
		"no match":  {"!~ b", "aaa", true},
		"contains":  {"contains full, holding", "stream full, holding at", true},
		"lacks":     {"lacks x", "abc", true},
		"sum":       {"= 10+5-1", "14", true},
		"quoted":    {`= ""`, "", true},
		"tail":      {"~ lost within 20s", "slot lost", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := parseCondition(tc.text)
			if err != nil {
				t.Fatal(err)
			}
			if c.holds(tc.got) != tc.want {
				t.Fatalf("%+v holds for %q: want %v", c, tc.got, tc.want)
			}
		})
	}
	c, err := parseCondition(" >= 3 within 30s hold 2s")
	if err != nil || c.within != 30*time.Second || c.hold != 2*time.Second || c.value != "3" {
		t.Fatalf("got %+v, %v", c, err)
	}
}

func TestSilence(t *testing.T) {
	t.Parallel()
	if got := silence("set session_replication_role=replica; delete from t;"); !strings.Contains(got, "case_silent") {
		t.Fatal("a silent section has no origin")
	}
	for _, sql := range []string{"delete from t;", "set session_replication_role=replica; insert into t values (1);"} {
		if silence(sql) != sql {
			t.Fatalf("%q was changed", sql)
		}
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int{"64kbit": 8000, "100kB": 100_000, "8bit": 1, "off": 0, "5": 5} {
		if got, err := rate(in); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", in, got, err, want)
		}
	}
}

func TestParseLoad(t *testing.T) {
	t.Parallel()
	o, err := parseLoad("200/s for 10s workers=8 seed=3")
	if err != nil || o.rate != 200 || o.total != 10*time.Second || o.workers != 8 || o.seed != 3 {
		t.Fatalf("got %+v, %v", o, err)
	}
	if o, err = parseLoad("500 times"); err != nil || o.times != 500 {
		t.Fatalf("got %+v, %v", o, err)
	}
	if _, err = parseLoad("whenever"); err == nil {
		t.Fatal("nonsense was accepted")
	}
}
