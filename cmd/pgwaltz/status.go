package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/internal/admin"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/internal/supervisor"
	"github.com/pgwaltz/pgwaltz/internal/visible"
)

const statusAbout = `Shows both directions of the sidecar that runs with this configuration. When it does not
answer, the state is "down" and the rest is what the database itself can tell.

The exit code says what is not well, and is 0 for replicating, catching-up and standby. With
--check it prints one line: for health checks of containers and monitoring. --allow lists
states that are to count as well, --max-lag makes a larger lag count as not well.`

func newStatus(env []string) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "status --config FILE [--json | --check] [--allow STATE,...] [--max-lag DURATION]",
		Short: "show both directions of a running sidecar",
		Long:  statusAbout,
		Args:  noWords,
	}, exitOK, exitOther, exitUsage, exitConfig, exitPostgres, exitPeer, exitPartitioned, exitGap, exitParked, exitDown, exitBehind)
	load := needsConfig(c, env)
	v := view{stdout: c.OutOrStdout}
	c.Flags().BoolVar(&v.json, "json", false, "print JSON")
	c.Flags().BoolVar(&v.check, "check", false, "print one line")
	c.Flags().StringSliceVar(&v.allow, "allow", nil, "states that count as well: partitioned, gap, parked, down")
	c.Flags().DurationVar(&v.maxLag, "max-lag", 0, "the largest lag of a direction that counts as well, such as 60s; 0 means any")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := v.validate(); err != nil {
			return err
		}
		cfg, err := load()
		if err != nil {
			return err
		}
		return v.show(c.Context(), cfg)
	}
	return c
}

// view is what of a status is wanted, and in which form.
type view struct {
	stdout      func() io.Writer
	json, check bool
	allow       []string
	maxLag      time.Duration
}

func (v *view) validate() error {
	if v.json && v.check {
		return &usageError{"--json and --check exclude each other", "pgwaltz status --help"}
	}
	for _, s := range v.allow {
		if stateExit[status.State(s)] == exitOK {
			return &usageError{fmt.Sprintf("--allow %s: it is not one of partitioned, gap, parked, down", s), "pgwaltz status --help"}
		}
	}
	if v.maxLag < 0 {
		return &usageError{"--max-lag is below 0", "pgwaltz status --help"}
	}
	return nil
}

func (v *view) show(ctx context.Context, c *config.Config) error {
	st, unreachable := fetchStatus(ctx, c)
	if unreachable != nil {
		var err error
		if st, err = statusOfDatabase(ctx, c); err != nil {
			return fmt.Errorf("%w; and the sidecar is down: %w", err, unreachable)
		}
		st.LastError = &status.LastError{At: time.Now(), Since: time.Now(), Message: unreachable.Error()}
	}
	code, why := v.judge(st)
	if unreachable != nil {
		code, why = exitPeer, fmt.Sprintf("the sidecar of region %s is down", c.Region)
		if st.Outbound != nil && st.Outbound.SlotActive && st.Mode == "" {
			why = fmt.Sprintf("no sidecar of region %s is found here, and its slot is in use: run this where it runs, with its environment (STATE_DIRECTORY), or give http.listen a port", c.Region)
		}
	}
	var err error
	switch {
	case v.json:
		err = printJSON(v.stdout(), st)
	case v.check:
		_, err = fmt.Fprintln(v.stdout(), visible.Text(checkLine(st, code, why)))
	default:
		err = printStatus(v.stdout(), st, time.Now())
	}
	switch {
	case err != nil:
		return err
	case unreachable != nil && !v.check:
		return &coded{code, fmt.Errorf("%s", why)}
	case code != exitOK:
		return silent(code) // it was printed
	}
	return nil
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
	if st.Inbound, err = checkpointStatus(ctx, conn, c.Region); err != nil {
		return st, &coded{exitPostgres, err}
	}
	row, err := fallback.Load(ctx, conn, c.Region)
	if err != nil {
		return st, &coded{exitPostgres, err}
	}
	if mode := fallback.InEffect(c, row); mode != config.ModeStream {
		st.Mode, st.Weaker = string(mode), supervisor.Weaker(mode)
		reason := "no process of this region is at work; what the server itself replicates meanwhile: pgwaltz mode show"
		if st.Outbound != nil && st.Outbound.WALStatus != "" { // the slot is there
			st.Outbound.Reason = reason
		}
		for i := range st.Inbound {
			st.Inbound[i].Reason = reason
		}
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

// checkpointStatus leaves the row of the region itself out: that is the self-merge.
func checkpointStatus(ctx context.Context, conn *pgx.Conn, region string) ([]status.Inbound, error) {
	origins, err := pgstore.Origins(ctx, conn)
	if err != nil {
		return nil, err
	}
	waiting, err := parked.Counts(ctx, conn)
	if err != nil {
		return nil, err
	}
	list := []status.Inbound{}
	for _, origin := range origins {
		cp, found, err := pgstore.Load(ctx, conn, origin)
		if err != nil {
			return nil, err
		}
		if !found || origin == region {
			continue
		}
		list = append(list, status.Inbound{
			Origin: origin, State: status.Down, Reason: "the sidecar does not answer", Epoch: cp.Epoch.String(), Incarnation: cp.Incarnation, Frame: cp.FrameNo,
			EndLSN: cp.EndLSN.String(), StreamSeq: cp.StreamSeq, Transactions: cp.Transactions, Parked: waiting[origin],
		})
	}
	return list, nil
}
