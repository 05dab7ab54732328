package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/internal/admin"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/status"
)

const statusAbout = `Shows both directions of the sidecar that runs with this configuration. When it does not
answer, the state is "down" and the rest is what the database itself can tell.`

func newStatus(env []string) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "status --config FILE [--json]",
		Short: "show both directions of a running sidecar",
		Long:  statusAbout,
		Args:  noWords,
	}, exitOK, exitOther, exitUsage, exitConfig, exitPostgres, exitPeer)
	load := needsConfig(c, env)
	asJSON := c.Flags().Bool("json", false, "print JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		return showStatus(c.Context(), cfg, *asJSON, c.OutOrStdout())
	}
	return c
}

func showStatus(ctx context.Context, c *config.Config, asJSON bool, stdout io.Writer) error {
	st, unreachable := fetchStatus(ctx, c)
	if unreachable != nil {
		var err error
		if st, err = statusOfDatabase(ctx, c); err != nil {
			return fmt.Errorf("%w; and the sidecar is down: %w", err, unreachable)
		}
		st.LastError = &status.LastError{At: time.Now(), Message: unreachable.Error()}
	}
	var err error
	if asJSON {
		err = printJSON(stdout, st)
	} else {
		err = printStatus(stdout, st, time.Now())
	}
	if err == nil && unreachable != nil {
		err = &coded{exitPeer, fmt.Errorf("the sidecar of region %s is down", c.Region)}
	}
	return err
}

// addressFile is where a sidecar whose http.listen has port 0 writes its address.
func addressFile(c *config.Config) string {
	if c.NATS.StoreDir == "" {
		return ""
	}
	return filepath.Join(c.NATS.StoreDir, "http.addr")
}

func fetchStatus(ctx context.Context, c *config.Config) (status.Status, error) {
	if c.HTTP.Listen == "" {
		return status.Status{}, fmt.Errorf("read status: http.listen is off")
	}
	address, err := admin.Address(c.HTTP.Listen, addressFile(c))
	if err != nil {
		return status.Status{}, err
	}
	st, err := admin.Fetch(ctx, address)
	if err == nil && st.Region != "" && st.Region != c.Region {
		return status.Status{}, fmt.Errorf("read status: %s belongs to region %s", address, st.Region)
	}
	return st, err
}

// statusOfDatabase is what stands in the database while the sidecar is down: the slot with
// what it retains, and how far each origin has been applied.
func statusOfDatabase(ctx context.Context, c *config.Config) (status.Status, error) {
	st := status.Status{Cluster: c.Cluster, Region: c.Region, Version: versionText(), State: status.Down, Inbound: []status.Inbound{}}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	conn, err := pg.Connect(ctx, c.Postgres.DSN.Reveal(), pg.Options{Region: c.Region, Role: "status"})
	if err != nil {
		return st, &coded{exitPostgres, err}
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if st.Outbound, err = slotStatus(ctx, conn, c); err != nil {
		return st, &coded{exitPostgres, err}
	}
	var ready bool
	if err := conn.QueryRow(ctx, `SELECT to_regclass('pgwaltz.checkpoint') IS NOT NULL AND to_regclass('pgwaltz.conflict') IS NOT NULL`).Scan(&ready); err != nil {
		return st, &coded{exitPostgres, fmt.Errorf("look for schema pgwaltz: %w", err)}
	}
	if !ready {
		return st, nil
	}
	if st.Inbound, err = checkpointStatus(ctx, conn); err != nil {
		return st, &coded{exitPostgres, err}
	}
	stats, err := audit.ReadStats(ctx, conn)
	if err != nil {
		return st, &coded{exitPostgres, err}
	}
	st.Conflicts = status.Conflicts{Total: uint64(stats.Total), ByType: map[string]uint64{}, LastAt: stats.LastAt, Last: stats.Last}
	for kind, n := range stats.ByType {
		st.Conflicts.ByType[kind] = uint64(n)
	}
	return st, nil
}

func slotStatus(ctx context.Context, conn *pgx.Conn, c *config.Config) (*status.Outbound, error) {
	if !c.Publishes() {
		return nil, nil
	}
	o := &status.Outbound{State: status.Down, Slot: c.Postgres.Slot, Peers: []status.Peer{}}
	rows, err := conn.Query(ctx, `SELECT active, coalesce(wal_status, ''), coalesce(safe_wal_size, 0), coalesce(confirmed_flush_lsn::text, ''),
		pg_current_wal_lsn()::text, coalesce(pg_current_wal_lsn() - confirmed_flush_lsn, 0)::bigint, coalesce(pg_current_wal_lsn() - restart_lsn, 0)::bigint
		FROM pg_replication_slots WHERE slot_name = $1`, c.Postgres.Slot)
	if err != nil {
		return nil, fmt.Errorf("read slot %s: %w", c.Postgres.Slot, err)
	}
	o.Reason = "there is no such slot"
	if _, err := pgx.ForEachRow(rows, []any{&o.SlotActive, &o.WALStatus, &o.SafeWALBytes, &o.ConfirmedLSN, &o.WALEnd, &o.BacklogBytes, &o.RetainedBytes}, func() error {
		o.Reason = "the sidecar does not answer"
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read slot %s: %w", c.Postgres.Slot, err)
	}
	return o, nil
}

func checkpointStatus(ctx context.Context, conn *pgx.Conn) ([]status.Inbound, error) {
	rows, err := conn.Query(ctx, `SELECT origin, coalesce(concat(system_id, '/', timeline, '/', slot), ''), coalesce(incarnation, 0), coalesce(frame_no, 0),
		coalesce(end_lsn::text, ''), coalesce(stream_seq, 0), coalesce(transactions, 0),
		(SELECT count(*) FROM pgwaltz.parked AS p WHERE p.origin = c.origin) FROM pgwaltz.checkpoint AS c ORDER BY origin`)
	if err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (status.Inbound, error) {
		in := status.Inbound{State: status.Down, Reason: "the sidecar does not answer"}
		err := row.Scan(&in.Origin, &in.Epoch, &in.Incarnation, &in.Frame, &in.EndLSN, &in.StreamSeq, &in.Transactions, &in.Parked)
		return in, err
	})
	if err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	return list, nil
}

// printStatus prints the account as tables.
func printStatus(w io.Writer, st status.Status, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(t, "region\t%s of cluster %s\n", st.Region, st.Cluster)
	fmt.Fprintf(t, "state\t%s\n", st.State)
	if !st.StartedAt.IsZero() {
		fmt.Fprintf(t, "sidecar\t%s, process %d, up %s\n", st.Version, st.PID, now.Sub(st.StartedAt).Round(time.Second))
	}
	fmt.Fprint(t, "\nDIRECTION\tSTATE\tLAG\t\tBACKLOG\tPOSITION\tREASON\n")
	if o := st.Outbound; o != nil {
		fmt.Fprintf(t, "%s -> stream\t%s\t%s\t%s\t%s\tconfirmed %s\t%s\n", st.Region, o.State, bytesText(o.BacklogBytes), secondsText(o.BacklogSeconds),
			fmt.Sprintf("%d messages", o.StreamMessages), dash(o.ConfirmedLSN), o.Reason)
		for _, p := range o.Peers {
			word := "reachable"
			if !p.Reachable {
				word = "unreachable"
			}
			fmt.Fprintf(t, "%s -> %s\t%s\t%s\t%s\t\tapplied %s\t\n", st.Region, p.Region, word, bytesText(p.LagBytes), secondsText(p.LagSeconds), dash(p.AppliedLSN))
		}
	}
	for _, in := range st.Inbound {
		fmt.Fprintf(t, "%s -> %s\t%s\t%s\t%s\t%s\tapplied %s\t%s\n", in.Origin, st.Region, in.State, bytesText(in.LagBytes), secondsText(in.LagSeconds),
			fmt.Sprintf("%d frames", in.BacklogFrames), dash(in.EndLSN), in.Reason)
	}
	fmt.Fprintln(t)
	if o := st.Outbound; o != nil {
		active := "not in use"
		if o.SlotActive {
			active = "in use"
		}
		fmt.Fprintf(t, "slot\t%s, %s, wal %s, retains %s\n", o.Slot, active, dash(o.WALStatus), bytesText(o.RetainedBytes))
		if o.ConfirmMode != "" {
			fmt.Fprintf(t, "confirm\t%s, %s at risk\n", o.ConfirmMode, bytesText(o.BytesAtRisk))
		}
	}
	fmt.Fprintf(t, "conflicts\t%s\n", conflictsText(st.Conflicts, now))
	troubles(t, st)
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print status: %w", err)
	}
	return nil
}

// troubles prints what a human should look at: gaps, parked changes, quarantine, errors.
func troubles(w io.Writer, st status.Status) {
	gap := func(name string, g *status.GapInfo) {
		if g != nil {
			fmt.Fprintf(w, "gap\t%s: %s to %s since %s; %s\n", name, g.From, g.To, g.Since.UTC().Format(time.RFC3339), g.Remedy)
		}
	}
	failure := func(name string, e *status.LastError) {
		if e == nil {
			return
		}
		var at []string
		for _, s := range []string{e.SQLState, e.Table, e.LSN} {
			if s != "" {
				at = append(at, s)
			}
		}
		where := ""
		if len(at) > 0 {
			where = " (" + strings.Join(at, ", ") + ")"
		}
		fmt.Fprintf(w, "last error\t%s at %s: %s%s\n", name, e.At.UTC().Format(time.RFC3339), e.Message, where)
	}
	if o := st.Outbound; o != nil {
		gap("outbound", o.Gap)
		failure("outbound", o.LastError)
	}
	for _, in := range st.Inbound {
		if in.Parked > 0 {
			fmt.Fprintf(w, "parked\t%d changes from %s\n", in.Parked, in.Origin)
		}
		if in.Quarantined > 0 {
			fmt.Fprintf(w, "quarantine\t%d messages from %s\n", in.Quarantined, in.Origin)
		}
		gap("inbound "+in.Origin, in.Gap)
		failure("inbound "+in.Origin, in.LastError)
	}
	for _, c := range st.Copy {
		fmt.Fprintf(w, "copy\t%s %s, %d rows\n", c.Table, c.State, c.Rows)
	}
	failure("sidecar", st.LastError)
}

func conflictsText(c status.Conflicts, now time.Time) string {
	s := fmt.Sprintf("%d", c.Total)
	if c.LastAt != nil {
		s += fmt.Sprintf(", last %s ago: %s", now.Sub(*c.LastAt).Round(time.Second), c.Last)
	}
	return s
}

func secondsText(s float64) string { return fmt.Sprintf("%.1f s", s) }

func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
