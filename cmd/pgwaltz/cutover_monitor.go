package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/internal/cutover"
)

const cutoverMonitorAbout = `Shows how far both directions are, how far the cutover is, which sequences are not ahead, and which sessions of the
application write at the source. It changes nothing. With --every it goes on until Ctrl-C, with a line for each look.

The exit code is that of the last look: 4 where something is not well (no way, a table that is not ready, changes that
are parked, or somebody who writes while writes are paused), 12 where the destination is more than --max-lag-bytes behind.`

// monitoring is what a monitor is told.
type monitoring struct {
	json  bool
	every time.Duration
	max   int64
}

func (k *cutting) monitor() *cobra.Command {
	var m monitoring
	c := k.lasting("monitor --config FILE", "show how far both directions are", cutoverMonitorAbout, cutover.Both, func(ctx context.Context, e *cutover.Ends, stdout, stderr io.Writer) error {
		look := func() (*cutover.Progress, error) {
			ctx, cancel := context.WithTimeoutCause(ctx, k.timeout, fmt.Errorf("not within %s", k.timeout))
			defer cancel()
			return e.Progress(ctx)
		}
		if m.every <= 0 {
			p, err := look()
			if err != nil {
				return setupError(err)
			}
			if err := m.once(stdout, stderr, p); err != nil {
				return err
			}
			return m.code(p)
		}
		last := error(nil)
		for {
			p, err := look()
			switch {
			case ctx.Err() != nil:
				return last
			case err != nil: // a server may be restarting
				last = setupError(err)
				row(stderr, "%s\n", err)
			default:
				if err := m.line(stdout, p); err != nil {
					return err
				}
				last = m.code(p)
			}
			if pause.For(ctx, m.every) != nil {
				return last
			}
		}
	})
	exits(c, exitOK, exitOther, exitUsage, exitConfig, exitCheck, exitPostgres, exitPeer, exitBehind, exitInterrupted)
	c.Flags().BoolVar(&m.json, "json", false, "print JSON; with --every one line for each look")
	c.Flags().DurationVar(&m.every, "every", 0, "look again and again, this often")
	c.Flags().Int64Var(&m.max, "max-lag-bytes", -1, "the most WAL of the source that the destination may lack; -1 means any")
	takes(c.Flags(), "max-lag-bytes", "N")
	return c
}

// code is the exit code of a look.
func (m *monitoring) code(p *cutover.Progress) error {
	switch {
	case len(p.Findings.Errors()) > 0:
		return silent(exitCheck)
	case m.max >= 0 && p.There.LagBytes > m.max:
		return silent(exitBehind)
	}
	return nil
}

func (m *monitoring) once(stdout, stderr io.Writer, p *cutover.Progress) error {
	if m.json {
		return printJSON(stdout, p)
	}
	t := tabwriter.NewWriter(stdout, 0, 4, 2, ' ', 0)
	row(t, "source\t%s\tregion %s, PostgreSQL %d, primary\n", p.Source.ID, p.Source.Region, p.Source.Version)
	row(t, "destination\t%s\tregion %s, PostgreSQL %d, primary\n", p.Destination.ID, p.Destination.Region, p.Destination.Version)
	row(t, "cutover\t%s\t\n", stepWords(p.State))
	for _, r := range []cutover.Road{p.There, p.Back} {
		what := fmt.Sprintf("%d bytes behind (applied %s of %s)", r.LagBytes, r.Applied, r.End)
		if r.Broken != "" {
			what = r.Broken
		}
		row(t, "%s to %s\tmode %s\t%s\n", r.From, r.To, r.Mode, what)
	}
	row(t, "sequences\t%d\t%d not ahead\n", p.Sequences, len(p.Behind))
	writers, _ := p.Writers()
	row(t, "sessions\t%d\t%d write\n", len(p.Sessions), writers)
	for _, s := range p.Sessions {
		if !s.Writes {
			continue
		}
		whose := "held in a pause"
		if !s.Held() {
			whose = "left alone: " + s.Left
		}
		row(t, "\tprocess %d, role %s\t%s for %.1f s, %s\n", s.PID, s.Role, s.State, s.Seconds, whose)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	p.Findings.Print(stderr, false)
	return nil
}

// line is one look of many.
func (m *monitoring) line(stdout io.Writer, p *cutover.Progress) error {
	if m.json {
		return jsonLine(stdout, p)
	}
	writers, _ := p.Writers()
	well := "well"
	if errs := p.Findings.Errors(); len(errs) > 0 {
		well = errs[0].String()
	}
	return row(stdout, "%s  %s  %s to %s: %d bytes behind  %s to %s: %d  sequences: %d not ahead  sessions: %d, %d write  %s\n", p.At.UTC().Format("15:04:05.000"), stepWords(p.State),
		p.There.From, p.There.To, p.There.LagBytes, p.Back.From, p.Back.To, p.Back.LagBytes, len(p.Behind), len(p.Sessions), writers, well)
}

// stepWords says how far a cutover is, in a few words.
func stepWords(s *cutover.Step) string {
	switch {
	case s == nil:
		return "none"
	case s.Finished && s.Paused:
		return "finished"
	case !s.Paused:
		return "writes given back"
	case s.Arrived && s.Sequenced:
		return "ready"
	case s.Arrived:
		return "arrived"
	}
	return "paused"
}
