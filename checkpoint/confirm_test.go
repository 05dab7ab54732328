package checkpoint

import (
	"errors"
	"math/rand"
	"testing"
	"testing/quick"

	"github.com/pgwaltz/pgwaltz/wal"
)

func peers(applied ...wal.LSN) []Peer {
	var ps []Peer
	for _, a := range applied {
		ps = append(ps, Peer{Applied: a})
	}
	return ps
}

func TestPassed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		in   Inputs
		want bool
	}{
		"all have it":        {Inputs{Published: 1000, Peers: peers(700, 600)}, true},
		"one has less":       {Inputs{Published: 1000, Peers: peers(700, 599)}, false},
		"one said nothing":   {Inputs{Published: 1000, Peers: peers(700, 0)}, false},
		"nobody is there":    {Inputs{Published: 1000}, true},
		"it is not in there": {Inputs{Published: 599, Peers: peers(700)}, false},
	} {
		if got := c.in.Passed(600); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestConfirm(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mode  Mode
		in    Inputs
		want  wal.LSN
		rests Mode
		risk  uint64
	}{
		"adaptive waits for the slowest":   {Adaptive, Inputs{Published: 1000, Peers: peers(700, 400), Retained: 1000}, 400, Applied, 0},
		"adaptive at the budget":           {Adaptive, Inputs{Published: 5000, Peers: peers(400), Retained: 1000}, 400, Applied, 0},
		"adaptive past the budget":         {Adaptive, Inputs{Published: 5000, Peers: peers(400), Retained: 1001}, 4900, Published, 4500},
		"adaptive, margin below applied":   {Adaptive, Inputs{Published: 5000, Peers: peers(4950), Retained: 9000}, 4950, Applied, 0},
		"adaptive, margin above WAL":       {Adaptive, Inputs{Published: 50, Peers: peers(0), Retained: 9000}, 0, Applied, 0},
		"adaptive after the budget":        {Adaptive, Inputs{Published: 5000, Confirmed: 4900, Peers: peers(400), Retained: 10}, 4900, Applied, 4500},
		"adaptive without peers":           {Adaptive, Inputs{Published: 5000}, 5000, Applied, 0},
		"applied past the budget":          {Applied, Inputs{Published: 5000, Peers: peers(400, 900), Retained: 1 << 40}, 400, Applied, 0},
		"applied, peer never heard of":     {Applied, Inputs{Published: 5000, Confirmed: 300, Peers: peers(400, 0)}, 300, Applied, 0},
		"applied, peer of another WAL":     {Applied, Inputs{Published: 5000, Peers: peers(1 << 50)}, 5000, Applied, 0},
		"published":                        {Published, Inputs{Published: 5000, Peers: peers(400)}, 5000, Published, 4600},
		"published, confirmed is monotone": {Published, Inputs{Published: 5000, Confirmed: 4999, Peers: peers(5000)}, 5000, Published, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policy := Confirm{Mode: c.mode, HoldMax: 1000, HoldMargin: 100}
			lsn, rests, risk := policy.LSN(c.in)
			if lsn != c.want || rests != c.rests || risk != c.risk {
				t.Errorf("got %s %s risk %d, want %s %s risk %d", lsn, rests, risk, c.want, c.rests, c.risk)
			}
			if err := MustConfirm(c.mode, lsn, c.in); err != nil {
				t.Error(err)
			}
		})
	}
}

// Whatever comes in, in any order: what is confirmed never goes back, never passes what is
// published, and passes the slowest peer only where the mode allows it.
func TestConfirmProperty(t *testing.T) {
	t.Parallel()
	err := quick.Check(func(seed int64) bool {
		r := rand.New(rand.NewSource(seed))
		policy := Confirm{Mode: []Mode{Adaptive, Applied, Published}[r.Intn(3)], HoldMax: uint64(r.Intn(500)), HoldMargin: uint64(r.Intn(100))}
		in := Inputs{Peers: make([]Peer, r.Intn(3))}
		for range 100 {
			in.Published += wal.LSN(r.Intn(50))
			for i := range in.Peers {
				// Acks are late, lost, and now and then from before a restore.
				if r.Intn(3) == 0 {
					in.Peers[i].Applied = wal.LSN(r.Intn(int(in.Published) + 10))
				}
			}
			in.Retained = uint64(r.Intn(1000))
			lsn, _, risk := policy.LSN(in)
			if err := MustConfirm(policy.Mode, lsn, in); err != nil {
				t.Error(err)
				return false
			}
			low := lsn
			for _, p := range in.Peers {
				if p.Applied > 0 {
					low = min(low, p.Applied)
				}
			}
			if risk != uint64(lsn-low) {
				t.Errorf("confirmed %s over %s risks %d", lsn, low, risk)
			}
			if known := len(in.Peers) == 0 || in.applied() > 0 || in.Published == 0; known != in.RiskKnown() && in.Published > 0 {
				t.Errorf("peers %v: risk known %v", in.Peers, !known)
			}
			in.Confirmed = lsn
		}
		return true
	}, &quick.Config{MaxCount: 300})
	if err != nil {
		t.Error(err)
	}
}

func TestInvariants(t *testing.T) {
	t.Parallel()
	here := at(2, 10, 500)
	change := func(f func(*Checkpoint)) Checkpoint {
		c := here
		f(&c)
		return c
	}
	in := Inputs{Published: 100, Confirmed: 50, Peers: peers(70)}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"confirm":                   {MustConfirm(Applied, 70, in), ""},
		"confirm above published":   {MustConfirm(Published, 101, in), "confirmed_le_published"},
		"confirm backwards":         {MustConfirm(Published, 49, in), "confirmed_monotonic"},
		"confirm above applied":     {MustConfirm(Applied, 71, in), "confirmed_le_applied"},
		"confirm at risk, adaptive": {MustConfirm(Adaptive, 90, in), ""},
		"advance nowhere":           {MustAdvance(here, here, false), ""},
		"advance to another origin": {MustAdvance(here, change(func(c *Checkpoint) { c.Origin = "us" }), true), "checkpoint_origin"},
		"advance incarnation back":  {MustAdvance(here, change(func(c *Checkpoint) { c.Incarnation = 1 }), true), "checkpoint_monotonic"},
		"advance frame back":        {MustAdvance(here, change(func(c *Checkpoint) { c.FrameNo = 9 }), true), "checkpoint_monotonic"},
		"advance position back":     {MustAdvance(here, change(func(c *Checkpoint) { c.EndLSN = 499 }), false), "checkpoint_monotonic"},
		"advance slot":              {MustAdvance(here, change(func(c *Checkpoint) { c.Epoch.Slot = "x" }), false), "checkpoint_epoch"},
		"advance WAL":               {MustAdvance(here, change(func(c *Checkpoint) { c.Epoch.Timeline, c.Incarnation = 9, 3 }), false), "checkpoint_epoch"},
		"advance WAL by resync":     {MustAdvance(here, change(func(c *Checkpoint) { c.Epoch.Timeline, c.Incarnation, c.EndLSN = 9, 3, 1 }), true), ""},
		"advance from nothing":      {MustAdvance(Checkpoint{Origin: "eu"}, here, false), ""},
	} {
		var broken *InvariantError
		switch {
		case c.want == "" && c.err != nil:
			t.Errorf("%s: %v", name, c.err)
		case c.want != "" && (!errors.As(c.err, &broken) || !errors.Is(c.err, ErrInvariant) || broken.Name != c.want || broken.Hint() == ""):
			t.Errorf("%s: got %v, want %s", name, c.err, c.want)
		}
	}
}
