package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/cutover"
	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// One line for each look, and the code of what it found; a name that holds a new line makes none.
func TestMonitorLines(t *testing.T) {
	t.Parallel()
	p := &cutover.Progress{
		At: time.Unix(1e9, 0), Source: cutover.Server{Region: "eu", ID: "1/shop", Version: 15}, Destination: cutover.Server{Region: "us", ID: "2/shop", Version: 16},
		There: cutover.Road{From: "eu", To: "us", Mode: "stream", Applied: "0/10", End: "0/18", LagBytes: 8}, Back: cutover.Road{From: "us", To: "eu", Broken: "nothing of region us was ever applied"},
		Sequences: 3, Behind: []string{"public.s"}, Sessions: []hold.Session{{PID: 7, Role: "app", State: "idle in transaction", Seconds: 1.25, Writes: true}, {PID: 8, Role: "sidecar", Writes: true, Left: "reads the WAL"}, {PID: 9}},
	}
	for _, c := range []struct {
		m    monitoring
		step *cutover.Step
		bad  string
		code int
		line string
	}{
		{m: monitoring{max: -1}, line: "01:46:40.000  none  eu to us: 8 bytes behind  us to eu: 0  sequences: 1 not ahead  sessions: 3, 2 write  well\n"},
		{m: monitoring{max: 8}, step: &cutover.Step{Paused: true}, line: "  paused  "},
		{m: monitoring{max: 7}, step: &cutover.Step{Paused: true, Arrived: true}, code: exitBehind, line: "  arrived  "},
		{m: monitoring{max: 7}, step: &cutover.Step{Paused: true, Arrived: true, Sequenced: true, Finished: true}, bad: "two\nlines", code: exitCheck, line: "  finished  "},
		{m: monitoring{max: -1}, step: &cutover.Step{Finished: true}, line: "  writes given back  "},
		{m: monitoring{max: -1, json: true}, line: `"lag_bytes":8`},
	} {
		p.State, p.Findings = c.step, nil
		if c.bad != "" {
			p.Findings = preflight.Findings{{Severity: preflight.Error, Code: "bad", What: c.bad}}
		}
		var b bytes.Buffer
		if err := c.m.line(&b, p); err != nil || !strings.Contains(b.String(), c.line) || strings.Count(b.String(), "\n") != 1 {
			t.Errorf("%v: %q, want %q", err, b.String(), c.line)
		}
		if code := exitCode(c.m.code(p)); code != c.code {
			t.Errorf("%+v: code %d", c, code)
		}
	}
	var b, said bytes.Buffer
	m := monitoring{max: -1}
	if err := m.once(&b, &said, p); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"8 bytes behind (applied 0/10 of 0/18)", "nothing of region us was ever applied", "process 7, role app", "idle in transaction for 1.2 s, held in a pause", "left alone: reads the WAL", "2 write"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s\nlacks %q", b.String(), want)
		}
	}
}

func TestRehearsedLines(t *testing.T) {
	t.Parallel()
	r := &cutover.Rehearsed{Acknowledged: 90, Seconds: 12.34, Moves: []string{"eu", "us"}, Errors: map[string]int{"42501": 3, "25006": 1}, Outages: 1, Longest: 2.5, LongestGap: 3,
		Missing: []int64{3}, Twice: []int64{1, 2, 3, 4, 5, 6}, Beats: 5, Rows: 5}
	var b bytes.Buffer
	if err := printRehearsed(&b, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"90 rows in 12.3 s, at eu, then us", "25006 1 times, 42501 3 times", "1, the longest 2.5 s", "1: 3", "6: 1 2 3 4 5, ...", "5 of 5"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s\nlacks %q", b.String(), want)
		}
	}
	if !r.Lost() || (&cutover.Rehearsed{Beats: 1}).Lost() != true || (&cutover.Rehearsed{}).Lost() {
		t.Error("what is lost is not what it should be")
	}
}
