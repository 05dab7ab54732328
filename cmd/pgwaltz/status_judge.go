package main

import (
	"fmt"
	"slices"

	"github.com/pgwaltz/pgwaltz/internal/status"
)

// stateExit is the exit code of each state; exitOK for those in which nobody has to do anything.
var stateExit = map[status.State]int{
	status.Partitioned: exitPartitioned, status.Gap: exitGap, status.Parked: exitParked, status.Down: exitDown,
}

// direction is a line of the status that can be not well.
type direction struct {
	name   string
	state  status.State
	reason string
	lag    float64 // seconds
}

func directions(st status.Status) []direction {
	var all []direction
	if o := st.Outbound; o != nil {
		lag := o.BacklogSeconds
		for _, p := range o.Peers {
			lag = max(lag, p.LagSeconds)
		}
		all = append(all, direction{"outbound", o.State, o.Reason, lag})
	}
	for _, in := range st.Inbound {
		all = append(all, direction{"inbound " + in.Origin, in.State, in.Reason, in.LagSeconds})
	}
	return all
}

// judge returns the exit code of the worst direction that is not allowed to be so, and says
// which it is.
func (v *view) judge(st status.Status) (code int, why string) {
	rank := []status.State{status.Parked, status.Partitioned, status.Gap, status.Down}
	worst := -1
	look := func(name string, state status.State, reason string) {
		i := slices.Index(rank, state)
		if i <= worst || slices.Contains(v.allow, string(state)) {
			return
		}
		worst, code, why = i, stateExit[state], name
		if reason != "" {
			why += ": " + reason
		}
	}
	if t := st.Troubled(); t != nil {
		look("table "+t.Table, status.Parked, t.Reason+"; "+t.Remedy)
	}
	for _, d := range directions(st) {
		look(d.name, d.state, d.reason)
	}
	for _, x := range st.Waiting {
		look("region "+x.Origin, status.Parked, x.Reason)
	}
	look("sidecar", st.State, "")
	if code != exitOK || v.maxLag == 0 {
		return code, why
	}
	for _, d := range directions(st) {
		if d.lag > v.maxLag.Seconds() {
			return exitBehind, fmt.Sprintf("%s: %s behind", d.name, secondsText(d.lag))
		}
	}
	return exitOK, ""
}

// checkLine is what --check prints.
func checkLine(st status.Status, code int, why string) string {
	line := fmt.Sprintf("%s %s", st.Region, st.State)
	if why == "" && st.State != status.Replicating {
		for _, d := range directions(st) {
			if d.state == st.State && d.reason != "" {
				why = d.name + ": " + d.reason
				break
			}
		}
	}
	if why != "" {
		line += ": " + why
	}
	if code != exitOK {
		line += fmt.Sprintf(" (exit %d)", code)
	}
	return line
}
