package cutover

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/node"
)

// End is one of the two databases, with its session.
type End struct {
	Region string
	Conn   *pgx.Conn // nil: it cannot be asked
	Sys    pg.System
	Why    error    // it cannot be asked
	Ours   []string // roles as which pgwaltz works here, as far as the configuration says

	dial func(context.Context) (*End, error)
}

// ID is the system identifier and the database: what tells a database from its namesakes.
func (e *End) ID() string { return fmt.Sprintf("%d/%s", e.Sys.SystemID, e.Sys.Database) }

// Ends are the two databases. Source and Destination are never the same. One goroutine uses them.
type Ends struct {
	Source, Destination *End
	// Moved is what somebody says the source is now, behind pg_upgrade or a move to another server: it is taken for the cutover's own where it
	// has that cutover's notes and database name. For giving writes back only; "" for nothing.
	Moved string

	cfg *config.Config
}

// Way says which of the two regions is the source. One of both is set, or none where the region has one peer
// with a dsn: then the configuration's own region is the source.
type Way struct{ From, To string }

// UsageError is a way that the configuration does not have.
type UsageError struct{ What, Remedy string }

func (e *UsageError) Error() string { return e.What }

// Hint is the remedy.
func (e *UsageError) Hint() string { return e.Remedy }

// ExitCode is that of wrong usage.
func (e *UsageError) ExitCode() int { return 2 }

// peer is the other region of the way.
func (w Way) peer(cfg *config.Config) (config.Peer, error) {
	name := w.To + w.From
	if w.From != "" && w.To != "" {
		return config.Peer{}, &UsageError{"--from and --to exclude each other: the other end is the configuration's own region", "give one of both"}
	}
	var with []config.Peer
	for _, p := range cfg.Peers {
		if !p.DSN.IsZero() {
			with = append(with, p)
		}
	}
	if name == "" {
		if len(with) != 1 {
			return config.Peer{}, &UsageError{fmt.Sprintf("%d peers have a dsn", len(with)), "give peers[].dsn, and --to REGION or --from REGION"}
		}
		return with[0], nil
	}
	i := slices.IndexFunc(with, func(p config.Peer) bool { return p.Region == name })
	if i < 0 {
		return config.Peer{}, &UsageError{fmt.Sprintf("no peer %q with a dsn is in the configuration", name), "give peers[].dsn"}
	}
	return with[i], nil
}

// IdentityError: a server is not the one that is wanted. Nothing was changed.
type IdentityError struct{ What, Remedy string }

func (e *IdentityError) Error() string { return e.What }

// Hint is the remedy.
func (e *IdentityError) Hint() string { return e.Remedy }

// ExitCode is that of problems found.
func (e *IdentityError) ExitCode() int { return 4 }

// Need is what a command needs the two ends to be.
type Need int

// Each end says who it is: the region and the cluster of the configuration, and the primary.
const (
	Both   Need = iota // both are the regions that the configuration says
	Beside             // both are these, or no regions of pgwaltz yet
	Source             // the source is; a destination that cannot be asked, is a standby or another region's is no error: its Conn is nil
)

// Open connects to both ends and asks who they are. The caller closes them.
func Open(ctx context.Context, cfg *config.Config, w Way, need Need) (*Ends, error) {
	p, err := w.peer(cfg)
	if err != nil {
		return nil, err
	}
	local := cfg.Postgres.AdminDSN
	if local.IsZero() {
		local = cfg.Postgres.DSN
	}
	setting := "postgres.admin_dsn"
	if cfg.Postgres.AdminDSN.IsZero() {
		setting = "postgres.dsn"
	}
	here, hereErr := open(ctx, cfg, cfg.Region, local, setting, need)
	there, thereErr := open(ctx, cfg, p.Region, p.DSN, "peers[].dsn", need)
	var away *pg.ConnectError
	if errors.As(thereErr, &away) {
		thereErr = &peerError{thereErr}
	}
	// The role of run, and not only that of this session.
	here.Ours, there.Ours = []string{cfg.Postgres.DSN.User()}, []string{p.DSN.User()}
	e := &Ends{Source: here, Destination: there, cfg: cfg}
	err, other := hereErr, thereErr
	if w.From != "" {
		e.Source, e.Destination = there, here
		err, other = thereErr, hereErr
	}
	if err == nil && need != Source {
		err = other
	}
	if here.Sys.SystemID != 0 && here.ID() == there.ID() { // before anything else that is said of them
		err = &IdentityError{fmt.Sprintf("both ends are the same database (%s), or one is a copy of the other", here.ID()), "look at postgres.dsn and peers[].dsn"}
	}
	if err != nil {
		e.Close(ctx)
		return nil, err
	}
	e.Destination.Why = other
	return e, nil
}

type peerError struct{ error }

func (e *peerError) Unwrap() error { return e.error }

// ExitCode is that of a peer out of reach.
func (e *peerError) ExitCode() int { return 6 }

// open asks the server who it is, with each session. setting is where dsn is from.
func open(ctx context.Context, cfg *config.Config, region string, dsn config.DSN, setting string, need Need) (*End, error) {
	conn, err := pg.Connect(ctx, dsn.Reveal(), pg.Options{Region: cfg.Region, Role: "cutover", LockTimeout: cfg.Postgres.LockTimeout})
	if err != nil {
		return &End{Region: region}, fmt.Errorf("region %s: %w", region, err)
	}
	e := &End{Region: region, Conn: conn, dial: func(ctx context.Context) (*End, error) { return open(ctx, cfg, region, dsn, setting, need) }}
	place, err := node.LookAt(ctx, conn)
	if e.Sys = place.System; err != nil {
		err = fmt.Errorf("region %s: %w", region, err)
	} else {
		err = need.refuse(ctx, conn, cfg, region, setting, place)
	}
	if err != nil {
		e.close(ctx)
	}
	return e, err
}

// refuse is why a place is not what is needed; nil where it is.
func (n Need) refuse(ctx context.Context, conn *pgx.Conn, cfg *config.Config, region, setting string, place node.Place) error {
	want := node.Row{Region: region, Cluster: cfg.Cluster}
	if n == Source || n == Beside && place.Row.Region == "" && !place.Hidden {
		return place.Contradicts(want, setting)
	}
	if err := place.Is(want, setting); err != nil || n != Both || !place.Moved {
		return err
	}
	row, err := fallback.Load(ctx, conn, region)
	if err != nil || fallback.InEffect(cfg, row) != config.ModeStream { // in the other modes nobody notes where it is
		return err
	}
	return &IdentityError{fmt.Sprintf("%s of region %s leads to database %s, which is a copy: no sidecar was at work in it yet", setting, region, place.ID()),
		"correct " + setting + "; where it is the region's own, restored or behind pg_upgrade, start its sidecar"}
}

// Is refuses a server that is not the wanted one.
func (e *End) Is(id string) error {
	if e.ID() != id {
		return &IdentityError{fmt.Sprintf("region %s is database %s, and not %s", e.Region, e.ID(), id), "pgwaltz cutover plan says which they are"}
	}
	return nil
}

// again opens a session anew where it was lost or ended with a time-out, and asks the server anew who it is.
func (e *End) again(ctx context.Context) error {
	if !e.Conn.IsClosed() {
		return nil
	}
	n, err := e.dial(ctx)
	if err != nil {
		return err
	}
	if err := n.Is(e.ID()); err != nil {
		n.close(ctx)
		return err
	}
	e.Conn = n.Conn
	return nil
}

func (e *End) close(ctx context.Context) {
	if e.Conn == nil {
		return
	}
	e.Conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it ends with the command
	e.Conn = nil
}

// Close ends the sessions.
func (e *Ends) Close(ctx context.Context) {
	e.Source.close(ctx)
	e.Destination.close(ctx)
}
