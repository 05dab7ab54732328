package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/visible"
	"github.com/pgwaltz/pgwaltz/wal"
)

const parkedAbout = `Looks after parked changes: those that this region could not apply, because a constraint, a
trigger, a privilege or the definition of the table is in their way. Everything else flows past them.
The sidecar tries them again by itself, at least every half minute.`

var parkedExits = []int{exitOK, exitOther, exitUsage, exitConfig, exitPostgres, exitInterrupted}

// missing says that changes were named which are not parked (any more).
func missing(named []int64, found int64) error {
	switch n := int64(len(named)) - found; {
	case n <= 0:
		return nil
	case len(named) == 1:
		return fmt.Errorf("parked change %d: %w; it went in, or was given up", named[0], parked.ErrNotFound)
	default:
		return fmt.Errorf("%d of the %d parked changes are not there: they went in, or were given up", n, len(named))
	}
}

func newParked(env []string) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "parked",
		Short: "list, show, retry or discard parked changes",
		Long:  parkedAbout,
		Example: "  pgwaltz parked list --config eu.yaml --table orders\n" +
			"  pgwaltz parked retry --config eu.yaml --all\n" +
			"  pgwaltz parked discard 17 --config eu.yaml",
		Args: onlyCommands,
		RunE: helpOnly,
	}, exitOK, exitUsage)
	load := needsConfig(c, env)
	c.AddCommand(newParkedList(load), newParkedShow(load), newParkedRetry(load), newParkedDiscard(load))
	return c
}

// parkedFilter adds the flags that choose parked changes, and returns what reads them
// together with the ids that were given.
func parkedFilter(f *pflag.FlagSet) func(args []string) (parked.Filter, error) {
	var filter parked.Filter
	f.StringVar(&filter.Table, "table", "", "only this table: users or public.users")
	f.StringVar(&filter.Origin, "origin", "", "only changes of this region")
	f.StringVar(&filter.State, "sqlstate", "", "only what failed with this SQLSTATE, for example 23505")
	for flag, value := range map[string]string{"table": "TABLE", "origin": "REGION", "sqlstate": "STATE"} {
		takes(f, flag, value)
	}
	return func(args []string) (parked.Filter, error) {
		for _, a := range args {
			id, err := parkedID(a)
			if err != nil {
				return filter, err
			}
			filter.IDs = append(filter.IDs, id)
		}
		return filter, nil
	}
}

// parkedIDs accepts ids and nothing else.
func parkedIDs(_ *cobra.Command, args []string) error {
	for _, a := range args {
		if _, err := parkedID(a); err != nil {
			return err
		}
	}
	return nil
}

func parkedID(text string) (int64, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, &usageError{fmt.Sprintf("%q is not the id of a parked change", text), "pgwaltz parked list --config FILE"}
	}
	return id, nil
}

func newParkedList(load func() (*config.Config, error)) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "list --config FILE [flags]",
		Short: "list parked changes, oldest first",
		Long:  "Lists parked changes, oldest first.",
		Args:  noWords,
	}, parkedExits...)
	filter := parkedFilter(c.Flags())
	limit := c.Flags().Int("limit", 100, "at most so many rows")
	takes(c.Flags(), "limit", "N")
	asJSON := c.Flags().Bool("json", false, "print JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		f, err := filter(nil)
		if err != nil {
			return err
		}
		if f.Limit = *limit; f.Limit < 1 {
			return &usageError{"limit must be at least 1", "pgwaltz parked list --help"}
		}
		return withParked(c.Context(), load, func(conn *pgx.Conn, _ *config.Config) error {
			return listParked(c.Context(), conn, f, *asJSON, c.OutOrStdout())
		})
	}
	return c
}

func listParked(ctx context.Context, q parked.Querier, f parked.Filter, asJSON bool, stdout io.Writer) error {
	rows, err := parked.List(ctx, q, f)
	if err != nil {
		return &coded{exitPostgres, err}
	}
	if asJSON {
		if rows == nil {
			rows = []parked.Row{}
		}
		return printJSON(stdout, rows)
	}
	t := tabwriter.NewWriter(stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tPARKED\tORIGIN\tTABLE\tKEY\tOP\tSQLSTATE\tTRIES\tREASON")
	for _, r := range rows {
		row(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", r.ID, r.ParkedAt.UTC().Format("2006-01-02 15:04:05Z"), r.Origin, wal.RelationName{Schema: r.Schema, Name: r.Table},
			shorten(r.Key, 60), r.Op, r.State, r.Attempts, shorten(r.Message, 80))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print parked changes: %w", err)
	}
	return nil
}

func newParkedShow(load func() (*config.Config, error)) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "show ID --config FILE [--json]",
		Short: "show one parked change with its row",
		Long:  "Shows one parked change with its row.",
	}, parkedExits...)
	asJSON := c.Flags().Bool("json", false, "print JSON")
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return &usageError{"show needs the id of a parked change", "pgwaltz parked list --config FILE"}
		}
		return noWords(c, args[1:])
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		id, err := parkedID(args[0])
		if err != nil {
			return err
		}
		return withParked(c.Context(), load, func(conn *pgx.Conn, _ *config.Config) error {
			return showParked(c.Context(), conn, id, *asJSON, c.OutOrStdout())
		})
	}
	return c
}

func showParked(ctx context.Context, q parked.Querier, id int64, asJSON bool, stdout io.Writer) error {
	r, err := parked.Get(ctx, q, id)
	switch {
	case errors.Is(err, parked.ErrNotFound):
		return err
	case err != nil:
		return &coded{exitPostgres, err}
	case asJSON:
		return printJSON(stdout, struct {
			parked.Row
			Image json.RawMessage `json:"row,omitempty"`
		}{r, json.RawMessage(r.Image)})
	}
	t := tabwriter.NewWriter(stdout, 0, 4, 2, ' ', 0)
	row(t, "id\t%d\norigin\t%s\ntable\t%s\nkey\t%s\nop\t%s\n", r.ID, r.Origin, wal.RelationName{Schema: r.Schema, Name: r.Table}, r.Key, r.Op)
	row(t, "sqlstate\t%s\nreason\t%s\ncommit_lsn\t%s\nparked_at\t%s\n", r.State, r.Message, r.CommitLSN, r.ParkedAt.UTC().Format(time.RFC3339))
	if r.RetriedAt != nil {
		fmt.Fprintf(t, "retried_at\t%s\n", r.RetriedAt.UTC().Format(time.RFC3339))
	}
	fmt.Fprintf(t, "tries\t%d\n", r.Attempts)
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print parked change: %w", err)
	}
	if r.Image == "" {
		return nil
	}
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(r.Image), "", "  "); err != nil {
		return fmt.Errorf("print parked change: %w", err)
	}
	_, err = fmt.Fprintln(stdout, visible.Lines(b.String()))
	return err
}

func newParkedRetry(load func() (*config.Config, error)) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "retry [ID...] --config FILE [flags]",
		Short: "try parked changes again now",
		Long: "Asks the running sidecar to try parked changes again now, and says what became of them: exit code 0 when\n" +
			"all of them went in, 10 when some failed again. Without ids, --all or another flag has to say which.",
		Args: parkedIDs,
	}, append(slices.Clone(parkedExits), exitPeer, exitParked)...)
	filter := parkedFilter(c.Flags())
	all := c.Flags().Bool("all", false, "all of them")
	wait := c.Flags().Duration("wait", 30*time.Second, "wait so long for the sidecar; 0 does not wait")
	c.RunE = func(c *cobra.Command, args []string) error {
		f, err := filter(args)
		if err != nil {
			return err
		}
		if !f.Narrow() && !*all {
			return &usageError{"say which changes to retry", "pgwaltz parked retry --config FILE --all"}
		}
		return withParked(c.Context(), load, func(conn *pgx.Conn, _ *config.Config) error {
			return retryParked(c.Context(), conn, f, *wait, c.OutOrStdout())
		})
	}
	return c
}

func retryParked(ctx context.Context, q parked.Querier, f parked.Filter, wait time.Duration, stdout io.Writer) error {
	ids, err := parked.Want(ctx, q, f)
	if err != nil {
		return &coded{exitPostgres, err}
	}
	gone := missing(f.IDs, int64(len(ids)))
	if len(ids) == 0 {
		_, err := fmt.Fprintln(stdout, "nothing to retry")
		return errors.Join(err, gone)
	}
	still, untried := len(ids), len(ids)
	for end := time.Now().Add(wait); untried > 0 && time.Now().Before(end); {
		if still, untried, err = parked.Waiting(ctx, q, ids); err != nil {
			return &coded{exitPostgres, err}
		}
		if untried == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	if _, err = fmt.Fprintf(stdout, "asked for %d, applied %d, failed again %d, not tried yet %d\n", len(ids), len(ids)-still, still-untried, untried); err != nil {
		return err
	}
	if untried > 0 && wait > 0 {
		return &coded{exitPeer, fmt.Errorf("%d were not tried within %s: pgwaltz status says whether the sidecar runs; it tries them when it does", untried, wait)}
	}
	if again := still - untried; again > 0 {
		return &coded{exitParked, fmt.Errorf("%d failed again: pgwaltz parked list says why", again)}
	}
	return gone
}

func newParkedDiscard(load func() (*config.Config, error)) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "discard [ID...] --config FILE [flags]",
		Short: "give parked changes up for good",
		Long: "Removes parked changes for good and notes each in the audit log (verdict discard). The rows stay as\n" +
			"they are in this region; they may differ from the other regions until they are written again.\n" +
			"Without ids, --all or another flag has to say which.",
		Args: parkedIDs,
	}, parkedExits...)
	filter := parkedFilter(c.Flags())
	all := c.Flags().Bool("all", false, "all of them")
	c.RunE = func(c *cobra.Command, args []string) error {
		f, err := filter(args)
		if err != nil {
			return err
		}
		if !f.Narrow() && !*all {
			return &usageError{"say which changes to discard", "pgwaltz parked list --config FILE"}
		}
		return withParked(c.Context(), load, func(conn *pgx.Conn, cfg *config.Config) error {
			n, err := parked.Discard(c.Context(), conn, f, cfg.Region, audit.DiscardInto)
			if err != nil {
				return &coded{exitPostgres, err}
			}
			if _, err = fmt.Fprintf(c.OutOrStdout(), "discarded %d\n", n); err != nil {
				return err
			}
			return missing(f.IDs, int64(n))
		})
	}
	return c
}

// withParked calls f with a connection to the region's database.
func withParked(ctx context.Context, load func() (*config.Config, error), f func(*pgx.Conn, *config.Config) error) error {
	c, err := load()
	if err != nil {
		return err
	}
	conn, err := pg.Connect(ctx, c.Postgres.DSN.Reveal(), pg.Options{Region: c.Region, Role: "parked"})
	if err != nil {
		return &coded{exitPostgres, err}
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return f(conn, c)
}
