package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/fallback/native"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/internal/supervisor"
)

const modeAbout = `Who moves the rows: the sidecars (stream), or subscriptions of PostgreSQL (native). See
docs/fallback.md for what each mode promises.`

const modeShowAbout = `Says which mode is in effect, since when, and what the subscriptions of this region are.`

const modeSwitchAbout = `Brings the region into a mode: stream or native. Run it in every region, each with its
sidecar stopped: first where changes are published, then where they are applied. It may be run
again, and finishes what was cut off. The region's slot is handed over, so that nothing is lost
and nothing comes twice; where that cannot be proved it is refused, with the reason.

It connects as postgres.admin_dsn where that is given. Only the local database is changed.`

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
	}, exitOK, exitOther, exitUsage, exitConfig, exitPostgres, exitInterrupted)
	show.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		return showMode(c.Context(), cfg, c.OutOrStdout())
	}
	change := exits(&cobra.Command{
		Use:   "switch --config FILE [--dry-run] stream|native",
		Short: "bring the region into another mode",
		Long:  modeSwitchAbout,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains([]string{"stream", "native", "pglogical"}, args[0]) {
				return &usageError{"switch needs one of stream, native", c.CommandPath() + " --help"}
			}
			return nil
		},
	}, exitOK, exitOther, exitUsage, exitConfig, exitCheck, exitPostgres, exitInterrupted)
	dry := change.Flags().Bool("dry-run", false, "print every statement and run none")
	change.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		return switchMode(c.Context(), cfg, config.Mode(args[0]), *dry, c.OutOrStdout(), c.ErrOrStderr())
	}
	c.AddCommand(show, change, newModeCompare(load))
	return c
}

func switchMode(ctx context.Context, cfg *config.Config, to config.Mode, dry bool, stdout, stderr io.Writer) error {
	conn, err := supervisor.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it ends with the process
	if dry {
		plan, err := supervisor.Plan(ctx, conn, cfg, to)
		if err != nil {
			return setupError(err)
		}
		for _, s := range plan.Statements {
			s.Print(forScreen(stdout))
		}
		plan.Findings.Print(stderr, false)
		fmt.Fprintf(stderr, "%d statements to run, %d done already; nothing was run.\n", plan.Pending(), len(plan.Statements)-plan.Pending())
		return plan.Findings.Err("switch to mode " + string(to))
	}
	ran := 0
	plan, err := supervisor.Switch(ctx, conn, cfg, to, func(s fallback.Statement) {
		ran++
		s.Print(forScreen(stdout))
	})
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
	fmt.Fprintf(stderr, "Region %s is in mode %s: %d statements run, %d were done already.\nNext: the same in the other regions, then pgwaltz run, and pgwaltz mode compare.\n", cfg.Region, to, ran, len(plan.Statements)-ran)
	if cfg.Mode != to {
		fmt.Fprintf(stderr, "The configuration says mode: %s. What was switched counts; change it there as well.\n", cfg.Mode)
	}
	return nil
}

func showMode(ctx context.Context, cfg *config.Config, stdout io.Writer) error {
	conn, err := supervisor.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it ends with the process
	local, peers, err := native.Look(ctx, conn, cfg)
	if err != nil {
		return &coded{exitPostgres, err}
	}
	t := tabwriter.NewWriter(stdout, 0, 4, 2, ' ', 0)
	row(t, "region\t%s of cluster %s\n", cfg.Region, cfg.Cluster)
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
		switch s := p.Sub; {
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
