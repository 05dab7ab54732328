package main

import (
	"errors"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/internal/pgsync"
	"github.com/pgwaltz/pgwaltz/internal/visible"
)

const pgsyncAbout = `Copies tables one way, from one database into another, as the jobs of the file say. A link of
the name pgsync to pgwaltz is this command, so that a line of a crontab stays as it is.

With --once every table is copied as a whole: it shows what it was before, or all of it. Without
it what changed is copied, again and again where the file has a poll_interval. While a worker
is at work for a file, another start ends at once with 0.

Where the source's role may read a replication slot, and wal_level is logical, a slot tells what
changed; otherwise the tables are asked. The log says which, and what is missing. A slot keeps
WAL at the source until it is read: --forget gives it up, with all that is remembered of a job.`

func newPgsync() *cobra.Command {
	c := exits(&cobra.Command{
		Use:     "pgsync --config FILE [--once | --forget JOB]",
		Short:   "copy tables one way, from a file with jobs",
		Long:    pgsyncAbout,
		Example: "  pgsync --config /etc/pgsync.users.yaml --once\n  * * * * * /usr/local/bin/pgsync --config /etc/pgsync.users.yaml >> /var/log/pgsync.log 2>&1",
		Args:    noWords,
	}, exitOK, exitOther, exitUsage, exitConfig, exitPostgres, exitInterrupted)
	file := c.Flags().String("config", "", "the file with the jobs")
	takes(c.Flags(), "config", "FILE")
	once := c.Flags().Bool("once", false, "copy every table as a whole, and end")
	forget := c.Flags().String("forget", "", "give up the slot of a job, and all that is remembered of it")
	takes(c.Flags(), "forget", "JOB")
	c.MarkFlagsMutuallyExclusive("once", "forget")
	c.RunE = func(c *cobra.Command, _ []string) error {
		log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
		var err error
		if *forget != "" {
			err = pgsync.Forget(c.Context(), *file, *forget, log)
		} else {
			err = pgsync.Run(c.Context(), pgsync.Options{File: *file, Once: *once, Log: log})
		}
		if err == nil {
			return nil
		}
		if logged := (*pgsync.LoggedError)(nil); errors.As(err, &logged) {
			return silent(exitCode(err))
		}
		args := []any{"reason", visible.Lines(strings.Join(strings.Fields(err.Error()), " "))}
		var h interface{ Hint() string }
		if errors.As(err, &h) && h.Hint() != "" {
			args = append(args, "try", h.Hint())
		}
		log.Error("pgsync ended", args...)
		return silent(exitCode(err))
	}
	return c
}

// byName puts the command in front that the name of the program stands for.
func byName(program string, args []string) []string {
	name := filepath.Base(program)
	if runtime.GOOS == "windows" {
		name = strings.TrimSuffix(strings.ToLower(name), ".exe")
	}
	if name == "pgsync" {
		return append([]string{"pgsync"}, args...)
	}
	return args
}
