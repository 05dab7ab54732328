package demo

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/conflict/audit"
)

func good() *Summary {
	s := &Summary{Equal: true, Rows: 10, Writes: map[string]int{"eu": 5, "us": 6}, Writeproof: verdict{Explained: 9, Audited: 2},
		Conflicts: auditSummary{Events: 2, InBoth: 2, ByType: map[string]map[string]int64{"update_deleted": {"apply": 1, "keep": 1}}},
		Samples:   []audit.Row{{Type: "update_deleted", Region: "eu", Origin: "us", Winner: "us", Loser: "eu", RemoteRow: audit.JSON(`{"password":"[redacted]","x":1}`)}}}
	for _, t := range tables {
		s.Tables = append(s.Tables, tableResult{Table: t, Rows: map[string]int64{"eu": 2, "us": 2}, Equal: true})
	}
	return s
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil  func(*Summary)
		differ bool
	}{
		"table differs": {func(s *Summary) { s.Tables[0].Equal, s.Equal = false, false }, true},
		"table missing": {func(s *Summary) { s.Tables, s.Equal = s.Tables[1:], false }, true},
		"nothing there": {func(s *Summary) { s.Rows = 0 }, false},
		"write lost":    {func(s *Summary) { s.Writeproof.Lost = []string{"eu-1 of key k"} }, true},
		"row invented":  {func(s *Summary) { s.Writeproof.Invented = []string{"k holds x"} }, false},
		"orphans":       {func(s *Summary) { s.Orphans = 1 }, false},
		"parked":        {func(s *Summary) { s.Conflicts.Parked = 1 }, false},
		"quarantine":    {func(s *Summary) { s.Conflicts.Refused = 1 }, false},
		"secret shown":  {func(s *Summary) { s.Conflicts.Disclose = 1 }, false},
		"left behind":   {func(s *Summary) { s.LeftBehind = []string{"process 7"} }, false},
	} {
		s := good()
		s.Judge()
		if !s.Good || s.Differ() {
			t.Fatalf("a good summary is judged %v", s.Problems)
		}
		c.spoil(s)
		s.Judge()
		if s.Good || s.Differ() != c.differ || len(s.Problems) == 0 {
			t.Errorf("%s: good %v, differ %v, problems %v", name, s.Good, s.Differ(), s.Problems)
		}
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	s := good()
	s.Judge()
	var out bytes.Buffer
	if err := s.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"users", "equal", "update_deleted               apply 1 keep 1", `password="[redacted]"`, "(no row)", "OK: 10 rows compared"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	b, err := json.Marshal(s)
	if err != nil || !strings.Contains(string(b), `"ok":true`) {
		t.Fatalf("%s %v", b, err)
	}
}

func TestLatencyOf(t *testing.T) {
	t.Parallel()
	if l := latencyOf(nil); l.Samples != 0 || l.P99 != 0 {
		t.Errorf("no samples: %+v", l)
	}
	var samples []time.Duration
	for i := 100; i > 0; i-- {
		samples = append(samples, time.Duration(i)*time.Millisecond)
	}
	if l := latencyOf(samples); l.P50 != 51 || l.P95 != 96 || l.P99 != 100 {
		t.Errorf("%+v", l)
	}
}

func TestOptionsValidate(t *testing.T) {
	t.Parallel()
	fine := Options{Duration: 10 * time.Second, Cut: 2 * time.Second, Rate: 100}
	if err := fine.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{}, {Duration: time.Second, Rate: 1}, {Duration: time.Minute, Rate: 0}, {Duration: 5 * time.Second, Cut: 5 * time.Second, Rate: 1}, {Duration: time.Minute, Cut: -1, Rate: 1}} {
		if err := o.Validate(); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}
