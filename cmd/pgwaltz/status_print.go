package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/status"
)

// printStatus prints the account as tables.
func printStatus(w io.Writer, st status.Status, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	row(t, "region\t%s of cluster %s\n", st.Region, st.Cluster)
	row(t, "state\t%s\n", st.State)
	if st.Mode != "" {
		row(t, "mode\t%s: weaker than the stream, %s\n", st.Mode, strings.Join(st.Weaker, "; "))
	}
	if !st.StartedAt.IsZero() {
		row(t, "sidecar\t%s, process %d, up %s\n", st.Version, st.PID, now.Sub(st.StartedAt).Round(time.Second))
	}
	fmt.Fprint(t, "\nDIRECTION\tSTATE\tLAG\t\tBACKLOG\tPOSITION\tREASON\n")
	if o := st.Outbound; o != nil {
		row(t, "%s -> stream\t%s\t%s\t%s\t%s\tconfirmed %s\t%s\n", st.Region, o.State, bytesText(o.BacklogBytes), secondsText(o.BacklogSeconds),
			fmt.Sprintf("%d messages", o.StreamMessages), dash(o.ConfirmedLSN), o.Reason)
		for _, p := range o.Peers {
			word := "reachable"
			if !p.Reachable {
				word = "unreachable"
			}
			row(t, "%s -> %s\t%s\t%s\t%s\t\tapplied %s\t\n", st.Region, p.Region, word, bytesText(p.LagBytes), secondsText(p.LagSeconds), dash(p.AppliedLSN))
		}
	}
	for _, in := range st.Inbound {
		row(t, "%s -> %s\t%s\t%s\t%s\t%s\tapplied %s\t%s\n", in.Origin, st.Region, in.State, bytesText(in.LagBytes), secondsText(in.LagSeconds),
			fmt.Sprintf("%d frames", in.BacklogFrames), dash(in.EndLSN), in.Reason)
	}
	fmt.Fprintln(t)
	if o := st.Outbound; o != nil {
		active := "not in use"
		if o.SlotActive {
			active = "in use"
		}
		row(t, "slot\t%s, %s, wal %s, retains %s\n", o.Slot, active, dash(o.WALStatus), bytesText(o.RetainedBytes))
		if o.ConfirmMode != "" {
			row(t, "confirm\t%s\n", confirmText(o))
		}
	}
	row(t, "conflicts\t%s\n", conflictsText(st.Conflicts, now))
	troubles(t, st)
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print status: %w", err)
	}
	return nil
}

// troubles prints what a human should look at: gaps, parked changes, quarantine, errors.
func troubles(w io.Writer, st status.Status) {
	gap := func(name string, g *status.GapInfo) {
		if g != nil {
			row(w, "gap\t%s: %s to %s since %s; %s\n", name, g.From, g.To, g.Since.UTC().Format(time.RFC3339), g.Remedy)
		}
	}
	failure := func(name string, e *status.LastError) {
		if e == nil {
			return
		}
		var at []string
		for _, s := range []string{e.SQLState, e.Table, e.LSN} {
			if s != "" {
				at = append(at, s)
			}
		}
		where := ""
		if len(at) > 0 {
			where = " (" + strings.Join(at, ", ") + ")"
		}
		row(w, "last error\t%s at %s: %s%s\n", name, e.At.UTC().Format(time.RFC3339), e.Message, where)
	}
	if o := st.Outbound; o != nil {
		if o.Parked > 0 {
			row(w, "parked\t%d changes of this region\n", o.Parked)
		}
		gap("outbound", o.Gap)
		failure("outbound", o.LastError)
	}
	for _, in := range st.Inbound {
		if in.Parked > 0 {
			row(w, "parked\t%d changes from %s\n", in.Parked, in.Origin)
		}
		if in.Quarantined > 0 {
			row(w, "quarantine\t%d messages from %s\n", in.Quarantined, in.Origin)
		}
		gap("inbound "+in.Origin, in.Gap)
		failure("inbound "+in.Origin, in.LastError)
	}
	for _, x := range st.Waiting {
		row(w, "parked\t%d changes from %s: %s\n", x.Parked, x.Origin, x.Reason)
	}
	for _, t := range st.Tables {
		row(w, "table\t%s: %s; %s\n", t.Table, t.Reason, t.Remedy)
	}
	copyText(w, st.Copy)
	if last := st.LastError; last != nil && !shown(st, last) {
		failure("sidecar", last)
	}
}

// confirmText says what the confirmed position rests on, and what the stream alone holds.
func confirmText(o *status.Outbound) string {
	switch {
	case o.BytesAtRisk > 0:
		return fmt.Sprintf("%s, %s at risk", o.ConfirmMode, bytesText(o.BytesAtRisk))
	case !o.RiskKnown && !strings.HasPrefix(o.ConfirmMode, "applied"):
		return o.ConfirmMode + ", what is at risk is not known before every peer was heard of"
	}
	return o.ConfirmMode
}

// copyText sums the copies up, and names those that are not done.
func copyText(w io.Writer, copies []status.Copy) {
	done, rows := 0, int64(0)
	for _, c := range copies {
		if c.State == "done" {
			done++
			rows += c.Applied
			continue
		}
		text := fmt.Sprintf("%s %s, %d rows sent, %d applied at the peers", c.Table, c.State, c.Rows, c.Applied)
		if c.Reason != "" {
			text += ": " + c.Reason
		}
		row(w, "copy\t%s\n", text)
	}
	if done > 0 {
		row(w, "copied\t%d of %d tables, %d rows\n", done, len(copies), rows)
	}
}

// shown reports whether an error is one of those of the directions.
func shown(st status.Status, e *status.LastError) bool {
	same := func(d *status.LastError) bool { return d != nil && d.At.Equal(e.At) }
	return st.Outbound != nil && same(st.Outbound.LastError) ||
		slices.ContainsFunc(st.Inbound, func(in status.Inbound) bool { return same(in.LastError) })
}

func conflictsText(c status.Conflicts, now time.Time) string {
	s := fmt.Sprintf("%d", c.Total)
	if c.LastAt != nil {
		s += fmt.Sprintf(", last %s ago: %s", now.Sub(*c.LastAt).Round(time.Second), c.Last)
	}
	return s
}

func secondsText(s float64) string { return fmt.Sprintf("%.1f s", s) }

func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
