package supervisor_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/internal/supervisor"
)

// supervise runs a supervisor until the test ends, or stop is called.
func (r *region) supervise() (s *supervisor.Supervisor, stop func() error) {
	r.t.Helper()
	r.cfg.HTTP.Listen = ""
	s = supervisor.New(r.cfg, r.cfg.Mode, slog.New(slog.DiscardHandler), "test")
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }() // ends with ctx
	ended := false
	stop = func() error {
		cancel()
		if ended {
			return nil
		}
		ended = true
		return <-done
	}
	r.t.Cleanup(func() { _ = stop() })
	return s, stop
}

// until waits for a state of the whole, with a reason of its only inbound direction that holds the words.
func (r *region) until(s *supervisor.Supervisor, want status.State, words string) {
	r.t.Helper()
	deadline, tick := time.After(90*time.Second), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		st := s.Status()
		if st.State == want && (words == "" || len(st.Inbound) == 1 && strings.Contains(st.Inbound[0].Reason, words)) {
			return
		}
		select {
		case <-deadline:
			r.t.Fatalf("state %s, want %s (%s): %+v %+v", st.State, want, words, st.Inbound, st.LastError)
		case <-tick.C:
		}
	}
}

func TestSupervisorSeesWhatTheServerDoes(t *testing.T) {
	t.Parallel()
	eu, us := pair(t, "watch", "")
	us.dropSubscription("pgwaltz_watch_eu")
	eu.setup()
	us.setup()
	eu.exec(`insert into public.item values (1, 'one')`)
	there, _ := eu.supervise()
	s, stop := us.supervise() // sets up by itself
	us.until(s, status.Replicating, "")
	us.eventually(all, "1=one")
	eu.until(there, status.Replicating, "")
	if st := s.Status(); st.Mode != "native" || len(st.Weaker) == 0 || st.Inbound[0].Origin != "eu" {
		t.Errorf("%+v", st)
	}
	if v := gather(t, s, "pgwaltz_subscription_errors"); v != 0 {
		t.Errorf("%v errors", v)
	}

	us.exec(`insert into public.item values (2, 'in the way')`)
	eu.exec(`insert into public.item values (2, 'two'), (3, 'three')`)
	us.until(s, status.Down, "tries it again for ever")
	if v := gather(t, s, "pgwaltz_subscription_errors"); v < 2 {
		t.Errorf("%v errors", v)
	}
	us.exec(`delete from public.item where id = 2`)
	us.eventually(all, "1=one 2=two 3=three")

	us.exec(`alter subscription pgwaltz_watch_eu disable`)
	us.until(s, status.Down, "is disabled")
	eu.until(there, status.Partitioned, "")
	us.exec(`alter subscription pgwaltz_watch_eu enable`)
	eu.until(there, status.Replicating, "")

	// A second one waits, and takes over.
	second, _ := us.supervise()
	us.until(second, status.Standby, "")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	us.until(second, status.Replicating, "")

	// The table that only the peer has so far stays out, and is named.
	for _, r := range []*region{eu, us} {
		r.exec(`create table public.late (id int primary key)`)
	}
	eu.setup()
	us.until(second, status.CatchingUp, "1 tables")
	if ts := second.Status().Tables; len(ts) != 1 || ts[0].Table != "public.late" || ts[0].Code != "not_subscribed" {
		t.Errorf("%+v", ts)
	}
}

func TestModeOfTheRowCounts(t *testing.T) {
	t.Parallel()
	eu, _ := pair(t, "counts", "")
	if m, err := supervisor.Mode(t.Context(), eu.cfg); err != nil || m != config.ModeNative {
		t.Fatalf("%s, %v", m, err)
	}
	eu.setup()
	eu.must(config.ModeNative)
	eu.cfg.Mode = config.ModeStream
	if m, err := supervisor.Mode(t.Context(), eu.cfg); err != nil || m != config.ModeNative {
		t.Fatalf("%s, %v", m, err)
	}
	eu.exec(`update pgwaltz.mode set settled = false`)
	if _, err := supervisor.Mode(t.Context(), eu.cfg); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Fatal(err)
	}
}

// gather reads the first sample of a family.
func gather(t *testing.T, s *supervisor.Supervisor, name string) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(supervisor.Collector(s))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no family %s", name)
	return 0
}
