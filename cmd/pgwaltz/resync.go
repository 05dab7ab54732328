package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/internal/sidecar"
	"github.com/pgwaltz/pgwaltz/internal/visible"
)

const resyncAbout = `Copies tables of this region to its peers again, through the ordinary merge: newer rows at
a peer stay. Without names it copies all published tables, and closes a gap between the slot
and what was published: the stream is opened anew behind it. The sidecar does the work, at once
or when it is started; progress shows in status.

Rows that were deleted here within a gap stay at the peers: their deletes are in no WAL.
pgwaltz keys lists them.`

func newResync(env []string) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "resync --config FILE [--recreate-slot] [SCHEMA.TABLE ...]",
		Short: "copy tables to the peers again, or reopen a stream after a gap",
		Long:  resyncAbout,
	}, exitOK, exitOther, exitUsage, exitConfig, exitPostgres, exitInterrupted)
	load := needsConfig(c, env)
	table := c.Flags().String("table", "", "a table to copy; more may follow as words")
	takes(c.Flags(), "table", "SCHEMA.TABLE")
	recreate := c.Flags().Bool("recreate-slot", false, "drop a slot that cannot be read on, and create it anew before copying")
	c.RunE = func(c *cobra.Command, tables []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		if !cfg.Publishes() {
			return &usageError{fmt.Sprintf("region %s only applies (direction: apply): it sends nothing that could be copied", cfg.Region), "pgwaltz resync --config FILE at the regions that publish"}
		}
		if *table != "" {
			tables = append(tables, *table)
		}
		done, err := sidecar.Resync(c.Context(), cfg, tables, *recreate)
		if err != nil {
			return &coded{exitPostgres, err}
		}
		fmt.Fprint(c.OutOrStdout(), visible.Lines(done.String()))
		return nil
	}
	return c
}
