package native

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/checkpoint/streamstore"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Forget plans that the stream's frames of the time before are not applied any more, once its subscription is to end: what they hold has
// come through the subscription, and over them what was written since. Applied again they would bring back rows that were deleted meanwhile. The
// peer opens a new incarnation on its way back in any case, and that is the first one which counts here. progress is how far the
// subscription has applied. It is planned before the subscription ends, so that a switch that was cut off finds it done or does it.
//
// So is what is parked of it: a row that was deleted at the peer meanwhile would be put in behind the subscription, which has met no row to delete. The copies
// behind the way back bring what the peer still has. Deletes, and changes of tables without a key, wait on. here is the name of this region.
func Forget(d *fallback.Plan, p *Peer, progress wal.LSN, here string) {
	cp := p.Checkpoint
	if cp == nil {
		return
	}
	last := cp.Incarnation
	if p.Stale != nil {
		last = *p.Stale
	}
	if last < cp.Incarnation {
		return // it is read here already
	}
	end := cp.EndLSN
	if p.Err == nil && cp.Epoch.SystemID == p.System.SystemID && cp.Epoch.Timeline == p.System.Timeline {
		end = max(end, progress)
	}
	if p.Parked > 0 {
		d.Statements = append(d.Statements, discardParked(p.Region, here))
	}
	d.Add(pgstore.Skips(*cp, last), "what the stream of "+p.Region+" holds of the time before is not applied over what the subscription has brought",
		pgstore.SkipSQL(pg.Literal(p.Region), last, end))
}

// lookStream finds the newest incarnation of the peer's stream that is of the time before its way back to the stream. Where its
// tables may not be read that stays unknown, and what was read here counts.
func (p *Peer) lookStream(ctx context.Context, conn *pgx.Conn) error {
	var may bool
	err := conn.QueryRow(ctx, `select pg_catalog.has_table_privilege('pgwaltz.stream', 'select')
  and (pg_catalog.to_regclass('pgwaltz.mode') is null or pg_catalog.has_table_privilege(pg_catalog.to_regclass('pgwaltz.mode')::oid, 'select'))`).Scan(&may)
	if err != nil || !may {
		return err
	}
	mode, err := fallback.Load(ctx, conn, p.Region)
	if err != nil {
		return err
	}
	row, err := streamstore.Load(ctx, conn, p.Region)
	if err != nil {
		return err
	}
	last := row.Incarnation
	back := mode == nil || mode.Mode == config.ModeStream && mode.Settled
	if back && !row.Gap { // it has opened the one that counts, or was never away
		if row.Reopened == 0 {
			return nil
		}
		last = row.Reopened - 1
	}
	p.Stale = &last
	return nil
}

// discardParked takes rows of a peer away that are parked, with a record of each in the audit log.
func discardParked(peer, here string) fallback.Statement {
	return fallback.Statement{
		Why:   "rows of " + peer + " that are set aside, and may have been deleted there meanwhile, are not put in over that; what " + peer + " still has is copied",
		Shown: "-- pgwaltz parked discard --origin " + peer + ", but no deletes, and nothing of tables without a key",
		Do: func(ctx context.Context, conn *pgx.Conn) error {
			_, err := parked.Discard(ctx, conn, parked.Filter{Origin: peer, Rows: true}, here, audit.DiscardInto)
			return err
		},
	}
}
