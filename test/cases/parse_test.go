package cases

import (
	"os"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	text := "# Group\n\n#### DT-01 A title: with signs [P1] {o}\nsrc somebody\n```sql\n--@both\ncreate table t(id int);\n--@A? select 1;\nselect 2\n--=> 1 ; 2\n--@wait\n```\nExpect: prose\n\n#### DT-02 No block [P2]\njust words\n\n### Next chapter\n--@wait\n"
	got := Parse("x.md", text)
	if len(got) != 1 {
		t.Fatalf("got %d cases, want the one with a block", len(got))
	}
	c := got[0]
	if c.Err != nil || c.ID != "DT-01" || c.Title != "A title: with signs" || c.Priority != "P1" {
		t.Fatalf("got %+v", c)
	}
	if len(c.Steps) != 3 || c.Steps[0].Body != "create table t(id int);\n" || c.Steps[1].Arg != "select 1;\nselect 2" || *c.Steps[1].Expect != "1 ; 2" {
		t.Fatalf("got %+v", c.Steps)
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ body, want string }{
		"unknown directive":  {"--@bogus", "unknown directive --@bogus"},
		"text below":         {"--@wait\nselect 1;", "text below --@wait"},
		"query without =>":   {"--@A? select 1\n--@wait", "no --=> line"},
		"=> without query":   {"--@wait\n--=> 1", "--=> without a query"},
		"section without":    {"--@A\n--@wait", "has no SQL"},
		"end without":        {"--@wait\n--@end", "--@end without"},
		"repeat without end": {"--@repeat 3\n--@wait", "--@end is missing"},
		"text behind result": {"--@A? select 1\n--=> 1\nselect 2", "behind the expected result"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := Parse("x.case", "#### AA-01 t\n"+tc.body+"\n")
			if len(got) != 1 || got[0].Err == nil || !strings.Contains(got[0].Err.Error(), tc.want) {
				t.Fatalf("got %+v, want an error with %q", got, tc.want)
			}
		})
	}
}

func TestStartAt(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		body string
		want int
	}{
		"after the first section":     {"--@both\ncreate table t(id int);\n--@A\ninsert into t values (1);", 1},
		"definitions may follow":      {"--@std acct\n--@both\nalter table acct alter v set default 'x';\n--@A\nupdate acct set v='';", 2},
		"quoted words are no writes":  {"--@std acct\n--@A\ncomment on table acct is '; delete from x';\n--@wait", 2},
		"settings come before":        {"--@config A x=1\n--@both\ncreate table t(id int);\n--@pg.A set x=1\n--@cut", 3},
		"explicit":                    {"--@both\ncreate table t(id int);\n--@start\n--@wait", -1},
		"explicit for one":            {"--@setup both\n--@start sidecar.A\n--@wait", -1},
		"starting nats is no start":   {"--@both\ncreate table t(id int);\n--@start nats\n--@wait", 2},
		"first section writes itself": {"--@both\ninsert into t values (1);\n--@wait", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := Parse("x.case", "#### AA-01 t\n"+tc.body+"\n")[0]
			if c.Err != nil {
				t.Fatal(c.Err)
			}
			if got := startAt(c.Steps); got != tc.want {
				t.Fatalf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func TestCaseFilesParse(t *testing.T) {
	t.Parallel()
	all, err := ParseFiles(".")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, c := range all {
		if c.Err != nil {
			t.Errorf("%s %s:%d: %v", c.ID, c.File, c.Line, c.Err)
		}
		if seen[c.ID] {
			t.Errorf("%s occurs twice", c.ID)
		}
		seen[c.ID] = true
		if s := wordsLeft(c.Steps); s != nil {
			t.Errorf("%s: words left in line %d", c.ID, s.Line)
		}
	}
	if len(all) < 80 {
		t.Errorf("found %d cases, expected more", len(all))
	}
}

func TestReadmeNamesEveryDirective(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range directives {
		if !strings.Contains(string(data), "--@"+name) {
			t.Errorf("README.md does not describe --@%s", name)
		}
	}
}
