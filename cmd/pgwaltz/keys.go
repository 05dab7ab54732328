package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/keys"
	"github.com/pgwaltz/pgwaltz/wal"
)

const keysAbout = `Compares the keys of the published tables of two regions, and lists those that have a row in
one of them only. After a gap these are rows that were deleted within it, or lost in a restore:
no WAL holds that any more. It changes nothing.

One line for each such key, separated by tabs: the table, the key, the region that has the row,
and what the other one knows of the key: a tombstone with its stamp, a parked change, or none.

Delete such a row where it is, with what --sql prints: that is replicated like any delete. Or
keep it: pgwaltz resync --config FILE TABLE, at the region that has it.

The other region is reached by --peer-dsn, or brings its keys as a file that
pgwaltz keys --write has made there. Where the database is reached, keys that differ are looked at
again when both regions have applied each other's changes; a file shows how it was when it was made.`

// keysOptions are the flags.
type keysOptions struct {
	peerDSN, peerKeys, only string
	write, sql, json        bool
	wait                    time.Duration
}

func newKeys(env []string) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "keys --config FILE (--peer-dsn DSN | --peer-keys FILE | --write) [SCHEMA.TABLE ...]",
		Short: "list the rows that only one of two regions has",
		Long:  keysAbout,
		Example: "  pgwaltz keys --config eu.yaml --peer-dsn postgres://pgwaltz@us.example/app\n" +
			"  pgwaltz keys --config us.yaml --write > us.keys\n" +
			"  pgwaltz keys --config eu.yaml --peer-keys us.keys public.orders\n" +
			"  pgwaltz keys --config eu.yaml --peer-dsn \"$US\" --only us --sql | psql \"$US\"",
	}, exitOK, exitOther, exitUsage, exitConfig, exitCheck, exitPostgres, exitPeer, exitDiffer, exitInterrupted)
	c.Args = func(_ *cobra.Command, words []string) error {
		_, err := tableNames(words)
		return err
	}
	load := needsConfig(c, env)
	var o keysOptions
	f := c.Flags()
	f.StringVar(&o.peerDSN, "peer-dsn", "", "the database of the other region; also PGWALTZ_PEER_DSN")
	f.StringVar(&o.peerKeys, "peer-keys", "", "a file that --write made at the other region; - is standard input")
	f.BoolVar(&o.write, "write", false, "write the keys of this region to standard output, for --peer-keys")
	f.StringVar(&o.only, "only", "", "only keys whose row is in this region")
	f.BoolVar(&o.sql, "sql", false, "print statements that delete the rows; needs --only")
	f.BoolVar(&o.json, "json", false, "print one JSON object for each key")
	f.DurationVar(&o.wait, "wait", 30*time.Second, "how long to wait for both regions to be in step")
	for flag, value := range map[string]string{"peer-dsn": "DSN", "peer-keys": "FILE", "only": "REGION", "wait": "TIME"} {
		takes(f, flag, value)
	}
	c.RunE = func(c *cobra.Command, tables []string) error {
		for _, e := range env {
			if dsn, ok := strings.CutPrefix(e, "PGWALTZ_PEER_DSN="); ok && o.peerDSN == "" && o.peerKeys == "" && !o.write {
				o.peerDSN = dsn
			}
		}
		if err := o.check(); err != nil {
			return err
		}
		cfg, err := load()
		if err != nil {
			return err
		}
		return o.run(c, cfg, tables)
	}
	return c
}

// check refuses flags that do not go together.
func (o *keysOptions) check() error {
	const help = "pgwaltz keys --help"
	n := 0
	for _, on := range []bool{o.peerDSN != "", o.peerKeys != "", o.write} {
		if on {
			n++
		}
	}
	switch {
	case n != 1:
		return &usageError{"one of --peer-dsn, --peer-keys and --write is needed", help}
	case o.sql && o.only == "":
		return &usageError{"--sql needs --only: a statement is for the region that has the row", help}
	case o.sql && o.json, o.write && (o.sql || o.json || o.only != ""):
		return &usageError{"these flags do not go together", help}
	}
	return nil
}

func (o *keysOptions) run(c *cobra.Command, cfg *config.Config, tables []string) error {
	ctx := c.Context()
	here, end, err := openKeys(ctx, cfg.Postgres.DSN.Reveal(), cfg, exitPostgres)
	if err != nil {
		return err
	}
	defer end()
	if here.Region() != cfg.Region || here.Cluster != cfg.Cluster {
		return &coded{exitCheck, fmt.Errorf("the database is region %q of cluster %q, and the configuration says %q of %q", here.Region(), here.Cluster, cfg.Region, cfg.Cluster)}
	}
	o.leftOut(c.ErrOrStderr(), here)
	if o.write {
		if len(tables) > 0 {
			return &usageError{"--write writes all tables", "pgwaltz keys --help"}
		}
		return keys.Write(c.OutOrStdout(), here.Cluster, here)
	}
	only, err := tableNames(tables)
	if err != nil {
		return err
	}
	cmp := keys.Comparison{Here: here, Only: only}
	sides := map[string]*keys.Database{here.Region(): here}
	cluster := ""
	if o.peerDSN != "" {
		there, end, err := openKeys(ctx, o.peerDSN, cfg, exitPeer)
		if err != nil {
			return err
		}
		defer end()
		o.leftOut(c.ErrOrStderr(), there)
		cmp.There, cluster, sides[there.Region()] = there, there.Cluster, there
		cmp.InStep = func() error {
			err := keys.InStep(ctx, here, there, o.wait)
			if errors.Is(err, keys.ErrNotInStep) {
				fmt.Fprintf(c.ErrOrStderr(), "Warning: %s; some of the keys may be on their way.\n", err)
				return nil
			}
			return err
		}
	} else {
		file, end, err := openFile(o.peerKeys, c.InOrStdin())
		if err != nil {
			return err
		}
		defer end()
		cmp.There, cluster = file, file.Cluster
	}
	if peer := cmp.There.Region(); cluster != cfg.Cluster || !slices.Contains(cfg.PeerNames(), peer) {
		return &coded{exitCheck, fmt.Errorf("the other side is region %q of cluster %q, which is no peer of this region", peer, cluster)}
	}
	if o.only != "" && o.only != here.Region() && o.only != cmp.There.Region() {
		return &usageError{fmt.Sprintf("--only %s: the regions that are compared are %s and %s", o.only, here.Region(), cmp.There.Region()), "pgwaltz keys --help"}
	}
	return o.compare(c, &cmp, sides)
}

// compare prints what differs.
func (o *keysOptions) compare(c *cobra.Command, cmp *keys.Comparison, sides map[string]*keys.Database) error {
	out, shown := c.OutOrStdout(), 0
	result, err := cmp.Run(func(d keys.Difference) error {
		if o.only != "" && d.In != o.only {
			return nil
		}
		shown++
		return o.print(out, d, cmp, sides)
	})
	if err != nil {
		return err
	}
	for t, in := range result.Missing {
		row(c.ErrOrStderr(), "Not compared: %s is listed by %s only.\n", t, in)
	}
	for _, t := range cmp.Only {
		if !slices.Contains(cmp.Here.Tables(), t) && !slices.Contains(cmp.There.Tables(), t) {
			return &coded{exitCheck, fmt.Errorf("table %s is not published in either region", t)}
		}
	}
	fmt.Fprintf(c.ErrOrStderr(), "%d tables and %d rows compared: %d keys have a row in one region only.\n", result.Tables, result.Rows, result.Differences)
	switch {
	case shown > 0:
		return silent(exitDiffer)
	case len(result.Missing) > 0:
		return silent(exitCheck)
	}
	return nil
}

func (o *keysOptions) print(out io.Writer, d keys.Difference, cmp *keys.Comparison, sides map[string]*keys.Database) (err error) {
	other := map[keys.State]string{keys.Dead: "tombstone", keys.Parked: "parked"}[d.Other]
	if other == "" {
		other = "none"
	}
	switch {
	case o.json:
		err = jsonLine(out, struct {
			Table  string   `json:"table"`
			Key    []string `json:"key"`
			Region string   `json:"region"`
			Other  string   `json:"other"`
			Stamp  string   `json:"stamp,omitempty"`
		}{d.Table.String(), d.Values, d.In, other, d.Note})
	case o.sql:
		side := sides[d.In]
		if side == nil {
			side = sides[cmp.Here.Region()] // the same table, described here
		}
		var sql string
		if sql, err = side.DeleteSQL(d.Table, d.Entry); err == nil {
			_, err = fmt.Fprintln(forScreen(out), sql)
		}
	default:
		if d.Note != "" {
			other += " " + d.Note
		}
		err = row(out, "%s\t%s\t%s\t%s\n", d.Table, readable(d), d.In, other)
	}
	if err != nil {
		return fmt.Errorf("print keys: %w", err)
	}
	return nil
}

// readable is the key in one line.
func readable(d keys.Difference) string {
	quoted := make([]string, len(d.Values))
	for i, v := range d.Values {
		quoted[i] = fmt.Sprintf("%q", v)
	}
	return "[" + strings.Join(quoted, ",") + "]"
}

// leftOut says which tables are not listed.
func (o *keysOptions) leftOut(stderr io.Writer, d *keys.Database) {
	for t, why := range d.Left {
		row(stderr, "Not listed in %s: %s: %s.\n", d.Region(), t, why)
	}
}

// openKeys opens a region's database.
func openKeys(ctx context.Context, dsn string, cfg *config.Config, code int) (*keys.Database, func(), error) {
	conn, err := pg.Connect(ctx, dsn, pg.Options{Region: cfg.Region, Role: "keys"})
	if err != nil {
		return nil, nil, &coded{code, err}
	}
	end := func() { conn.Close(context.WithoutCancel(ctx)) }
	d, err := keys.Open(ctx, conn, cfg.Postgres.Publication)
	if err != nil {
		end()
		return nil, nil, &coded{code, err}
	}
	return d, end, nil
}

// openFile opens a list; standard input goes into a file without a name first.
func openFile(path string, stdin io.Reader) (*keys.File, func(), error) {
	var f *os.File
	var err error
	if path == "-" {
		if f, err = os.CreateTemp("", "pgwaltz-keys-*"); err == nil {
			if err = os.Remove(f.Name()); err == nil {
				_, err = io.Copy(f, stdin)
			}
		}
	} else {
		f, err = os.Open(path)
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, nil, fmt.Errorf("read keys: %w", err)
	}
	list, err := keys.Read(f)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return list, func() { f.Close() }, nil
}

// tableNames reads words; nil for none.
func tableNames(words []string) (out []wal.RelationName, err error) {
	for _, w := range words {
		name, err := tableName(w)
		if err != nil {
			return nil, err
		}
		out = append(out, name)
	}
	return out, nil
}

// tableName reads SCHEMA.TABLE, or a table of schema public.
func tableName(s string) (wal.RelationName, error) {
	for _, text := range []string{s, "public." + s} {
		if name, ok := wal.ParseRelationName(text); ok {
			return name, nil
		}
	}
	if schema, name, ok := strings.Cut(s, "."); ok && schema != "" && name != "" && !strings.Contains(schema, `"`) && !strings.ContainsAny(name, `."`) {
		return wal.RelationName{Schema: schema, Name: name}, nil
	}
	return wal.RelationName{}, &usageError{fmt.Sprintf("%q is no table's name", s), "SCHEMA.TABLE"}
}
