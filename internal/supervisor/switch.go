package supervisor

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/fallback/native"
	"github.com/pgwaltz/pgwaltz/internal/fallback/pglogical"
	"github.com/pgwaltz/pgwaltz/internal/lead"
	"github.com/pgwaltz/pgwaltz/internal/node"
	"github.com/pgwaltz/pgwaltz/internal/sidecar"
)

// Connect opens a session as the role that may change the database, and asks it who it is: a database of another region, a standby, or another one than that in
// which run works is a *node.WrongError. One that nobody has named yet is not. The caller closes the session.
func Connect(ctx context.Context, cfg *config.Config) (conn *pgx.Conn, err error) {
	options := pg.Options{Region: cfg.Region, Role: "mode", LockTimeout: cfg.Postgres.LockTimeout}
	dsn, setting := cfg.Postgres.AdminDSN, "postgres.admin_dsn"
	if dsn.IsZero() {
		dsn, setting = cfg.Postgres.DSN, "postgres.dsn"
	}
	if conn, err = pg.Connect(ctx, dsn.Reveal(), options); err != nil {
		return nil, err
	}
	if err = own(ctx, conn, cfg, setting); err == nil && !cfg.Postgres.AdminDSN.IsZero() {
		err = alike(ctx, conn, cfg, options)
	}
	if err != nil {
		conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
		return nil, err
	}
	return conn, nil
}

// own refuses a session, to which setting has led, with another database than the region's.
func own(ctx context.Context, conn *pgx.Conn, cfg *config.Config, setting string) error {
	place, err := node.LookAt(ctx, conn)
	if err != nil {
		return err
	}
	return place.Contradicts(node.Row{Region: cfg.Region, Cluster: cfg.Cluster}, setting)
}

// alike refuses an admin_dsn that leads to another database than the one of run: what is noted there nobody would read.
func alike(ctx context.Context, conn *pgx.Conn, cfg *config.Config, options pg.Options) error {
	admin, err := pg.LoadSystem(ctx, conn)
	if err != nil {
		return err
	}
	other, err := pg.Connect(ctx, cfg.Postgres.Fresh().Reveal(), options)
	if err != nil {
		return fmt.Errorf("ask the database of postgres.dsn who it is: %w", err)
	}
	defer other.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
	run, err := pg.LoadSystem(ctx, other)
	if err != nil {
		return err
	}
	if run.SystemID != admin.SystemID || run.Database != admin.Database {
		return &node.WrongError{What: fmt.Sprintf("postgres.admin_dsn leads to database %s, and postgres.dsn to %s", node.Place{System: admin}.ID(), node.Place{System: run}.ID()),
			Remedy: "let both lead to the database of region " + cfg.Region}
	}
	return nil
}

// Plan works out what a switch to mode would run, and runs nothing. The names are for mode pglogical.
func Plan(ctx context.Context, conn *pgx.Conn, cfg *config.Config, to config.Mode, names pglogical.Names) (*fallback.Plan, error) {
	return plan(ctx, conn, cfg, to, names, "")
}

// plan is Plan of a person, or of a region's process that switches by itself.
func plan(ctx context.Context, conn *pgx.Conn, cfg *config.Config, to config.Mode, names pglogical.Names, by string) (*fallback.Plan, error) {
	// What the other mode asks of the configuration is asked before anything is changed.
	then := *cfg
	then.Mode, then.Fallback.To = to, ""
	if err := then.Validate(); err != nil {
		return nil, err
	}
	local, peers, err := pglogical.Look(ctx, conn, cfg, names)
	if err != nil {
		return nil, fmt.Errorf("plan the switch: %w", err)
	}
	local.By = by
	var inNative []*native.Peer
	for _, p := range peers {
		inNative = append(inNative, p.Peer)
	}
	switch from := fallback.InEffect(cfg, local.Mode); {
	case to == config.ModeStream && (local.Set || local.Prepared != 0 || pglogical.Subscribed(peers)): // also behind a kill, when the row says stream already
		return pglogical.DecideStream(cfg, local, peers, resync(cfg)), nil
	case to == config.ModeStream:
		return native.DecideStream(cfg, local.Local, inNative, resync(cfg)), nil
	case to == config.ModeNative && pglogical.Subscribed(peers), to == config.ModePglogical && native.Subscribed(inNative):
		p := &fallback.Plan{To: to}
		p.Refuse("other_mode", "pgwaltz mode switch stream, and let the regions come in step", "subscriptions of mode %s are at work here", from)
		return p, nil
	case to == config.ModePglogical:
		return pglogical.Decide(cfg, local, peers, names), nil
	}
	return native.Decide(cfg, local.Local, inNative), nil
}

// PlanPrepare works out what Prepare would run, and runs nothing.
func PlanPrepare(ctx context.Context, conn *pgx.Conn, cfg *config.Config, names pglogical.Names) (*fallback.Plan, error) {
	local, _, err := pglogical.Look(ctx, conn, cfg, names)
	if err != nil {
		return nil, fmt.Errorf("prepare mode pglogical: %w", err)
	}
	return pglogical.Prepare(cfg, local, names), nil
}

// Prepare makes what mode pglogical needs in this region besides the subscriptions. A sidecar may be at work meanwhile.
func Prepare(ctx context.Context, conn *pgx.Conn, cfg *config.Config, names pglogical.Names, ran func(fallback.Statement)) (*fallback.Plan, error) {
	p, err := PlanPrepare(ctx, conn, cfg, names)
	if err != nil {
		return nil, err
	}
	return p, p.Run(ctx, conn, ran)
}

// Weaker is what a mode does not promise and the stream does.
func Weaker(m config.Mode) []string {
	switch m {
	case config.ModeNative:
		return native.Weaker()
	case config.ModePglogical:
		return pglogical.Weaker()
	}
	return nil
}

// resync asks the region's sidecar to open its stream anew, and to copy all tables.
func resync(cfg *config.Config) fallback.Statement {
	return fallback.Statement{
		Why: "the stream has not seen what the subscriptions brought: it opens anew behind the gap, and all tables are copied and merged", Shown: "-- pgwaltz resync",
		Do: func(ctx context.Context, _ *pgx.Conn) error {
			return sidecar.Rejoin(ctx, cfg)
		},
	}
}

// Switch brings the region into a mode, and tells ran behind each statement. It holds the region's lead meanwhile, so that no
// sidecar works; one that does makes it a *preflight.Refusal. A switch that was cut off is finished by the next one.
func Switch(ctx context.Context, conn *pgx.Conn, cfg *config.Config, to config.Mode, names pglogical.Names, ran func(fallback.Statement)) (*fallback.Plan, error) {
	if busy, err := claim(ctx, conn, cfg, &fallback.Plan{To: to}); err != nil || busy != nil {
		return busy, err
	}
	p, err := Plan(ctx, conn, cfg, to, names)
	if err != nil {
		return nil, err
	}
	return p, p.Run(ctx, conn, ran)
}

// claim takes the lead for the session. p is returned, and refuses, where a sidecar has it. Where setup was not run
// there is none to take, and the plan says so.
func claim(ctx context.Context, conn *pgx.Conn, cfg *config.Config, p *fallback.Plan) (*fallback.Plan, error) {
	ok, err := lead.Claim(ctx, conn, cfg.Region)
	switch pg.Code(err) {
	case "42P01", "3F000":
		return nil, nil
	case "55P03":
		ok, err = false, nil
	}
	if err != nil {
		return nil, fmt.Errorf("take the lead of region %s: %w", cfg.Region, err)
	}
	if ok {
		return nil, nil
	}
	h, err := lead.Look(ctx, conn, cfg.Region)
	if err != nil {
		return nil, fmt.Errorf("look for the sidecar of region %s: %w", cfg.Region, err)
	}
	if h.PID == int(conn.PgConn().PID()) {
		return nil, nil
	}
	p.Refuse("sidecar_runs", "stop it first", "a sidecar of region %s is at work (its session is process %d of the server)", cfg.Region, h.PID)
	return p, p.Err()
}
