package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/supervisor"
)

const uninstallAbout = `Removes what setup and run have made in the local database: slot, publication, replication origins, triggers, and schema
pgwaltz with all that it holds, the audit log too. It is refused while a sidecar is at work, in modes native and
pglogical, and while a cutover has paused writes. It may be run again. Tables, columns and roles are not touched: what
stays, such as rights of the sidecar's role and replica identities, is named. It connects as setup does.`

func newUninstall(env []string) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "uninstall --config FILE [--dry-run]",
		Short: "remove everything that setup has made in a database",
		Long:  uninstallAbout,
		Args:  noWords,
	}, exitOK, exitOther, exitUsage, exitConfig, exitCheck, exitPostgres, exitInterrupted)
	load := needsConfig(c, env)
	dry := c.Flags().Bool("dry-run", false, "print every statement and run none")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		ctx, stdout, stderr := c.Context(), forScreen(c.OutOrStdout()), c.ErrOrStderr()
		conn, err := supervisor.Connect(ctx, cfg)
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it ends with the process
		if *dry {
			plan, err := supervisor.PlanUninstall(ctx, conn, cfg)
			if err != nil {
				return setupError(err)
			}
			for _, s := range plan.Statements {
				s.Print(stdout)
			}
			return printPlan(stderr, plan.Findings, "%d statements to run; nothing was run.\n", plan.Pending())
		}
		plan, err := supervisor.Uninstall(ctx, conn, cfg, func(s fallback.Statement) { s.Print(stdout) })
		if err != nil {
			return setupError(err)
		}
		plan.Findings.Print(stderr, false)
		fmt.Fprintf(stderr, "Region %s is removed from this database: %d statements run.\n", cfg.Region, plan.Pending())
		return nil
	}
	return c
}
