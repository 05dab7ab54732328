package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/cutover"
	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

const cutoverAbout = `Moves an application from one region to another one: plan, pause-write, wait, sequences, finish. The
stream, native subscriptions or pglogical may be underneath. See docs/cutover.md for a walk.

The source is the configuration's own region, or with --from that peer. The peer's database is peers[].dsn, as a
role that owns the tables; this region's is postgres.admin_dsn where that is given. Every command asks both servers
who they are, and refuses standbys and databases of other regions. Each command may be run again. abort puts both databases back at any point.`

const cutoverPlanAbout = `Says what a cutover would do and what stands in its way: it takes the rights in a transaction, looks
what is left, and rolls it back. Nothing is changed. It prints the pause-write that fits.`

const cutoverPauseAbout = `Takes the rights to write at the source away from all roles but pgwaltz's own and those of --except: grants
on tables, columns and sequences, those of PUBLIC and of owners too. What was there is kept first, in the same
transaction. Roles become read-only by default, and their sessions are ended. Reads go on.

When --hold is over, writes are given back by the sidecar, or by the next command. Where pause-write itself fails,
they are given back before it returns.`

const cutoverWaitAbout = `Waits until all that was committed at the source before the pause is at the destination, by a position of the
source's WAL behind it; with --probe also by a row that goes the whole way. When --timeout is over it fails, and
writes stay paused until the time of --hold is over.`

const cutoverSequencesAbout = `Puts the destination's sequences ahead of the source's: those of all schemas, of identity columns, and those that
were never used. None goes back, but for those that cycle. --dry-run says what would be done, at any time.`

const cutoverResumeAbout = `Gives back what pause-write has taken, exactly. It needs the source alone.`

const cutoverFinishAbout = `Ends the cutover: writes at the source stay paused for good, so that nothing is written there by mistake. Where
the destination was the source of an earlier cutover, its writes are given back.

In mode native --reverse makes a subscription in the other direction before that, in place of the one that has brought
the rows, and --drop drops what has brought them. Each statement is printed when it was run.`

const cutoverAbortAbout = `Puts both databases back to what they were: writes are given back, the destination's sequences go back where
nobody has used them since, and what was noted is removed.`

// cutting is what all commands of a cutover have.
type cutting struct {
	load    func() (*config.Config, error)
	way     cutover.Way
	timeout time.Duration
}

func newCutover(env []string) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "cutover",
		Short: "move an application to another region",
		Long:  cutoverAbout,
		Args:  onlyCommands,
		RunE:  helpOnly,
	}, exitOK, exitUsage)
	k := &cutting{load: needsConfig(c, env)}
	c.PersistentFlags().StringVar(&k.way.To, "to", "", "the peer that the application moves to")
	takes(c.PersistentFlags(), "to", "REGION")
	c.PersistentFlags().StringVar(&k.way.From, "from", "", "the peer that the application moves from")
	takes(c.PersistentFlags(), "from", "REGION")
	c.PersistentFlags().DurationVar(&k.timeout, "timeout", time.Minute, "how long the command may take")
	c.AddCommand(k.plan(), k.pauseWrite(), k.wait(), k.sequences(), k.resumeWrite(), k.finish(), k.abort(), k.monitor(), k.rehearse(), k.roles(), k.extensions(), k.schema(), k.analyze(), k.exec())
	return c
}

// command makes one. f runs with both ends, which are what need says.
func (k *cutting) command(use, short, long string, need cutover.Need, f func(ctx context.Context, e *cutover.Ends, stdout, stderr io.Writer) error) *cobra.Command {
	return k.lasting(use, short, long, need, func(ctx context.Context, e *cutover.Ends, stdout, stderr io.Writer) error {
		// Each command bounds its own work; this is for what it does besides.
		ctx, cancel := context.WithTimeoutCause(ctx, k.timeout+30*time.Second, fmt.Errorf("not within %s", k.timeout))
		defer cancel()
		return f(ctx, e, stdout, stderr)
	})
}

// lasting is command for one that may go on for any time: only to connect is bound by --timeout.
func (k *cutting) lasting(use, short, long string, need cutover.Need, f func(ctx context.Context, e *cutover.Ends, stdout, stderr io.Writer) error) *cobra.Command {
	c := exits(&cobra.Command{Use: use, Short: short, Long: long, Args: noWords}, exitOK, exitOther, exitUsage, exitConfig, exitCheck, exitPostgres, exitPeer, exitInterrupted)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := k.load()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(c.Context(), k.timeout+30*time.Second, fmt.Errorf("not within %s", k.timeout))
		e, err := cutover.Open(ctx, cfg, k.way, need)
		cancel()
		if err != nil {
			return err
		}
		defer e.Close(c.Context())
		return f(c.Context(), e, forScreen(c.OutOrStdout()), c.ErrOrStderr())
	}
	return c
}

// pauseFlags are those of plan and pause-write.
func pauseFlags(c *cobra.Command, p *cutover.Pausing) {
	c.Flags().StringSliceVar(&p.Except, "except", nil, "roles whose writes go on")
	takes(c.Flags(), "except", "ROLE,...")
	c.Flags().BoolVar(&p.Connect, "no-connect", false, "take the right to connect as well: reads end too")
	c.Flags().DurationVar(&p.Hold, "hold", 10*time.Minute, "when to give writes back by itself")
}

func (k *cutting) plan() *cobra.Command {
	var p cutover.Pausing
	c := k.command("plan --config FILE", "say what a cutover would do, and what stands in its way", cutoverPlanAbout, cutover.Both, func(ctx context.Context, e *cutover.Ends, stdout, stderr io.Writer) error {
		r, err := e.Plan(ctx, p)
		if err != nil {
			return setupError(err)
		}
		t := tabwriter.NewWriter(stdout, 0, 4, 2, ' ', 0)
		row(t, "source\t%s\tregion %s, PostgreSQL %d, primary\n", e.Source.ID(), e.Source.Region, e.Source.Sys.Version/10000)
		row(t, "destination\t%s\tregion %s, PostgreSQL %d, primary\n", e.Destination.ID(), e.Destination.Region, e.Destination.Sys.Version/10000)
		if r.State != nil {
			row(t, "noted\t%s\t\n", stateWords(r.State))
		}
		if r.Pause != nil {
			for _, one := range r.Pause.Roles {
				switch {
				case !one.Login:
				case one.Held():
					row(t, "role\t%s\theld, %d sessions\n", one.Name, one.Sessions)
				default:
					row(t, "role\t%s\tleft alone: %s\n", one.Name, one.Left)
				}
			}
		}
		moved := 0
		for _, s := range r.Sequences {
			if s.Change() {
				moved++
			}
		}
		row(t, "sequences\t%d\t%d to put ahead\n", len(r.Sequences), moved)
		if err := t.Flush(); err != nil {
			return err
		}
		if r.Pause != nil {
			for _, s := range r.Pause.Statements() {
				fmt.Fprintf(stdout, "%s;\n", s)
			}
		}
		r.Findings.Print(stderr, false)
		if err := r.Findings.Err("plan the cutover"); err != nil {
			return silent(exitCheck)
		}
		fmt.Fprintf(stderr, "Nothing was changed. Next: pgwaltz cutover pause-write --source %s --destination %s, with the flags of this plan.\n", e.Source.ID(), e.Destination.ID())
		return nil
	})
	pauseFlags(c, &p)
	return c
}

func (k *cutting) pauseWrite() *cobra.Command {
	var p cutover.Pausing
	c := k.command("pause-write --config FILE --source ID --destination ID", "pause the writes at the source", cutoverPauseAbout, cutover.Both, func(ctx context.Context, e *cutover.Ends, stdout, stderr io.Writer) error {
		p.Timeout = k.timeout
		if p.Source == "" || p.Destination == "" {
			return &usageError{"--source and --destination say which databases these have to be", "pgwaltz cutover plan"}
		}
		if p.Hold < p.Timeout {
			return &usageError{"--hold is shorter than --timeout", "give a longer --hold"}
		}
		out, err := e.PauseWrite(ctx, p)
		if out.Taken != nil {
			var warnings preflight.Findings
			for _, f := range out.Taken.Findings {
				if f.Severity == preflight.Warning {
					warnings = append(warnings, f)
				}
			}
			warnings.Print(stderr, false)
		}
		if err != nil {
			return setupError(err)
		}
		fmt.Fprintf(stderr, "Writes at %s are paused: %d sessions were ended. They are given back at %s.\nNext: pgwaltz cutover wait.\n", e.Source.Region, out.Ended, out.Deadline.UTC().Format(time.RFC3339))
		return nil
	})
	pauseFlags(c, &p)
	c.Flags().StringVar(&p.Source, "source", "", "system identifier and database of the source, as plan says them")
	takes(c.Flags(), "source", "ID")
	c.Flags().StringVar(&p.Destination, "destination", "", "the same of the destination")
	takes(c.Flags(), "destination", "ID")
	c.Flags().DurationVar(&p.Grace, "grace", 5*time.Second, "how long open transactions may go on")
	return c
}

func (k *cutting) wait() *cobra.Command {
	var w cutover.Waiting
	c := k.command("wait --config FILE", "wait until all writes are at the destination", cutoverWaitAbout, cutover.Both, func(ctx context.Context, e *cutover.Ends, _, stderr io.Writer) error {
		w.Timeout = k.timeout
		at, err := e.Wait(ctx, w)
		if err != nil {
			return setupError(err)
		}
		fmt.Fprintf(stderr, "All that was written at %s is at %s: everything below %s.\nNext: pgwaltz cutover sequences.\n", e.Source.Region, e.Destination.Region, at)
		return nil
	})
	c.Flags().StringVar(&w.Probe, "probe", "", "a replicated table with columns id text primary key, at timestamptz: a row goes through it")
	takes(c.Flags(), "probe", "SCHEMA.TABLE")
	c.Flags().BoolVar(&w.AllowParked, "allow-parked", false, "changes may be parked at the destination")
	return c
}

func (k *cutting) sequences() *cobra.Command {
	var margin int64
	var dry bool
	c := k.command("sequences --config FILE", "put the destination's sequences ahead", cutoverSequencesAbout, cutover.Both, func(ctx context.Context, e *cutover.Ends, stdout, stderr io.Writer) error {
		if margin < 0 {
			return &usageError{"--margin is below 0", ""}
		}
		ctx, cancel := context.WithTimeout(ctx, k.timeout)
		defer cancel()
		list, err := e.Sequences(ctx, margin, !dry)
		t := tabwriter.NewWriter(stdout, 0, 4, 2, ' ', 0)
		fmt.Fprint(t, "SEQUENCE\tSOURCE\tDESTINATION\tPUT\t\n")
		moved := 0
		for _, s := range list {
			if s.Change() {
				moved++
				row(t, "%s\t%s\t%s\t%s\t\n", s.Name, position(s.Source), position(s.Destination), position(s.Want))
			}
		}
		if e := t.Flush(); e != nil && err == nil {
			err = e
		}
		if err != nil {
			return setupError(err)
		}
		what := "were put ahead. Next: pgwaltz cutover finish."
		if dry {
			what = "would be put ahead; nothing was changed."
		}
		fmt.Fprintf(stderr, "%d of %d sequences %s\n", moved, len(list), what)
		return nil
	})
	c.Flags().Int64Var(&margin, "margin", 0, "numbers to leave out between the two")
	takes(c.Flags(), "margin", "N")
	c.Flags().BoolVar(&dry, "dry-run", false, "move none")
	return c
}

func position(p cutover.Position) string {
	if !p.Called {
		return fmt.Sprintf("%d (not used)", p.Last)
	}
	return fmt.Sprint(p.Last)
}

func (k *cutting) resumeWrite() *cobra.Command {
	var force bool
	var moved string
	c := k.command("resume-write --config FILE", "give the writes back", cutoverResumeAbout, cutover.Source, func(ctx context.Context, e *cutover.Ends, _, stderr io.Writer) error {
		e.Moved = moved
		ctx, cancel := context.WithTimeout(ctx, k.timeout)
		defer cancel()
		gave, err := e.ResumeWrite(ctx, force)
		if err != nil {
			return setupError(err)
		}
		if gave {
			fmt.Fprintf(stderr, "Writes at %s are given back.\n", e.Source.Region)
		} else {
			fmt.Fprintf(stderr, "Writes at %s were not paused.\n", e.Source.Region)
		}
		return nil
	})
	c.Flags().BoolVar(&force, "force", false, "also behind finish")
	movedFlag(c, &moved)
	return c
}

// movedFlag is that of commands which give writes back.
func movedFlag(c *cobra.Command, moved *string) {
	c.Flags().StringVar(moved, "source", "", "what the source is now, behind pg_upgrade: system identifier and database")
	takes(c.Flags(), "source", "ID")
}

func (k *cutting) finish() *cobra.Command {
	var how cutover.Finishing
	var dsn string
	c := k.command("finish --config FILE", "let the destination be the one to write to", cutoverFinishAbout, cutover.Both, func(ctx context.Context, e *cutover.Ends, stdout, stderr io.Writer) error {
		ctx, cancel := context.WithTimeout(ctx, k.timeout)
		defer cancel()
		how.DSN = config.NewDSN(dsn)
		how.Told = func(region string, s fallback.Statement) {
			row(stdout, "-- region %s: ", region)
			s.Print(stdout)
		}
		gave, err := e.Finish(ctx, how)
		if err != nil {
			return setupError(err)
		}
		if gave {
			fmt.Fprintf(stderr, "Writes at %s are given back, which an earlier cutover had paused.\n", e.Destination.Region)
		}
		fmt.Fprintf(stderr, "The cutover to %s is finished: let the application write there. Writes at %s stay paused.\n", e.Destination.Region, e.Source.Region)
		if how.Reverse {
			fmt.Fprintf(stderr, "What is written there comes to %s. In the configurations: direction: publish at %s, direction: apply at %s.\n", e.Source.Region, e.Destination.Region, e.Source.Region)
		}
		return nil
	})
	c.Flags().BoolVar(&how.Reverse, "reverse", false, "mode native: let the destination's rows come to the source, so that going back is possible")
	c.Flags().BoolVar(&how.Drop, "drop", false, "mode native and pglogical: drop the subscription, its slot, and what the source publishes")
	c.Flags().StringVar(&dsn, "destination-dsn", "", "the destination as the source's server reaches it (default: what the configuration says)")
	return c
}

func (k *cutting) abort() *cobra.Command {
	var force bool
	var moved string
	c := k.command("abort --config FILE", "put both databases back", cutoverAbortAbout, cutover.Source, func(ctx context.Context, e *cutover.Ends, _, stderr io.Writer) error {
		e.Moved = moved
		ctx, cancel := context.WithTimeout(ctx, k.timeout)
		defer cancel()
		out, err := e.Abort(ctx, force)
		if out.Gave {
			fmt.Fprintf(stderr, "Writes at %s are given back.\n", e.Source.Region)
		}
		if len(out.Back) > 0 {
			fmt.Fprintf(stderr, "%d sequences of %s are where they were.\n", len(out.Back), e.Destination.Region)
		}
		for _, name := range out.Moved {
			row(stderr, "Sequence %s of %s was used since, and stays.\n", name, e.Destination.Region)
		}
		if err != nil {
			return setupError(err)
		}
		fmt.Fprintln(stderr, "No cutover is under way.")
		return nil
	})
	c.Flags().BoolVar(&force, "force", false, "also behind finish")
	movedFlag(c, &moved)
	return c
}

// stateWords says how far a cutover is.
func stateWords(s *hold.State) string {
	switch {
	case s.Finished && s.Paused:
		return "a cutover to " + s.Peer + " is finished; writes are paused for good"
	case !s.Paused:
		return "a cutover to " + s.Peer + " was begun; writes are given back"
	case s.Sequenced && s.Arrived:
		return "a cutover to " + s.Peer + " is ready to be finished"
	case s.Arrived:
		return "a cutover to " + s.Peer + ": all writes are there"
	}
	return "a cutover to " + s.Peer + ": writes are paused until " + s.Deadline.UTC().Format(time.RFC3339)
}
