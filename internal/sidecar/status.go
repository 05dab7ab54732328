package sidecar

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/status"
)

// Status is the sidecar's account of itself. It answers from memory, at once.
func (s *Sidecar) Status() status.Status {
	s.mu.Lock()
	st := status.Status{
		Cluster: s.cfg.Cluster, Region: s.cfg.Region, Version: s.version, PID: os.Getpid(), StartedAt: s.started,
		State: s.role, LastError: s.troubles.newest(), Copy: copies(s.copy, s.waits), Tables: append([]status.Table{}, s.tables...),
		Conflicts: status.Conflicts{Total: s.conf.Total, LastAt: s.conf.LastAt, Last: s.conf.Last, ByType: map[string]uint64{}},
	}
	for k, v := range s.conf.ByType {
		st.Conflicts.ByType[k] = v
	}
	why := s.why
	s.mu.Unlock()
	st.Inbound = []status.Inbound{}
	working := st.State == status.Replicating
	if s.cfg.Publishes() {
		o := s.outboundStatus(working)
		if !working {
			o.State, o.Reason = st.State, why
		}
		st.Outbound = &o
		st.State = worse(st.State, o.State)
	}
	if s.cfg.Applies() {
		for _, p := range s.cfg.PeerNames() {
			in := s.inboundStatus(s.in[p], working)
			if !working {
				in.State, in.Reason = st.State, why
			}
			st.Inbound = append(st.Inbound, in)
			st.State = worse(st.State, in.State)
		}
	}
	if working { // else nobody has looked
		if st.Waiting = s.parkedElse(); len(st.Waiting) > 0 {
			st.State = worse(st.State, status.Parked)
		}
	}
	if st.Troubled() != nil && working {
		st.State = worse(st.State, status.Parked)
	}
	return st
}

// copies joins the tables that are or were copied with those that are to be copied later; each comes once.
func copies(jobs, later []status.Copy) []status.Copy {
	out := slices.Clone(jobs)
	for _, w := range later {
		i := slices.IndexFunc(out, func(c status.Copy) bool { return c.Table == w.Table })
		if i < 0 {
			out = append(out, w)
		} else if !unfinished(out[i]) {
			out[i] = w
		}
	}
	return out
}

// unfinished reports whether the peers do not have all of a copy.
func unfinished(c status.Copy) bool {
	return c.State == "pending" || c.State == "running" || c.State == "failed"
}

// worse returns the worse of two states.
func worse(a, b status.State) status.State {
	rank := map[status.State]int{status.Replicating: 0, status.CatchingUp: 1, status.Parked: 2, status.Partitioned: 3, status.Gap: 4, status.Down: 5, status.Standby: 6}
	if rank[b] > rank[a] {
		return b
	}
	return a
}

// From these bounds on a direction counts as catching up.
const (
	catchingUpBytes   = 4 << 20
	catchingUpSeconds = 5
	catchingUpFrames  = 100
)

// behind says in words that a direction is catching up; "" while it is in step.
func behind(bytes int64, seconds float64, frames uint64, copying int) string {
	var parts []string
	if bytes > catchingUpBytes || seconds > catchingUpSeconds || frames > catchingUpFrames {
		parts = append(parts, fmt.Sprintf("%.1f MiB and %.1f s behind", float64(bytes)/(1<<20), seconds))
		if frames > 0 {
			parts[0] += fmt.Sprintf(", %d frames", frames)
		}
	}
	switch {
	case copying == 1:
		parts = append(parts, "1 table is still being copied")
	case copying > 1:
		parts = append(parts, fmt.Sprintf("%d tables are still being copied", copying))
	}
	return strings.Join(parts, "; ")
}

func (s *Sidecar) reachable(region string) bool {
	v := s.view.Load()
	return v == nil || v.broker == nil || v.broker.PeerReachable(region)
}

// stuckAfter is how long the loop that takes and holds the lead may not turn. Its longest step,
// the look at the database before the first term, waits for locks.
const stuckAfter = 5 * time.Minute

// turn notes that the loop that takes and holds the lead has turned.
func (s *Sidecar) turn() { s.turned.Store(time.Now().UnixNano()) }

// alive says that the loop that takes and holds the lead is stuck; nil while it turns.
func (s *Sidecar) alive() error {
	last := s.turned.Load()
	if last == 0 {
		return nil // it has not begun
	}
	if d := time.Since(time.Unix(0, last)); d > stuckAfter {
		return fmt.Errorf("the loop that holds the lead has not turned for %s", d.Round(time.Second))
	}
	return nil
}
