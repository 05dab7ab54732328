package sidecar

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/sink/publish"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Rows of tables without stamp columns that were written in a gap of this region's own WAL are looked for before the stream is opened anew
// behind it (tablecopy.Unread). Which they may be is told by the horizon, which is stored while there is no gap.

// errUnread says that the gap was accepted, and that rows which were written in it have to be looked for.
var errUnread = errors.New("rows that were written in the gap are to be looked for")

// unreadDue reports whether there may be rows that nobody looked for yet.
func (s *Sidecar) unreadDue(ctx context.Context, c *pgx.Conn, sit checkpoint.Situation, d checkpoint.Decision) (bool, error) {
	if d.Step != checkpoint.Reopen || !sit.Skips() {
		return false, nil
	}
	done, err := tablecopy.UnreadDone(ctx, c, sit.Slot.Confirmed)
	return !done, err
}

// readUnread looks for them, and returns errAgain when it is through.
func (s *Sidecar) readUnread(ctx context.Context, tail publish.Tail) error {
	var h tombstone.Horizon
	var known bool
	gap := tombstone.Gap{Least: wal.MicrosOf(time.Now().Add(-s.cfg.Tombstones.MinAge)), Floor: wal.MinMicros, Newest: wal.MinMicros, Tracked: s.tracked.On, Region: s.cfg.Region}
	err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
		sit, _, err := s.situation(ctx, c, tail)
		if err != nil {
			return err
		}
		gap.End = sit.Slot.Confirmed
		if h, known, err = tombstone.LoadHorizon(ctx, c); err != nil {
			return err
		}
		own, _, err := pgstore.Load(ctx, c, s.cfg.Region)
		if err != nil {
			return err
		}
		gap.Read = uint32(own.Mark.XID)
		if own.Mark.XID != 0 {
			gap.Newest = own.Mark.CommitTime
		}
		if published := uint32(sit.Tail.Mark.XID); sit.Tail.Epoch.SameWAL(s.epoch) && published != 0 && (gap.Read == 0 || int32(published-gap.Read) > 0) {
			gap.Read, gap.Newest = published, max(gap.Newest, sit.Tail.Mark.CommitTime)
		}
		if mark, ok := sit.Unmerged(); ok && !sit.Begin().History {
			high, err := tombstone.LoadClock(ctx, c, gap.End)
			if err != nil {
				return err
			}
			gap.Floor = max(mark, high)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !known {
		// An earlier program, or the first gap of a database that came by a dump.
		s.log.Warn("nothing tells which rows of tables without stamp columns were written in the gap: they count as old as the rows that they have replaced")
	} else {
		s.log.Info("rows of tables without stamp columns that were written in the gap are looked for", "lsn", gap.End.String())
	}
	u := tablecopy.Unread{
		Connect: func(ctx context.Context) (*pgx.Conn, error) { return s.connect(ctx, "copy") },
		Stamps:  s.stampColumns, Index: s.own.Index, Named: s.settleName, Tracked: s.tracked, Publication: s.cfg.Postgres.Publication,
		LeftOut: func(n wal.RelationName) bool { return !known || s.cfg.Excluded(n.Schema, n.Name) },
		Gap:     gap, Horizon: h, Public: publicMessage, Log: s.log,
		Told: func(table string, done, of int64) {
			s.out.set(status.CatchingUp, fmt.Sprintf("the gap is accepted; rows that were written in it are looked for: %s, page %d of %d", table, done, of))
		},
	}
	if err := u.Run(ctx); err != nil {
		return err
	}
	return errAgain
}

// stampColumns names those of a table.
func (s *Sidecar) stampColumns(n wal.RelationName) tablecopy.StampColumns {
	t := s.cfg.Table(n.Schema, n.Name)
	return tablecopy.StampColumns{Version: t.Version, UpdatedAt: t.UpdatedAt}
}

// The horizon is stored this often, when so many transactions have begun since.
const (
	horizonEvery = time.Second
	horizonStep  = 16
	horizonRest  = time.Minute
	// horizonCost is how many transactions there are where nobody writes: that which stores it, that which notes it for tables whose changes are
	// left out (publication.Watch), and the next one.
	horizonCost = 3
)

// keepHorizon stores up to which transaction everything that this region wrote is merged, until the context ends. While the
// WAL does not go on it asks nothing.
func (s *Sidecar) keepHorizon(ctx context.Context) error {
	var stored tombstone.Horizon
	at, asked, left := time.Time{}, wal.LSN(0), false
	for {
		if err := pause.For(ctx, horizonEvery); err != nil {
			return err
		}
		read := s.own.Done()
		if read == asked && !(left && time.Since(at) >= horizonRest) {
			continue
		}
		var h tombstone.Horizon
		var below wal.LSN
		err := s.db.untilTaken(ctx, s.log, "read the horizon", func(ctx context.Context, c *pgx.Conn) (err error) {
			h, below, err = tombstone.ReadHorizon(ctx, c)
			return err
		})
		if err != nil {
			return err
		}
		asked, left = read, h.Next() >= stored.Next()+horizonCost
		if !left || h.Next() < stored.Next()+horizonStep && time.Since(at) < horizonRest {
			continue
		}
		for !s.own.MergedPast(below) {
			if err := pause.For(ctx, horizonEvery/4); err != nil {
				return err
			}
		}
		if err := s.saveHorizon(ctx, h); err != nil {
			return err
		}
		stored, at, left = h, time.Now(), false
	}
}

// saveHorizon stores it without waiting for the disk: what a crash forgets is looked through in vain.
func (s *Sidecar) saveHorizon(ctx context.Context, h tombstone.Horizon) error {
	return s.db.untilTaken(ctx, s.log, "store the horizon", func(ctx context.Context, c *pgx.Conn) error {
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "set local synchronous_commit = off; "+briefly); err != nil {
				return fmt.Errorf("store the horizon: %w", err)
			}
			return tombstone.SaveHorizon(ctx, tx, h)
		})
	})
}
