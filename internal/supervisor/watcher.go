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
	// reported writes down what the server has said of conflicts besides; unknown is what cannot be known of them. It is called behind inbound.
	reported(ctx context.Context, here *pgx.Conn) (written audit.Tally, unknown string, err error)
}

// view is what was seen of one peer.
type view struct {
	in       status.Inbound
	tables   []status.Table
	errors   int64 // that the server has counted
	peerErr  error // why the peer could not be read
	written  audit.Tally
	auditErr error // why what the server has counted could not be written down; it is tried again
}

func newWatcher(cfg *config.Config, mode config.Mode) watcher {
	if mode == config.ModePglogical {
		return &pglogicalWatcher{cfg: cfg, history: map[string]*pglogical.History{}, slots: map[string]string{}, told: &pglogical.ServerLog{Path: cfg.Fallback.ServerLog}}
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
	v.errors, v.peerErr = seen.Errors, seen.PeerErr
	v.written, v.auditErr = w.audit(ctx, here, p.Region, seen)
	v.in, v.tables = native.Judge(p.Region, native.Name(w.cfg.Cluster, p.Region), seen, w.history[p.Region].Note(seen))
	return v, nil
}

// audit writes down what the server has counted since it was last written.
func (w *nativeWatcher) audit(ctx context.Context, here *pgx.Conn, peer string, seen native.Seen) (t audit.Tally, err error) {
	if seen.Counts == nil {
		return t, nil
	}
	for _, c := range native.Reported(w.cfg.Region, peer, seen, w.written[peer]) {
		tag, err := here.Exec(ctx, audit.CountedSQL, audit.CountedArgs(c)...)
		if err != nil {
			return t, fmt.Errorf("write what the server has counted into the audit log: %w", err)
		}
		if tag.RowsAffected() > 0 {
			t.Add(audit.Tally{ByType: map[string]uint64{c.Type: 1}, Last: c.Type})
		}
	}
	w.written[peer] = &seen
	return t, nil
}

// reported: native.Watch has asked for all that there is.
func (w *nativeWatcher) reported(context.Context, *pgx.Conn) (audit.Tally, string, error) {
	return audit.Tally{}, "", nil
}

type pglogicalWatcher struct {
	cfg     *config.Config
	history map[string]*pglogical.History // by peer
	slots   map[string]string             // of the subscriptions, by peer; their replication origins have these names
	told    *pglogical.ServerLog
	written map[[16]byte]bool // event ids of what was last read
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
	if seen.Sub != nil {
		w.slots[p.Region] = seen.Sub.Slot
	}
	v.peerErr = seen.PeerErr
	v.in, v.tables = pglogical.Judge(p.Region, native.Name(w.cfg.Cluster, p.Region), seen, w.history[p.Region].Note(seen))
	return v, nil
}
