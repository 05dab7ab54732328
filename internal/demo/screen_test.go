package demo

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/status"
)

var update = flag.Bool("update", false, "write the golden frames anew")

// someView is a run of 30 s at 20 s: the link was cut from 12 s to 17 s.
func someView() view {
	v := view{Phase: "healed", Elapsed: 20 * time.Second, Total: 30 * time.Second, LinkUp: true, Carried: 3 << 20, Latency: latency{Samples: 9, P50: 4.2, P95: 9, P99: 14.5},
		Ways: [2]way{
			{From: "eu", To: "us", State: status.Replicating, WritesPerSec: 101, RowsPerSec: 240, LagSeconds: 0.02, Backlog: 1 << 20},
			{From: "us", To: "eu", State: status.CatchingUp, WritesPerSec: 99, RowsPerSec: 0, LagSeconds: 1.5, Backlog: 0},
		},
		Newest: []logged{
			{At: 19900 * time.Millisecond, Type: "update_origin_differs", Table: "users", Key: "358de90a", Winner: "us", Loser: "eu", Verdict: "apply", Why: "updated_at", Logs: [2]bool{true, true}},
			{At: 19 * time.Second, Type: "insert_exists", Table: "users", Key: "03c5c0e3", Winner: "eu", Loser: "us", Verdict: "keep", Why: "version", Logs: [2]bool{false, true}},
			{At: 3 * time.Second, Type: "multiple_unique_conflicts", Table: "subscriptions", Key: "7", Verdict: "park"},
		}, Conflicts: 184, InBoth: 180}
	for at := time.Duration(0); at <= 20*time.Second; at += 250 * time.Millisecond {
		s := sample{At: at, LinkUp: at < 12*time.Second || at >= 17*time.Second, Lag: [2]float64{0.01, 0.02}}
		if !s.LinkUp {
			s.Lag = [2]float64{(at - 12*time.Second).Seconds(), (at - 12*time.Second).Seconds() / 2}
		}
		v.Samples = append(v.Samples, s)
	}
	return v
}

func text(lines []line) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(strings.TrimRight(l.text(), " ") + "\n")
	}
	return b.String()
}

// The frames of some terminals, without their colours.
func TestFrames(t *testing.T) {
	t.Parallel()
	cut := someView()
	cut.LinkUp, cut.Phase, cut.Elapsed = false, "cut", 14*time.Second
	cut.Samples = cut.Samples[:57]
	begin := someView()
	begin.Samples, begin.Newest, begin.Latency, begin.Elapsed, begin.Conflicts, begin.InBoth = nil, nil, latency{}, 0, 0, 0
	for name, c := range map[string]struct {
		view          view
		width, height int
	}{
		"ordinary": {someView(), 100, 36}, "classic": {someView(), 80, 23}, "cut": {cut, 120, 30}, "short": {someView(), 80, 14}, "begin": {begin, 80, 30},
	} {
		got, path := text(frame(c.view, c.width, c.height)), filepath.Join("testdata", name+".frame")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || got != string(want) {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
	}
}

// Whatever the size, no line is wider and there are no more lines; where the graphs are
// drawn, the whole height is used.
func TestFramesFit(t *testing.T) {
	t.Parallel()
	full := someView()
	for len(full.Newest) < 100 {
		full.Newest = append(full.Newest, full.Newest[0])
	}
	for width := 0; width < 140; width += 3 {
		for height := 0; height < 70; height++ {
			lines := frame(full, width, height)
			if len(lines) > height || height >= 30 && len(lines) < height-1 {
				t.Fatalf("%d lines of %d", len(lines), height)
			}
			for _, l := range lines {
				if l.width() > width {
					t.Fatalf("%d columns of %d: %q", l.width(), width, l.text())
				}
			}
		}
	}
}

func TestCutHasItsBackground(t *testing.T) {
	t.Parallel()
	v := someView()
	lines := graph(v, 0, margin+60, 4)
	lowest := lines[len(lines)-1]
	columns := 0
	for _, s := range lowest {
		if s.ink == cyanCut {
			columns += len([]rune(s.text))
		}
	}
	if columns != 10 { // 5 of 30 seconds
		t.Errorf("%d columns are marked: %v", columns, lowest)
	}
	if a := axis(v, margin+60); !strings.Contains(a.text(), " link cut ") {
		t.Errorf("axis %q", a.text())
	}
}

func TestColumns(t *testing.T) {
	t.Parallel()
	samples := []sample{
		{At: 0, Lag: [2]float64{1, 0}, LinkUp: true}, {At: 400 * time.Millisecond, Lag: [2]float64{3, 0}, LinkUp: true},
		{At: 3 * time.Second, Lag: [2]float64{2, 0}}, {At: 5 * time.Second, Lag: [2]float64{4, 0}}, {At: 11 * time.Second, Lag: [2]float64{9, 0}, LinkUp: true},
	}
	want := []column{{3, true, false}, {3, true, false}, {3, true, false}, {2, true, true}, {2, true, true}, {4, true, true}, {4, true, false}, {4, true, false}, {4, true, false}, {9, true, false}}
	if got := columns(samples, 0, 10*time.Second, 10); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := columns(samples[:1], 0, 10*time.Second, 3); fmt.Sprint(got) != "[{1 true false} {0 false false} {0 false false}]" {
		t.Errorf("%v", got)
	}
	if len(columns(samples, 0, 0, 0)) != 0 || len(columns(nil, 0, time.Second, 4)) != 4 {
		t.Error("wrong width")
	}
}

func TestPaintGoesBackToPlain(t *testing.T) {
	t.Parallel()
	got := line{{plain, "a"}, {red, "b"}, {red, "c"}, {bold, ""}, {alarm, "d"}}.paint()
	if want := "a\x1b[0m\x1b[31mbc\x1b[0m\x1b[1;37;41md\x1b[0m"; got != want {
		t.Errorf("%q", got)
	}
	if got := (line{{plain, "ab"}}).paint(); got != "ab" {
		t.Errorf("%q", got)
	}
	if got := (line{{plain, "ab"}, {red, "cd"}}).fit(3).text(); got != "abc" {
		t.Errorf("%q", got)
	}
}

func TestPlainLineHoldsEverything(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := &screen{out: &out}
	v := someView()
	v.LinkUp = false
	s.show(v)
	for _, want := range []string{"20.0s", "link CUT", "eu->us replicating 101 writes/s 240 rows/s lag 0.02 s", "us->eu catching-up", "conflicts 184"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b") || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("escape sequences without a terminal: %q", out.String())
	}
}

func TestTerminalRedrawsOnlyItsOwnLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	rows := 30
	s := &screen{out: &out, size: func() (int, int) { return 80, rows }}
	s.say("before")
	s.show(someView())
	lines := strings.Count(out.String(), "\n") - 1
	if lines != 29 && lines != s.drawn {
		t.Errorf("%d lines, %d noted", lines, s.drawn)
	}
	out.Reset()
	s.show(someView())
	if want := fmt.Sprintf("\x1b[%dA", lines); !strings.HasPrefix(out.String(), want) {
		t.Errorf("second frame begins %q, want %q", out.String()[:12], want)
	}
	out.Reset()
	rows = 40
	if s.show(someView()); !strings.HasPrefix(out.String(), "\x1b[2J\x1b[H") {
		t.Errorf("the frame of another size begins %q", out.String()[:12])
	}
	out.Reset()
	s.clear()
	s.clear()
	if strings.Count(out.String(), "\x1b[J") != 1 {
		t.Errorf("cleared %q", out.String())
	}
	s.show(someView())
	s.keep()
	out.Reset()
	if s.clear(); out.Len() != 0 {
		t.Errorf("a kept frame is cleared: %q", out.String())
	}
}
