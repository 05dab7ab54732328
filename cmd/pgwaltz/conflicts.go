package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/internal/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
)

const (
	conflictsAbout = `Lists the audit log of conflicts in this region's database, newest first, or shows one
conflict with both rows side by side.

  pgwaltz conflicts -config FILE [flags]
  pgwaltz conflicts show -config FILE ID     ID: the number or the event id

Times are given as 2026-01-31, 2026-01-31T10:00:00Z, or as an age: 90m, 36h, 7d.`
)

func runConflicts(ctx context.Context, args, env []string, stdout, stderr io.Writer) int {
	f := newFlags("conflicts", "conflicts [show ID] -config FILE [flags]", conflictsAbout, exitOK, exitOther, exitUsage, exitConfig, exitPostgres, exitInterrupted)
	configPath := f.String("config", "", "configuration `file`")
	table := f.String("table", "", "only this table: users or public.users")
	key := f.String("key", "", `only this key: a value of a key column, or the key as {"column": "value"}`)
	kind := f.String("type", "", "only this type, for example update_origin_differs")
	verdict := f.String("verdict", "", "only this verdict: apply, keep or park")
	since := f.String("since", "", "only what was detected at or after this `time`")
	until := f.String("until", "", "only what was detected before this `time`")
	limit := f.Int("limit", 100, "at most so many rows")
	asJSON := f.Bool("json", false, "print JSON")

	show := len(args) > 0 && args[0] == "show"
	if show {
		args = args[1:]
	}
	id := ""
	if show && len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		id, args = args[0], args[1:]
	}
	if err := parseFlags(f, args, stdout, show); err != nil {
		return report(stderr, err)
	}
	if show && id == "" {
		id = f.Arg(0)
	}
	filter := audit.Filter{Table: *table, Key: *key, Type: *kind, Verdict: *verdict, Limit: *limit}
	err := errors.Join(readTime(&filter.Since, "since", *since), readTime(&filter.Until, "until", *until))
	switch {
	case err != nil:
		return report(stderr, err)
	case show && id == "":
		return report(stderr, &usageError{"show needs the id of a conflict", "pgwaltz conflicts -config FILE"})
	case *limit < 1:
		return report(stderr, &usageError{"limit must be at least 1", "pgwaltz conflicts -h"})
	}
	return report(stderr, func() error {
		c, err := config.Load(*configPath, env)
		if err != nil {
			return err
		}
		conn, err := pg.Connect(ctx, c.Postgres.DSN.Reveal(), pg.Options{Region: c.Region, Role: "conflicts"})
		if err != nil {
			return &coded{exitPostgres, err}
		}
		defer conn.Close(context.WithoutCancel(ctx))
		if show {
			return showConflict(ctx, conn, id, *asJSON, stdout)
		}
		return listConflicts(ctx, conn, filter, *asJSON, stdout)
	}())
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
		fmt.Fprintf(t, "%d\t%s\t%s.%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.DetectedAt.UTC().Format("2006-01-02 15:04:05.000Z"), r.Schema, r.Table,
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

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print json: %w", err)
	}
	return nil
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
	return &usageError{fmt.Sprintf("-%s %q is neither a time nor an age", name, text), "-" + name + " 2026-01-31T10:00:00Z, or -" + name + " 36h"}
}

func shorten(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}
