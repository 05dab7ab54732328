package supervisor

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
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
	in      status.Inbound
	tables  []status.Table
	errors  int64 // that the server has counted
	peerErr error // why the peer could not be read
}

func newWatcher(cfg *config.Config, mode config.Mode) watcher {
	if mode == config.ModePglogical {
		return &pglogicalWatcher{cfg, map[string]*pglogical.History{}}
	}
	return &nativeWatcher{cfg, map[string]*native.History{}}
}

type nativeWatcher struct {
	cfg     *config.Config
	history map[string]*native.History // by peer
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
	v.errors, v.peerErr = seen.Errors, seen.PeerErr
	v.in, v.tables = native.Judge(p.Region, native.Name(w.cfg.Cluster, p.Region), seen, w.history[p.Region].Note(seen))
	return v, nil
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
