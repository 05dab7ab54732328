package conflict

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

type truthCase struct{ kind, op, local, base, order, image string }

type truthRule struct {
	left   [6][]string
	want   string
	unless string
	hits   int
}

// truthTable reads the table out of the package comment.
func truthTable(t *testing.T) []*truthRule {
	t.Helper()
	src, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var rules []*truthRule
	for _, line := range strings.Split(string(src), "\n") {
		left, right, ok := strings.Cut(strings.TrimPrefix(line, "//"), "|")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) != 6 || len(r) < 3 || l[0] == "kind" {
			continue
		}
		rule := &truthRule{want: strings.Join(r[:3], " ")}
		if len(r) > 4 && r[3] == "unless" {
			rule.unless = strings.Join(r[4:], " ")
		}
		for i := range l {
			if l[i] != "-" {
				rule.left[i] = strings.Split(l[i], ",")
			}
		}
		rules = append(rules, rule)
	}
	if len(rules) < 40 {
		t.Fatalf("found %d lines of the truth table", len(rules))
	}
	return rules
}

func (r *truthRule) fits(c truthCase) bool {
	for i, v := range [...]string{c.kind, c.op, c.local, c.base, c.order, c.image} {
		if r.left[i] != nil && !slices.Contains(r.left[i], v) {
			return false
		}
	}
	return r.unless == "" || r.unless != c.kind+" "+c.op
}

// build makes the event and the entry that a case describes; false where the case cannot be.
func (c truthCase) build() (Policy, Event, Side, bool) {
	p := Policy{ForgetAfter: 100}
	at := wal.Stamp{Generation: 2, Version: 10, UpdatedAt: 1000}
	e := Event{CommitTime: 1050, Complete: c.image == "whole", Content: []byte("m")}
	e.Kind = map[string]EventKind{"live": Live, "copy": Copy, "repair": Repair, "self": Self}[c.kind]
	isDelete := c.op == "delete" || c.op == "brief"
	switch c.op {
	case "insert":
		e.Op, e.Born = wal.Insert, true
	case "update":
		e.Op = wal.Update
	default:
		e.Op, e.Content, e.Born = wal.Delete, nil, c.op == "brief"
	}
	l := Side{Known: c.local != "unknown", Alive: c.local == "live", Stamp: at}
	if l.Alive {
		l.Content = []byte("l")
	} else {
		l.DeletedAt = 1000
	}
	if c.local == "unknown" {
		l = Side{}
	}
	switch c.order {
	case "gen>":
		e.Stamp = wal.Stamp{Generation: 3, Version: 11, UpdatedAt: 900}
	case ">":
		e.Stamp = wal.Stamp{Generation: 2, Version: 11, UpdatedAt: 900}
	case "<":
		e.Stamp = wal.Stamp{Generation: 2, Version: 9, UpdatedAt: 1050}
	case "expired":
		e.Stamp = wal.Stamp{Generation: 2, Version: 9, UpdatedAt: 2000}
		e.CommitTime = 1101
	case "tie>", "tie<", "=":
		e.Stamp = at
	}
	switch {
	case c.local == "unknown" && c.order != ">",
		c.order == "expired" && c.local != "dead",
		c.local == "dead" && (c.order == "tie>" || c.order == "tie<"),
		c.local == "dead" && c.order == "=" && !isDelete,
		c.local == "live" && isDelete && (c.order == "tie>" || c.order == "="),
		isDelete && c.image == "part",
		c.op == "brief" && c.kind == "copy",
		c.order == "=" && c.image == "part":
		return p, e, l, false
	}
	switch c.order {
	case "tie<":
		if !isDelete {
			e.Content = []byte("k")
		}
	case "=":
		if l.Alive {
			e.Content = []byte("l")
		}
	}
	switch c.base {
	case "same":
		e.Base = wal.Base{Known: true, Stamp: at}
	case "other":
		e.Base = wal.Base{Known: true, Stamp: wal.Stamp{Generation: 2, Version: 3, UpdatedAt: 3}}
	case "none":
		if c.order == "tie>" {
			return p, e, l, false
		}
	case "late":
		if isDelete && l.Alive {
			e.CommitTime = 999
		} else if c.order == ">" {
			e.Stamp.Version, e.Stamp.UpdatedAt = 10, 1001
		} else if c.order == "gen>" {
			e.CommitTime = 999
		}
	}
	return p, e, l, true
}

// TestTruthTable holds the table in the package comment against Resolve, for every
// combination, and sees that no line of it is idle.
func TestTruthTable(t *testing.T) {
	t.Parallel()
	rules := truthTable(t)
	n := 0
	for _, kind := range []string{"live", "copy", "repair", "self"} {
		for _, op := range []string{"insert", "update", "delete", "brief"} {
			for _, local := range []string{"unknown", "dead", "live"} {
				for _, base := range []string{"same", "other", "none", "late"} {
					for _, order := range []string{"gen>", ">", "tie>", "=", "tie<", "<", "expired"} {
						for _, image := range []string{"whole", "part"} {
							c := truthCase{kind, op, local, base, order, image}
							p, e, l, ok := c.build()
							if !ok {
								continue
							}
							n++
							i := slices.IndexFunc(rules, func(r *truthRule) bool { return r.fits(c) })
							if i < 0 {
								t.Errorf("%v: no line of the table fits", c)
								continue
							}
							rules[i].hits++
							if got := truthText(Resolve(p, e, l)); got != rules[i].want {
								t.Errorf("%v: Resolve says %q, line %d of the table %q", c, got, i+1, rules[i].want)
							}
						}
					}
				}
			}
		}
	}
	for i, r := range rules {
		if r.hits == 0 {
			t.Errorf("line %d of the table fits nothing", i+1)
		}
	}
	if n < 400 {
		t.Errorf("only %d combinations were tried", n)
	}
}

// TestPartAtATie: where the contents would decide and are not known, nothing is decided.
func TestPartAtATie(t *testing.T) {
	t.Parallel()
	at := wal.Stamp{Generation: 2, Version: 10, UpdatedAt: 1000}
	l := Side{Known: true, Alive: true, Stamp: at, Content: []byte("l")}
	for kind, want := range map[EventKind]Verdict{Live: Park, Copy: Park, Repair: Park, Self: Keep} {
		if d := Resolve(Policy{}, Event{Kind: kind, Op: wal.Update, Stamp: at}, l); d.Verdict != want || d.Conflict() || d.Pushback {
			t.Errorf("%s: %+v", kind, d)
		}
	}
}

func truthText(d Decision) string {
	typ, then := string(d.Type), "-"
	if typ == "" {
		typ = "-"
	}
	if d.Pushback {
		then = "pushback"
	}
	if d.Forget {
		then = "forget"
	}
	return d.Verdict.String() + " " + typ + " " + then
}

// TestCopiesAndExpiredTombstones: between a row and a tombstone that are copied, what counts is
// how much later the row was written, on whichever side either of them is.
func TestCopiesAndExpiredTombstones(t *testing.T) {
	t.Parallel()
	p := Policy{ForgetAfter: 100}
	dead := wal.Stamp{Version: 9, UpdatedAt: 1000}
	for name, c := range map[string]struct {
		row  wal.Stamp
		lost bool // the row goes
	}{
		"lower, soon after": {wal.Stamp{Version: 1, UpdatedAt: 1100}, true},
		"lower, long after": {wal.Stamp{Version: 1, UpdatedAt: 1101}, false},
		"lower, before":     {wal.Stamp{Version: 1, UpdatedAt: 10}, true},
		"lower, no time":    {wal.Stamp{Version: 1, UpdatedAt: wal.MinMicros}, true},
		"higher":            {wal.Stamp{Version: 10, UpdatedAt: 10}, false},
		"later life":        {wal.Stamp{Generation: 1, UpdatedAt: 10}, false},
	} {
		content := []byte("c")
		there := Resolve(p, Event{Kind: Copy, Op: wal.Insert, Stamp: c.row, Content: content, Complete: true, CommitTime: 5000}, Side{Known: true, Stamp: dead, DeletedAt: dead.UpdatedAt})
		if kept := there.Verdict == Keep; kept != c.lost || there.Pushback != c.lost || there.Type != None && !kept && there.Type != UpdateDeleted {
			t.Errorf("%s: a row copied to the tombstone: %+v", name, there)
		}
		here := Resolve(p, Event{Kind: Copy, Op: wal.Delete, Stamp: dead, Complete: true, CommitTime: 5000}, Side{Known: true, Alive: true, Stamp: c.row, Content: content})
		if gone := here.Verdict == Apply; gone != c.lost || here.Pushback != (!gone && name != "lower, long after") || !gone && here.Type != None {
			t.Errorf("%s: a tombstone copied to the row: %+v", name, here)
		}
	}
}
