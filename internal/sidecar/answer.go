package sidecar

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
)

// A region that was restored asks its peers for what it has lost: an operator runs `pgwaltz resync` there.
// Such a peer may still have to read what the restored region had published before, and its copy lacks that.
// So it copies once more when it has read on to where the restored region began anew.

// answerPeers repeats the copies of a resync for peers that have begun anew behind a gap, see
// tablecopy.CopyBack. Each beginning is answered once, also over restarts.
func (s *Sidecar) answerPeers(ctx context.Context) error {
	s.out.mu.Lock()
	var due []broker.Ack
	for peer, a := range s.out.acks {
		if a.Anew > s.out.answered[peer] {
			due = append(due, a.Ack)
		}
	}
	s.out.mu.Unlock()
	for _, a := range due {
		done, err := s.answerPeer(ctx, a)
		if err != nil {
			return err
		}
		if done {
			s.out.mu.Lock()
			s.out.answered[a.Peer] = a.Anew
			s.out.mu.Unlock()
		}
	}
	return nil
}

// answerPeer reports whether the newest beginning of a peer is answered.
func (s *Sidecar) answerPeer(ctx context.Context, a broker.Ack) (done bool, err error) {
	err = s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		tx, err := c.Begin(ctx)
		if err != nil {
			return fmt.Errorf("begin answer: %w", err)
		}
		defer tx.Rollback(context.WithoutCancel(ctx))
		var due bool
		if due, done, err = pgstore.Answer(ctx, tx, a.Peer, a.Anew); err != nil || !due {
			return err
		}
		n, err := tablecopy.CopyBack(ctx, tx, tablecopy.Place{Incarnation: a.KnewIncarnation, Frame: a.KnewFrame})
		if err != nil {
			return err
		}
		if err := tx.Commit(ctx); err != nil {
			return fmt.Errorf("commit answer: %w", err)
		}
		if n > 0 {
			s.log.Info("a peer has begun anew behind a gap; tables are copied once more, since the copy that was asked for may lack what the peer has lost",
				"peer", a.Peer, "incarnation", a.Anew, "tables", n)
		}
		return nil
	})
	return done, err
}
