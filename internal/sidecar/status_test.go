package sidecar

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
)

// What an origin says of itself, and what its peer makes of it: a direction that stands still is
// not replicating at either end, and words that no pgwaltz says change nothing.
func TestAnOriginThatStandsStill(t *testing.T) {
	t.Parallel()
	s := busy(t)
	if p := s.position(); p == nil || p.Stands != "" || p.Incarnation != 2 || p.WALEnd != 1000 {
		t.Fatalf("an origin that flows: %+v", p)
	}
	s.lives.note("us", "", false, true)
	if p, o := s.position(), s.outboundStatus(true); p == nil || p.Stands != "gap" || o.State != status.Gap || !strings.Contains(o.Reason, "resync") {
		t.Errorf("an origin whose peer lacks rows: %+v, %s %s", p, o.State, o.Reason)
	}
	s.lives.forget()
	s.out.state, s.out.incarnation = status.Gap, 0
	if p := s.position(); p == nil || p.Stands != "gap" || p.WALEnd != 1000 || p.Incarnation != 0 {
		t.Errorf("an origin with a gap that has not begun: %+v", p)
	}
	s.out.state = status.Down
	if p := s.position(); p != nil {
		t.Errorf("an origin that begins: %+v", p)
	}
	now := time.Now()
	failing := &status.LastError{Since: now.Add(-failingFor - time.Second)}
	if got := s.out.stands(failing, false, now); got != status.Down {
		t.Errorf("an origin that fails for long: %q", got)
	}
	if got := s.out.stands(&status.LastError{Since: now}, false, now); got != "" {
		t.Errorf("an origin that failed once: %q", got)
	}
	s.out.state = status.Replicating
	if got := s.out.stands(nil, true, now); got != status.Gap {
		t.Errorf("an origin that publishes not everything: %q", got)
	}
	for _, tt := range []struct {
		here, there, want status.State
		reachable         bool
	}{
		{status.Replicating, status.Gap, status.Gap, true},
		{status.CatchingUp, status.Down, status.Down, true},
		{status.Down, status.Gap, status.Down, true},
		{status.Replicating, status.Gap, status.Replicating, false}, // it was so when it was last heard of
		{status.Replicating, status.Standby, status.Replicating, true},
		{status.Replicating, "nonsense", status.Replicating, true},
		{status.Replicating, "", status.Replicating, true},
	} {
		st := status.Inbound{Origin: "us", State: tt.here}
		stands(&st, &broker.Position{Stands: string(tt.there)}, tt.reachable)
		if st.State != tt.want {
			t.Errorf("%s here, %s there: %s, want %s", tt.here, tt.there, st.State, tt.want)
		}
	}
}

// A peer that cannot apply says so to the origin, whose backlog does not get smaller by itself.
func TestAPeerThatIsStuck(t *testing.T) {
	t.Parallel()
	s := busy(t)
	if got := s.stuck("us") + s.stuck("nobody"); got != "" {
		t.Errorf("a direction that flows: %q", got)
	}
	in := s.in["us"]
	in.state = status.Gap
	if got := s.stuck("us"); got != "gap" {
		t.Errorf("a gap: %q", got)
	}
	in.state = status.Down
	s.troubles["inbound us"] = &status.LastError{Since: time.Now()}
	if got := s.stuck("us"); got != "" {
		t.Errorf("an error that has just come: %q", got)
	}
	s.troubles["inbound us"].Since = time.Now().Add(-failingFor - time.Second)
	if got := s.stuck("us"); got != "down" {
		t.Errorf("an error that stays: %q", got)
	}
	for _, tt := range []struct {
		here        status.State
		reachable   bool
		text, stuck string
		want        status.State
		reason      string
	}{
		{status.Replicating, true, "", "", status.Replicating, ""},
		{status.Replicating, true, "behind", "", status.CatchingUp, "peer us: behind"},
		{status.Replicating, true, "behind", "nonsense", status.CatchingUp, "peer us: behind"},
		{status.Replicating, true, "behind", "down", status.CatchingUp, "its status says why"},
		{status.Replicating, true, "behind", "gap", status.Gap, "run pgwaltz resync here"},
		{status.Replicating, true, "", "gap", status.Gap, "run pgwaltz resync here"},
		{status.Replicating, false, "behind", "gap", status.Partitioned, "unreachable"}, // it was so when it was last heard of
		{status.Gap, true, "behind", "", status.Gap, ""},
		{status.Gap, false, "", "", status.Gap, ""},
		{status.Partitioned, true, "behind", "gap", status.Gap, "has a gap"},
	} {
		st := status.Outbound{State: tt.here}
		peerState(&st, status.Peer{Region: "us", Reachable: tt.reachable}, tt.text, tt.stuck)
		if st.State != tt.want || !strings.Contains(st.Reason, tt.reason) || (st.Reason == "") != (tt.reason == "") {
			t.Errorf("%+v: %s, %q", tt, st.State, st.Reason)
		}
	}
}

// A table that is to be copied again takes the place of its former copy, and not of one that is under way.
func TestCopiesThatWait(t *testing.T) {
	t.Parallel()
	copied := func(table, state string) status.Copy { return status.Copy{Table: table, State: state} }
	jobs := []status.Copy{copied("public.a", "done"), copied("public.b", "running"), copied("public.c", "done")}
	got := copies(jobs, []status.Copy{copied("public.a", "waiting"), copied("public.b", "waiting"), copied("public.d", "waiting")})
	want := []status.Copy{copied("public.a", "waiting"), copied("public.b", "running"), copied("public.c", "done"), copied("public.d", "waiting")}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if jobs[0].State != "done" {
		t.Error("what is kept of the copies was changed")
	}
}

// A copy that was asked for a moment ago shows before the copier has looked.
func TestACopyThatWasAskedFor(t *testing.T) {
	t.Parallel()
	s := busy(t)
	s.noteCopies(nil)
	if n := s.copying(); n != 0 {
		t.Errorf("%d copies of none", n)
	}
	s.asksForCopies()
	if n := s.copying(); n != 1 {
		t.Errorf("%d copies that were asked for", n)
	}
	s.copyAsked.Store(time.Now().Add(-copiesSeen).UnixNano())
	if n := s.copying(); n != 0 {
		t.Errorf("%d copies long afterwards", n)
	}
}

// What comes and is refused does not get on, whatever the lag says; a hole that is being filled is told as that.
func TestAnOriginOfWhichEverythingIsRefused(t *testing.T) {
	t.Parallel()
	long := time.Now().Add(-refusedFor - time.Second)
	for _, tt := range []struct {
		state subscribe.State
		lag   int64
		here  status.State
		want  status.State
	}{
		{subscribe.State{Reachable: true, RefusedSince: long, LastRefused: "why"}, 1, status.Replicating, status.Down},
		{subscribe.State{Reachable: true, RefusedSince: long, LastRefused: "why"}, 1, status.Gap, status.Gap},
		{subscribe.State{Reachable: true, RefusedSince: long, LastRefused: "why"}, 0, status.Replicating, status.Replicating},
		{subscribe.State{Reachable: true, RefusedSince: time.Now(), LastRefused: "why"}, 1, status.Replicating, status.Replicating},
		{subscribe.State{Reachable: true, LastRefused: "why"}, 1, status.Replicating, status.Replicating},
		{subscribe.State{Reachable: true, RefusedSince: long, Gap: &subscribe.GapError{}}, 1, status.Replicating, status.CatchingUp},
	} {
		st := status.Inbound{Origin: "us", State: tt.here, LagBytes: tt.lag}
		doubt(&st, tt.state)
		if told := stops(tt.state, tt.lag, time.Now()); tt.here == status.Replicating && (told == status.Down) != (tt.want == status.Down) {
			t.Errorf("%+v, %d behind: the origin is told %q, and here it is %s", tt.state, tt.lag, told, tt.want)
		}
		if st.State != tt.want || tt.want == status.Down && !strings.Contains(st.Reason, "refused: why") {
			t.Errorf("%+v, %d behind: %s (%s), want %s", tt.state, tt.lag, st.State, st.Reason, tt.want)
		}
	}
}
