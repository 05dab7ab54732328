package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/fallback/native"
	"github.com/pgwaltz/pgwaltz/internal/node"
	"github.com/pgwaltz/pgwaltz/internal/supervisor"
)

const modeCompareAbout = `Compares each table that a peer publishes with the one here, row counts and hashes of all rows,
and says which differ. It reads every row on both sides. What is written meanwhile makes tables
differ that are in step: it looks again until they are equal, or --wait is over.`

func newModeCompare(load func() (*config.Config, error)) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "compare --config FILE [--wait DURATION]",
		Short: "compare the tables of both sides, after a switch",
		Long:  modeCompareAbout,
		Args:  noWords,
	}, exitOK, exitOther, exitUsage, exitConfig, exitCheck, exitPostgres, exitPeer, exitDiffer, exitInterrupted)
	wait := c.Flags().Duration("wait", 10*time.Second, "how long to look again")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		return compareModes(c.Context(), cfg, *wait, c.OutOrStdout())
	}
	return c
}

// compareSwitched compares behind a switch, and says what it has found. It is no error: writes go on meanwhile, or the peer is away.
func compareSwitched(ctx context.Context, cfg *config.Config, within time.Duration, stdout, stderr io.Writer) {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %s", within))
	defer cancel()
	err := compareModes(ctx, cfg, min(within/2, 5*time.Second), stdout)
	switch code := exitCode(err); {
	case err == nil:
		fmt.Fprintln(stderr, "Both sides are equal.")
	case code == exitDiffer:
		fmt.Fprintln(stderr, "Tables differ: what was written meanwhile is under way still, or something is missing. When the regions are in step: pgwaltz mode compare")
	case ctx.Err() != nil && context.Cause(ctx) != nil:
		row(stderr, "Both sides were not compared: %v. When the regions are in step: pgwaltz mode compare\n", context.Cause(ctx))
	default:
		row(stderr, "Both sides were not compared: %v. When the regions are in step: pgwaltz mode compare\n", err)
	}
}

// codedUnlessWrong gives err a code, but where it says that a database is another one, which has its own.
func codedUnlessWrong(code int, err error) error {
	var wrong *node.WrongError
	if errors.As(err, &wrong) {
		return err
	}
	return &coded{code, err}
}

func compareModes(ctx context.Context, cfg *config.Config, wait time.Duration, stdout io.Writer) error {
	here, err := supervisor.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer here.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
	differ, peers := false, 0
	t := tabwriter.NewWriter(stdout, 0, 4, 2, ' ', 0)
	fmt.Fprint(t, "PEER\tTABLE\tROWS HERE\tROWS THERE\t\n")
	for _, p := range cfg.Peers {
		if p.DSN.IsZero() {
			continue
		}
		peers++
		there, err := native.DialPeer(ctx, cfg, p, true, pg.Options{Region: cfg.Region, Role: "compare"})
		if err != nil {
			return codedUnlessWrong(exitPeer, err)
		}
		list, err := fallback.CompareUntil(ctx, here, there, cfg.Postgres.Publication, time.Now().Add(wait))
		there.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
		if err != nil {
			return &coded{exitPostgres, err}
		}
		for _, c := range list {
			word := "equal"
			if !c.Same {
				word, differ = "differs", true
			}
			row(t, "%s\t%s\t%d\t%d\t%s\n", p.Region, c.Table, c.Here, c.There, word)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if peers == 0 {
		return &usageError{"no peer has a dsn: there is nothing to compare with", "give peers[].dsn"}
	}
	if differ {
		return silent(exitDiffer)
	}
	return nil
}
