package demo

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/status"
)

func someView() view {
	return view{Phase: "cut", Elapsed: 12 * time.Second, Total: 30 * time.Second, Carried: 3 << 20, Latency: latency{P50: 4.2, P95: 9, P99: 14.5},
		Ways: [2]way{
			{From: "eu", To: "us", State: status.Partitioned, WritesPerSec: 101, RowsPerSec: 0, LagSeconds: 3.5, Backlog: 1 << 20, Conflicts: 12},
			{From: "us", To: "eu", State: status.Replicating, WritesPerSec: 99, RowsPerSec: 240, LagSeconds: 0.01, Backlog: 0, Conflicts: 11},
		}}
}

func TestPlainLineHoldsEverything(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := &screen{out: &out}
	s.show(someView())
	for _, want := range []string{"12.0s", "link CUT", "eu->us partitioned 101 writes/s 0 rows/s lag 3.50 s backlog 1.0 MiB", "us->eu replicating", "conflicts 23"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("escape sequences without a terminal")
	}
}

func TestTerminalRedrawsOnlyItsOwnLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := &screen{out: &out, terminal: true, width: 60}
	s.say("before")
	s.show(someView())
	first := out.String()
	for _, line := range strings.Split(first, "\n") {
		if len([]rune(line)) > 59 {
			t.Errorf("line of %d columns: %q", len([]rune(line)), line)
		}
	}
	lines := strings.Count(first, "\n") - 1
	out.Reset()
	s.show(someView())
	if want := "\x1b[" + string(rune('0'+lines/10)) + string(rune('0'+lines%10)) + "A\x1b[J"; !strings.HasPrefix(out.String(), want) {
		t.Errorf("second frame begins %q, want %q", out.String()[:12], want)
	}
	out.Reset()
	s.clear()
	s.clear()
	if strings.Count(out.String(), "\x1b[J") != 1 {
		t.Errorf("cleared %q", out.String())
	}
}

func TestBarFitsItsTotal(t *testing.T) {
	t.Parallel()
	for _, elapsed := range []time.Duration{0, time.Second, 30 * time.Second, time.Minute} {
		if b := bar(elapsed, 30*time.Second); strings.Index(b, "]")-strings.Index(b, "[") != 41 {
			t.Errorf("bar %q", b)
		}
	}
}
