package sidecar

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Only what the slot still holds may stand in a stream that can lose its end.
func TestNeedOf(t *testing.T) {
	t.Parallel()
	heard, silent := checkpoint.Peer{Region: "us", Applied: 100}, checkpoint.Peer{Region: "ap"}
	adaptive := checkpoint.Confirm{Mode: checkpoint.Adaptive, HoldMax: 1000, HoldMargin: 10}
	for name, c := range map[string]struct {
		confirmed wal.LSN
		peers     []checkpoint.Peer
		retained  uint64
		lazy      bool
		want      int32
	}{
		"within the budget":             {50, []checkpoint.Peer{heard}, 500, true, needNone},
		"past it":                       {50, []checkpoint.Peer{heard}, 5000, true, needStream},
		"confirmed what a peer lacks":   {200, []checkpoint.Peer{heard}, 500, true, needStream},
		"a silent peer is no reason":    {50, []checkpoint.Peer{heard, silent}, 500, true, needNone},
		"nor to relax":                  {50, []checkpoint.Peer{heard, silent}, 500, false, needStream},
		"relied on, and all have it":    {50, []checkpoint.Peer{heard}, 500, false, needNone},
		"nobody reads, past the budget": {50, nil, 5000, true, needNone},
	} {
		in := checkpoint.Inputs{Published: 300, Confirmed: c.confirmed, Peers: c.peers, Retained: c.retained}
		_, rests, risk := adaptive.LSN(in)
		if got := needOf(in, rests, risk, c.lazy); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// One look decides nothing, and neither does one that was not possible.
func TestReliance(t *testing.T) {
	t.Parallel()
	var r reliance
	for n, c := range []struct {
		need    int32
		on, say bool
	}{
		{needStream, true, false},
		{needUnknown, false, false},
		{needStream, true, false},
		{needNone, false, false},
		{needStream, true, false},
		{needStream, true, false},
		{needStream, true, true},
	} {
		if on, say := r.look(c.need); on != c.on || say != c.say {
			t.Fatalf("look %d: %v, %v", n, on, say)
		}
	}
	for n := 1; n <= relaxesAfter; n++ {
		if on, say := r.look(needNone); on || say != (n == relaxesAfter) {
			t.Fatalf("look %d without need: %v, %v", n, on, say)
		}
	}
}
