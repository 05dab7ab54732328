package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/fallback/native"
	"github.com/pgwaltz/pgwaltz/internal/fallback/pglogical"
	"github.com/pgwaltz/pgwaltz/internal/node"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/internal/supervisor"
)

const modeAbout = `Who moves the rows: the sidecars (stream), subscriptions of PostgreSQL (native), or the extension
pglogical 2.4. See docs/fallback.md for what each mode promises.`

const modeShowAbout = `Says which mode is in effect, since when, and what the subscriptions of this region are.`

const modeSwitchAbout = `Brings the region into a mode: stream, native or pglogical. Run it in every region, each with its
sidecar stopped: first where changes are published, then where they are applied. It may be run
again, and finishes what was cut off. The region's slot is handed over, so that nothing is lost
and nothing comes twice; where that cannot be proved it is refused, with the reason.

Mode pglogical has to be prepared: run it with --prepare in every region first, with the sidecars
at work, and wait until they are in step. The names are those of pglogical; each has a default.

Behind the switch both sides are compared where this region applies, for as long as --compare says.

It connects as postgres.admin_dsn where that is given. Only the local database is changed, and
in mode pglogical the slots at the peers. Each session asks the server who it is: a standby, and a
database that is another region's or that run does not work in, are refused.`

func newMode(env []string) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "mode",
		Short: "show or switch who moves the rows: the stream, or the server's own replication",
		Long:  modeAbout,
		Args:  onlyCommands,
		RunE:  helpOnly,
	}, exitOK, exitUsage)
	load := needsConfig(c, env)
	show := exits(&cobra.Command{
		Use:   "show --config FILE",
		Short: "say which mode is in effect",
		Long:  modeShowAbout,
		Args:  noWords,
	}, exitOK, exitOther, exitUsage, exitConfig, exitCheck, exitPostgres, exitInterrupted)
	show.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		return showMode(c.Context(), cfg, c.OutOrStdout())
	}
	change := exits(&cobra.Command{
		Use:   "switch --config FILE [--dry-run] [--prepare] stream|native|pglogical",
		Short: "bring the region into another mode",
		Long:  modeSwitchAbout,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains([]string{"stream", "native", "pglogical"}, args[0]) {
				return &usageError{"switch needs one of stream, native, pglogical", c.CommandPath() + " --help"}
			}
			return nil
		},
	}, exitOK, exitOther, exitUsage, exitConfig, exitCheck, exitPostgres, exitInterrupted)
	dry := change.Flags().Bool("dry-run", false, "print every statement and run none")
	compare := change.Flags().Duration("compare", 30*time.Second, "how long to compare both sides behind the switch, where this region applies; 0 leaves it out")
	prepare := change.Flags().Bool("prepare", false, "mode pglogical: make what is needed besides the subscriptions")
	var names pglogical.Names
	change.Flags().StringVar(&names.Node, "node-name", "", "this region's node (default: the region)")
	nodeDSN := change.Flags().String("node-dsn", "", "this database as the others reach it (default: postgres.dsn)")
	change.Flags().StringVar(&names.Subscription, "subscription-name", "", "the subscription, where there is one peer (default: pgwaltz_CLUSTER_PEER)")
	provider := change.Flags().String("provider-dsn", "", "the peer's database, where there is one peer (default: peers[].dsn)")
	change.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		w := switching{cfg: cfg, to: config.Mode(args[0]), dry: *dry, prepare: *prepare, names: names, compare: *compare}
		w.names.NodeDSN = config.NewDSN(*nodeDSN)
		if err := w.provider(config.NewDSN(*provider)); err != nil {
			return &usageError{err.Error(), c.CommandPath() + " --help"}
		}
		return w.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
	}
	c.AddCommand(show, change, newModeCompare(load), newModePause(load, false), newModePause(load, true))
	return c
}

const modePauseAbout = `Disables the region's subscriptions in mode native or pglogical: nothing is applied until mode resume. The slots at the
peers keep the WAL meanwhile. run goes on and says so. It connects as postgres.admin_dsn where that is given.`

const modeResumeAbout = `Enables the region's subscriptions again.`

// newModePause is mode pause, and with on mode resume.
func newModePause(load func() (*config.Config, error), on bool) *cobra.Command {
	use, short, long := "pause", "let the subscriptions rest", modePauseAbout
	if on {
		use, short, long = "resume", "let the subscriptions go on", modeResumeAbout
	}
	c := exits(&cobra.Command{Use: use + " --config FILE [--dry-run]", Short: short, Long: long, Args: noWords}, exitOK, exitOther, exitUsage, exitConfig, exitCheck, exitPostgres, exitInterrupted)
	dry := c.Flags().Bool("dry-run", false, "print every statement and run none")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		ctx, stdout := c.Context(), forScreen(c.OutOrStdout())
		conn, err := supervisor.Connect(ctx, cfg)
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it ends with the process
		plan, err := supervisor.PlanPause(ctx, conn, cfg, on)
		if err != nil {
			return setupError(err)
		}
		if *dry {
			for _, s := range plan.Statements {
				s.Print(stdout)
			}
			return printPlan(c.ErrOrStderr(), plan.Findings, "%d statements to run, %d done already; nothing was run.\n", plan.Pending(), len(plan.Statements)-plan.Pending())
		}
		if err := plan.Run(ctx, conn, func(s fallback.Statement) { s.Print(stdout) }); err != nil {
			return setupError(err)
		}
		fmt.Fprintf(c.ErrOrStderr(), "%d statements run, %d were done already.\n", plan.Pending(), len(plan.Statements)-plan.Pending())
		return nil
	}
	return c
}

// switching is one call of mode switch.
type switching struct {
	cfg          *config.Config
	to           config.Mode
	dry, prepare bool
	names        pglogical.Names
	compare      time.Duration
}

// provider takes the peer's database from the command line. What is only for pglogical is refused elsewhere.
func (w *switching) provider(dsn config.DSN) error {
	n := w.names
	if w.to != config.ModePglogical && (w.prepare || n != pglogical.Names{} || !dsn.IsZero()) {
		return errors.New("--prepare and the names are for mode pglogical")
	}
	if (n.Subscription != "" || !dsn.IsZero()) && len(w.cfg.Peers) != 1 {
		return errors.New("--subscription-name and --provider-dsn are for a region with one peer")
	}
	if !dsn.IsZero() {
		then := *w.cfg
		then.Peers = slices.Clone(w.cfg.Peers)
		then.Peers[0].DSN = dsn
		w.cfg = &then
	}
	return nil
}

func (w *switching) plan(ctx context.Context, conn *pgx.Conn) (*fallback.Plan, error) {
	if w.prepare {
		return supervisor.PlanPrepare(ctx, conn, w.cfg, w.names)
	}
	return supervisor.Plan(ctx, conn, w.cfg, w.to, w.names)
}

func (w *switching) run(ctx context.Context, stdout, stderr io.Writer) error {
	cfg, to := w.cfg, w.to
	conn, err := supervisor.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it ends with the process
	if w.dry {
		plan, err := w.plan(ctx, conn)
		if err != nil {
			return setupError(err)
		}
		for _, s := range plan.Statements {
			s.Print(forScreen(stdout))
		}
		return printPlan(stderr, plan.Findings, "%d statements to run, %d done already; nothing was run.\n", plan.Pending(), len(plan.Statements)-plan.Pending())
	}
	ran := 0
	tell := func(s fallback.Statement) {
		ran++
		s.Print(forScreen(stdout))
	}
	var plan *fallback.Plan
	if w.prepare {
		plan, err = supervisor.Prepare(ctx, conn, cfg, w.names, tell)
	} else {
		plan, err = supervisor.Switch(ctx, conn, cfg, to, w.names, tell)
	}
	if plan != nil {
		var warnings preflight.Findings
		for _, f := range plan.Findings {
			if f.Severity == preflight.Warning {
				warnings = append(warnings, f)
			}
		}
		warnings.Print(stderr, false)
	}
	if err != nil {
		return setupError(err)
	}
	if w.prepare {
		fmt.Fprintf(stderr, "Region %s is prepared for mode %s: %d statements run, %d were done already.\nNext: the same in the other regions; wait until they are in step; stop the sidecars, and pgwaltz mode switch %s.\n", cfg.Region, to, ran, len(plan.Statements)-ran, to)
		return nil
	}
	fmt.Fprintf(stderr, "Region %s is in mode %s: %d statements run, %d were done already.\nNext: the same in the other regions, then pgwaltz run, and pgwaltz mode compare.\n", cfg.Region, to, ran, len(plan.Statements)-ran)
	if cfg.Mode != to {
		fmt.Fprintf(stderr, "The configuration says mode: %s. What was switched counts; change it there as well.\n", cfg.Mode)
	}
	if w.compare > 0 && cfg.Applies() && slices.ContainsFunc(cfg.Peers, func(p config.Peer) bool { return !p.DSN.IsZero() }) {
		compareSwitched(ctx, cfg, w.compare, stdout, stderr)
	}
	return nil
}

func showMode(ctx context.Context, cfg *config.Config, stdout io.Writer) error {
	conn, err := supervisor.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it ends with the process
	local, peers, err := pglogical.Look(ctx, conn, cfg, pglogical.Names{})
	if err != nil {
		return &coded{exitPostgres, err}
	}
	t := tabwriter.NewWriter(stdout, 0, 4, 2, ' ', 0)
	row(t, "region\t%s of cluster %s\n", cfg.Region, cfg.Cluster)
	row(t, "database\t%s, primary\n", node.Place{System: local.System}.ID())
	in, since := fallback.InEffect(cfg, local.Mode), "as the configuration says"
	if m := local.Mode; m != nil {
		since = "since " + m.Since.UTC().Format(time.RFC3339)
		if !m.Settled {
			since = "a switch to it was cut off; run it again"
		}
	}
	row(t, "mode\t%s, %s\n", in, since)
	row(t, "configured\t%s\n", cfg.Mode)
	for _, p := range peers {
		switch s := p.Peer.Sub; {
		case p.Sub != nil && p.Sub.Enabled:
			row(t, "from %s\tsubscription %s of pglogical, enabled, slot %s, applied %s\n", p.Region, p.Sub.Name, p.Sub.Slot, p.Sub.Progress)
		case p.Sub != nil:
			row(t, "from %s\tsubscription %s of pglogical, disabled, applied %s\n", p.Region, p.Sub.Name, p.Sub.Progress)
		case s == nil:
			row(t, "from %s\tno subscription\n", p.Region)
		case !s.Enabled:
			row(t, "from %s\tsubscription %s, disabled, applied %s\n", p.Region, native.Name(cfg.Cluster, p.Region), s.Progress)
		default:
			row(t, "from %s\tsubscription %s, enabled, slot %s, applied %s, %d tables\n", p.Region, native.Name(cfg.Cluster, p.Region), s.Slot, s.Progress, len(s.Tables))
		}
		if p.Err != nil {
			row(t, "\tits database cannot be read: %v\n", p.Err)
		}
	}
	return t.Flush()
}
