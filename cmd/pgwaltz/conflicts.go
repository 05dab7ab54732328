package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/internal/config"
)

const conflictsAbout = `Lists the audit log of conflicts in this region's database, newest first.

Times are given as 2026-01-31, 2026-01-31T10:00:00Z, or as an age: 90m, 36h, 7d.`

var conflictsExits = []int{exitOK, exitOther, exitUsage, exitConfig, exitPostgres, exitInterrupted}

func newConflicts(env []string) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "conflicts --config FILE [flags]",
		Short: "list the audit log of conflicts, or show one",
		Long:  conflictsAbout,
		Example: "  pgwaltz conflicts --config eu.yaml --since 24h --table users\n" +
			"  pgwaltz conflicts show 17 --config eu.yaml",
		Args: onlyCommands,
	}, conflictsExits...)
	load := needsConfig(c, env)
	asJSON := c.PersistentFlags().Bool("json", false, "print JSON")
	filter := conflictFilter(c.Flags())
	c.RunE = func(c *cobra.Command, _ []string) error {
		filter, err := filter()
		if err != nil {
			return err
		}
		return withConflicts(c.Context(), load, func(conn *pgx.Conn) error {
			return listConflicts(c.Context(), conn, filter, *asJSON, c.OutOrStdout())
		})
	}
	c.RegisterFlagCompletionFunc("verdict", cobra.FixedCompletions(verdicts, cobra.ShellCompDirectiveNoFileComp))
	c.AddCommand(newConflictsShow(load, asJSON))
	return c
}

func newConflictsShow(load func() (*config.Config, error), asJSON *bool) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "show ID --config FILE [--json]",
		Short: "show one conflict with both rows side by side",
		Long:  "Shows one conflict with both rows side by side. ID is the number or the event id.",
	}, conflictsExits...)
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return &usageError{"show needs the id of a conflict", "pgwaltz conflicts --config FILE"}
		}
		return noWords(c, args[1:])
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		return withConflicts(c.Context(), load, func(conn *pgx.Conn) error {
			return showConflict(c.Context(), conn, args[0], *asJSON, c.OutOrStdout())
		})
	}
	return c
}

// verdicts are the words for what was done with the remote change; counted is what only the server knows of (mode native).
var verdicts = []string{"apply", "keep", "park", "discard", "counted"}

// conflictFilter adds the flags that choose conflicts, and returns what reads them.
func conflictFilter(f *pflag.FlagSet) func() (audit.Filter, error) {
	var filter audit.Filter
	f.StringVar(&filter.Table, "table", "", "only this table: users or public.users")
	f.StringVar(&filter.Key, "key", "", `only this key: a value of a key column, or the key as {"column": "value"}`)
	f.StringVar(&filter.Type, "type", "", "only this type, for example update_origin_differs")
	f.StringVar(&filter.Verdict, "verdict", "", "only this verdict: apply, keep, park, discard or counted")
	since := f.String("since", "", "only what was detected at or after this time")
	until := f.String("until", "", "only what was detected before this time")
	f.IntVar(&filter.Limit, "limit", 100, "at most so many rows")
	for flag, value := range map[string]string{"table": "TABLE", "key": "KEY", "type": "TYPE", "verdict": "VERDICT", "since": "TIME", "until": "TIME", "limit": "N"} {
		takes(f, flag, value)
	}
	return func() (audit.Filter, error) {
		if filter.Limit < 1 {
			return filter, &usageError{"limit must be at least 1", "pgwaltz conflicts --help"}
		}
		if t := filter.Type; t != "" && t != string(conflict.Other) && conflict.Told(t) == conflict.Other {
			var words []string
			for _, t := range conflict.Types() {
				words = append(words, string(t))
			}
			return filter, &usageError{fmt.Sprintf("--type %q is none of %s", t, strings.Join(words, ", ")), "pgwaltz conflicts --help"}
		}
		if v := filter.Verdict; v != "" && !slices.Contains(verdicts, v) {
			return filter, &usageError{fmt.Sprintf("--verdict %q is none of %s", v, strings.Join(verdicts, ", ")), "pgwaltz conflicts --help"}
		}
		return filter, errors.Join(readTime(&filter.Since, "since", *since), readTime(&filter.Until, "until", *until))
	}
}

// withConflicts calls f with a connection to the region's database.
func withConflicts(ctx context.Context, load func() (*config.Config, error), f func(*pgx.Conn) error) error {
	c, err := load()
	if err != nil {
		return err
	}
	conn, err := pg.Connect(ctx, c.Postgres.DSN.Reveal(), pg.Options{Region: c.Region, Role: "conflicts"})
	if err != nil {
		return &coded{exitPostgres, err}
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return f(conn)
}

func listConflicts(ctx context.Context, q audit.Querier, filter audit.Filter, asJSON bool, stdout io.Writer) error {
	rows, err := audit.List(ctx, q, filter)
	if err != nil {
		return &coded{exitPostgres, err}
	}
	if asJSON {
		if rows == nil {
			rows = []audit.Row{}
		}
		return printJSON(stdout, rows)
	}
	t := tabwriter.NewWriter(stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tDETECTED\tTABLE\tKEY\tTYPE\tVERDICT\tREASON\tWINNER\tLOSER")
	for _, r := range rows {
		row(t, "%d\t%s\t%s.%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.DetectedAt.UTC().Format("2006-01-02 15:04:05.000Z"), r.Schema, r.Table,
			shorten(string(r.Key), 60), r.Type, r.Verdict, r.Reason, r.Winner, r.Loser)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print conflicts: %w", err)
	}
	return nil
}

func showConflict(ctx context.Context, q audit.Querier, id string, asJSON bool, stdout io.Writer) error {
	row, err := audit.Get(ctx, q, id)
	switch {
	case errors.Is(err, audit.ErrNotFound):
		return err
	case err != nil:
		return &coded{exitPostgres, err}
	case !asJSON:
		return audit.WriteDiff(stdout, row)
	}
	diff, err := audit.Diff(row)
	if err != nil {
		return err
	}
	return printJSON(stdout, struct {
		audit.Row
		Diff []audit.ColumnDiff `json:"diff"`
	}{row, diff})
}

// readTime reads a point in time or an age.
func readTime(into *time.Time, name, text string) error {
	if text == "" {
		return nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			*into = t
			return nil
		}
	}
	if days, err := strconv.Atoi(text[:len(text)-1]); err == nil && text[len(text)-1] == 'd' && days >= 0 {
		*into = time.Now().AddDate(0, 0, -days)
		return nil
	}
	if age, err := time.ParseDuration(text); err == nil && age >= 0 {
		*into = time.Now().Add(-age)
		return nil
	}
	return &usageError{fmt.Sprintf("--%s %q is neither a time nor an age", name, text), "--" + name + " 2026-01-31T10:00:00Z, or --" + name + " 36h"}
}

func shorten(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}
