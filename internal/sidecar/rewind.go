package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint/streamstore"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/node"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
)

// rewind answers a peer that misses frames: publish again from the slot, if it still holds
// what the peer needs.
func (s *Sidecar) rewind(ctx context.Context, asker string, data []byte) ([]byte, error) {
	var req subscribe.RewindRequest
	if err := json.Unmarshal(data, &req); err != nil {
		return nil, errors.New("the request cannot be read")
	}
	if req.Region != asker {
		s.log.Warn("a rewind is refused: a region asks in the name of another", "peer", asker, "name", req.Region)
		return nil, errors.New("the request is in the name of another region")
	}
	reply, err := s.grantRewind(ctx, req)
	if err != nil {
		return nil, errors.New(publicMessage(err))
	}
	return json.Marshal(reply)
}

// ownControl carries the requests of the self-merge, which are for this very process.
type ownControl struct{ s *Sidecar }

// Request answers a request to rewind: parts of a transaction that is larger than the stream have left it,
// and the self-merge, which had to begin it again, needs them once more.
func (c ownControl) Request(ctx context.Context, region, verb string, data []byte) ([]byte, error) {
	var req subscribe.RewindRequest
	if region != c.s.cfg.Region || verb != subscribe.VerbRewind {
		return nil, fmt.Errorf("request %s of %s: the self-merge asks for its own stream only", verb, region)
	}
	if err := json.Unmarshal(data, &req); err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	var r checkpoint.Rewind
	err := c.s.db.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		r, err = c.s.rewindSituation(ctx, conn, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	d := r.Decide()
	if d.Step != checkpoint.Renew { // what that means is for the outbound pipe to find out, when it begins
		c.s.failed("self-merge", fmt.Errorf("it misses changes of this region that cannot be read again: %s", d.Why))
		return json.Marshal(subscribe.RewindReply{Available: r.Slot.Confirmed, Reason: d.Why})
	}
	return json.Marshal(c.s.rewindReply(req, r.Slot, d))
}

func (s *Sidecar) grantRewind(ctx context.Context, req subscribe.RewindRequest) (subscribe.RewindReply, error) {
	var d checkpoint.RewindDecision
	var slot checkpoint.Slot
	err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		r, err := s.rewindSituation(ctx, c, req)
		if err != nil {
			return err
		}
		slot, d = r.Slot, r.Decide()
		switch d.Step {
		case checkpoint.Stop:
			return s.recordGap(ctx, c, req.Checkpoint.EndLSN, slot.Confirmed, d.History, d.Why)
		case checkpoint.Reopen:
			// An operator has asked for a resync a moment ago, before this was known: it is
			// what he wanted.
			if err := s.recordGap(ctx, c, req.Checkpoint.EndLSN, slot.Confirmed, d.History, d.Why); err != nil {
				return err
			}
			if _, err := streamstore.RequestResync(ctx, c, s.cfg.Region); err != nil {
				return err
			}
			return s.copyAgain(ctx, c)
		}
		if d.Newcomer {
			return s.welcome(ctx, c, req.Region)
		}
		return nil
	})
	if err != nil {
		return subscribe.RewindReply{}, err
	}
	return s.rewindReply(req, slot, d), nil
}

// welcome prepares for a peer that has applied nothing yet: a region that was added to others which
// have run for long, or one that was lost and made anew. What stream and slot hold is only the end of
// the story, so all tables are copied behind the incarnation that it will begin with.
func (s *Sidecar) welcome(ctx context.Context, c *pgx.Conn, peer string) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return fmt.Errorf("note a new peer: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // after a commit it does nothing
	fresh, err := streamstore.NoteNewcomer(ctx, tx, s.cfg.Region)
	if err != nil || !fresh {
		return err
	}
	if s.cfg.Copy.Mode == config.CopyAuto {
		if _, err := tablecopy.Request(ctx, tx, s.cfg.Postgres.Publication, nil); err != nil {
			return err
		}
		defer s.asksForCopies()
		s.log.Info("a peer has applied nothing yet; the tables are copied for it", "peer", peer)
	} else {
		if err := node.Lacks(ctx, tx, peer); err != nil {
			return err
		}
		defer s.lives.doubt(peer)
		s.log.Warn("a peer has applied nothing yet, and copy.mode keeps its rows from being copied", "peer", peer, "remedy", "run: pgwaltz resync --config FILE")
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("note a new peer: %w", err)
	}
	return nil
}

// rewindSituation gathers what decides. The end of the WAL is read after the request came.
func (s *Sidecar) rewindSituation(ctx context.Context, c *pgx.Conn, req subscribe.RewindRequest) (checkpoint.Rewind, error) {
	cp := req.Checkpoint
	r := checkpoint.Rewind{
		Ack:     checkpoint.Ack{Peer: req.Region, Epoch: cp.Epoch, Incarnation: cp.Incarnation, Frame: cp.FrameNo, EndLSN: cp.EndLSN, Proved: cp.Seen},
		History: req.History, Reason: req.Reason, Region: s.cfg.Region,
	}
	slot, err := pg.LoadSlot(ctx, c, s.cfg.Postgres.Slot)
	if err != nil {
		return r, err
	}
	if slot != nil {
		r.Slot = checkpoint.Slot{Found: true, Lost: slot.Lost(), Confirmed: slot.ConfirmedFlushLSN}
	}
	row, err := streamstore.Load(ctx, c, s.cfg.Region)
	if err != nil {
		return r, err
	}
	r.Resynced = resynced(row)
	r.Present = checkpoint.Present{Epoch: s.epoch, Incarnation: row.Incarnation, Reopened: row.Reopened, Frame: ^uint64(0)}
	r.Present.WALEnd, err = walEnd(ctx, c)
	return r, err
}

// resyncHolds is how long an operator's resync also answers for a gap that is found after it.
const resyncHolds = 10 * time.Minute

// resynced reports whether an operator has asked for a resync so short a while ago.
func resynced(row streamstore.Row) bool {
	return !row.Resynced.IsZero() && time.Since(row.Resynced) < resyncHolds
}

func (s *Sidecar) rewindReply(req subscribe.RewindRequest, slot checkpoint.Slot, d checkpoint.RewindDecision) subscribe.RewindReply {
	o := &s.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if d.Step == checkpoint.Stop {
		s.log.Warn("a rewind is refused", "peer", req.Region, "incarnation", req.Checkpoint.Incarnation, "lsn", req.Checkpoint.EndLSN.String(), "reason", d.Why)
		if d.History {
			s.renew(false) // begin finds the note and stops
		}
		return subscribe.RewindReply{Available: slot.Confirmed, Reason: d.Why}
	}
	reply := subscribe.RewindReply{Granted: true, Incarnation: o.incarnation + 1, Start: slot.Confirmed, Available: slot.Confirmed}
	if d.Step == checkpoint.Renew && time.Since(o.lastRewind) < rewindPause {
		reply.Incarnation = o.incarnation
		return reply
	}
	if !o.mayRewind(req.Region) {
		s.log.Debug("a rewind is not granted now", "peer", req.Region)
		reply.Incarnation = o.incarnation
		return reply // as if one were under way: it asks again
	}
	s.log.Warn("frames are missed; publishing again from the slot", "by", req.Region, "lsn", slot.Confirmed.String(), "reason", req.Reason)
	s.renew(true)
	return reply
}
