package main

import (
	"context"
	"fmt"
	"io"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/sidecar"
)

const resyncAbout = `Copies tables of this region to its peers again, through the ordinary merge: newer rows at
a peer stay. Without names it copies all published tables, and closes a gap between the slot
and what was published: the stream is opened anew behind it. The running sidecar does the
work; progress shows in status.

Rows that were deleted here within a gap stay at the peers: their deletes are in no log.`

func runResync(ctx context.Context, args, env []string, stdout, stderr io.Writer) int {
	f := newFlags("resync", "resync -config FILE [-recreate-slot] [schema.table ...]", resyncAbout, exitOK, exitOther, exitUsage, exitConfig, exitPostgres, exitInterrupted)
	file := f.String("config", "", "configuration `file`")
	table := f.String("table", "", "`schema.table` to copy; more may follow as words")
	recreate := f.Bool("recreate-slot", false, "drop a lost slot and create it anew before copying")
	if err := parseFlags(f, args, stdout, true); err != nil {
		return report(stderr, err)
	}
	cfg, err := config.Load(*file, env)
	if err != nil {
		return report(stderr, err)
	}
	tables := f.Args()
	if *table != "" {
		tables = append(tables, *table)
	}
	n, err := sidecar.Resync(ctx, cfg, tables, *recreate)
	if err != nil {
		return report(stderr, &coded{exitPostgres, err})
	}
	fmt.Fprintf(stdout, "%d tables will be copied; watch `pgwaltz status`\n", n)
	return exitOK
}
