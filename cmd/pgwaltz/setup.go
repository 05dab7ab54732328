package main

import (
	"context"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/internal/visible"
)

const setupAbout = `Prepares the local database: schema pgwaltz, publication, replica identities, grants,
replication origins and, last, the slot. It never drops anything and may be run again at
any time, for example after tables were added. It connects as postgres.admin_dsn where that
is given, and as postgres.dsn otherwise. Statements are printed as they run.`

func newSetup(env []string) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "setup --config FILE [--dry-run]",
		Short: "prepare a database: schema, publication, slot, identities, grants",
		Long:  setupAbout,
		Args:  noWords,
	}, exitOK, exitOther, exitUsage, exitConfig, exitCheck, exitPostgres, exitInterrupted)
	load := needsConfig(c, env)
	dry := c.Flags().Bool("dry-run", false, "print every statement and run none")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		return setupRegion(c.Context(), cfg, *dry, c.OutOrStdout(), c.ErrOrStderr())
	}
	return c
}

func setupRegion(ctx context.Context, cfg *config.Config, dry bool, stdout, stderr io.Writer) error {
	open := func(ctx context.Context) (*pgx.Conn, error) {
		dsn := cfg.Postgres.AdminDSN
		if dsn.IsZero() {
			dsn = cfg.Postgres.DSN
		}
		return pg.Connect(ctx, dsn.Reveal(), pg.Options{Region: cfg.Region, Role: "setup", LockTimeout: cfg.Postgres.LockTimeout})
	}
	conn, err := open(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if dry {
		plan, err := preflight.Plan(ctx, conn, cfg)
		if err != nil {
			return &coded{exitPostgres, err}
		}
		plan.Print(forScreen(stdout))
		return printPlan(stderr, plan.Findings, "%d statements to run, %d done already; nothing was run.\n", plan.Pending(), len(plan.Statements)-plan.Pending())
	}
	ran := 0
	plan, err := preflight.Apply(ctx, conn, cfg, preflight.Talk{
		Ran: func(st preflight.Statement) {
			ran++
			st.Print(forScreen(stdout))
		},
		Waiting: func(st preflight.Statement, who string) {
			fmt.Fprintf(stderr, "waiting for old transaction %s: %s\n", visible.Text(who), visible.Text(st.Why))
		},
		Observe: open,
	})
	if plan != nil {
		// Errors are in the returned error.
		var warnings preflight.Findings
		for _, w := range plan.Findings {
			if w.Severity == preflight.Warning {
				warnings = append(warnings, w)
			}
		}
		warnings.Print(stderr, false)
	}
	if err != nil {
		return setupError(err)
	}
	fmt.Fprintf(stderr, "Region %s is set up: %d statements run, %d were done already.\nNext: pgwaltz check, then pgwaltz run.\n",
		cfg.Region, ran, len(plan.Statements)-ran)
	return nil
}

// printPlan ends a dry run: with what was found, each once, and a last line. Its error says that an error is among it.
func printPlan(stderr io.Writer, found preflight.Findings, format string, args ...any) error {
	found.Print(stderr, false)
	fmt.Fprintf(stderr, format, args...)
	if found.Count(preflight.Error) > 0 {
		return silent(exitCheck)
	}
	return nil
}

// setupError gives an error of the database its exit code; a refusal has its own.
func setupError(err error) error {
	if exitCode(err) != exitOther {
		return err
	}
	return &coded{exitPostgres, err}
}
