package supervisor

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback/native"
	"github.com/pgwaltz/pgwaltz/internal/fallback/pglogical"
	"github.com/pgwaltz/pgwaltz/internal/status"
)

// watcher looks at both servers, in one mode. It is used by one goroutine.
type watcher interface {
	// outbound says how the peers read what this region publishes.
	outbound(ctx context.Context, here *pgx.Conn) (*status.Outbound, error)
	// inbound says how this region applies what a peer commits. there is nil, with the reason in why, where the peer cannot be reached.
	inbound(ctx context.Context, here, there *pgx.Conn, why error, p config.Peer) (view, error)
}

// view is what was seen of one peer.
type view struct {
	in       status.Inbound
	tables   []status.Table
	errors   int64 // that the server has counted
	peerErr  error // why the peer could not be read
	auditErr error // why what the server has counted could not be written down; it is tried again
}

func newWatcher(cfg *config.Config, mode config.Mode) watcher {
	if mode == config.ModePglogical {
		return &pglogicalWatcher{cfg, map[string]*pglogical.History{}}
	}
	return &nativeWatcher{cfg, map[string]*native.History{}, map[string]*native.Seen{}}
}

type nativeWatcher struct {
	cfg     *config.Config
	history map[string]*native.History // by peer
	written map[string]*native.Seen    // by peer: what the audit log has of its counters
}

func (w *nativeWatcher) outbound(ctx context.Context, here *pgx.Conn) (*status.Outbound, error) {
	slot, err := pg.LoadSlot(ctx, here, w.cfg.Postgres.Slot)
	if err != nil {
		return nil, err
	}
	return native.JudgeSlot(w.cfg.Postgres.Slot, slot), nil
}

func (w *nativeWatcher) inbound(ctx context.Context, here, there *pgx.Conn, why error, p config.Peer) (v view, err error) {
	seen, err := native.Watch(ctx, here, there, why, w.cfg, p.Region)
	if err != nil {
		return v, err
	}
	if w.history[p.Region] == nil {
		w.history[p.Region] = &native.History{}
	}
	v.errors, v.peerErr, v.auditErr = seen.Errors, seen.PeerErr, w.audit(ctx, here, p.Region, seen)
	v.in, v.tables = native.Judge(p.Region, native.Name(w.cfg.Cluster, p.Region), seen, w.history[p.Region].Note(seen))
	return v, nil
}

// audit writes down what the server has counted since it was last written.
func (w *nativeWatcher) audit(ctx context.Context, here *pgx.Conn, peer string, seen native.Seen) error {
	if seen.Counts == nil {
		return nil
	}
	for _, c := range native.Reported(w.cfg.Region, peer, seen, w.written[peer]) {
		if _, err := here.Exec(ctx, audit.CountedSQL, audit.CountedArgs(c)...); err != nil {
			return fmt.Errorf("write what the server has counted into the audit log: %w", err)
		}
	}
	w.written[peer] = &seen
	return nil
}

type pglogicalWatcher struct {
	cfg     *config.Config
	history map[string]*pglogical.History // by peer
}

// outbound moves the stream's slot on as well.
func (w *pglogicalWatcher) outbound(ctx context.Context, here *pgx.Conn) (*status.Outbound, error) {
	if err := pglogical.Follow(ctx, here, w.cfg.Postgres.Slot, max(1, len(w.cfg.Peers))); err != nil {
		return nil, err
	}
	slot, err := pg.LoadSlot(ctx, here, w.cfg.Postgres.Slot)
	if err != nil {
		return nil, err
	}
	readers, active, err := pglogical.Readers(ctx, here)
	if err != nil {
		return nil, err
	}
	return pglogical.JudgeSlot(w.cfg.Postgres.Slot, slot, readers, active), nil
}

func (w *pglogicalWatcher) inbound(ctx context.Context, here, there *pgx.Conn, why error, p config.Peer) (v view, err error) {
	seen, err := pglogical.Watch(ctx, here, there, why, w.cfg, p)
	if err != nil {
		return v, err
	}
	if w.history[p.Region] == nil {
		w.history[p.Region] = &pglogical.History{}
	}
	v.peerErr = seen.PeerErr
	v.in, v.tables = pglogical.Judge(p.Region, native.Name(w.cfg.Cluster, p.Region), seen, w.history[p.Region].Note(seen))
	return v, nil
}
