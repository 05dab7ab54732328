package sidecar

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/node"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
)

// A peer may have another database than before under its name: its former one was lost, and it was made anew.
// Rows that the former one had written are here, and in no stream of this region, so nothing that the
// peer reads brings them to it. So each region says with its answers to pings which database it has, and
// who hears of another one copies all its tables.

// A region that is taken out of peers, because it was lost, say, may have got further here than at the others: nobody forwards what it has
// written. So what is left of it comes to them by copies, too.

// lives is what is known of the peers' databases in this term.
type lives struct {
	mu      sync.Mutex
	known   map[string]string // the life of each peer that has everything
	lacking []string          // peers that have a new one, and copy.mode keeps the rows from being copied
}

func (l *lives) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known, l.lacking = map[string]string{}, nil
}

// noteRemoved begins a term with the regions that are no peers any more.
func (s *Sidecar) noteRemoved(ctx context.Context, conn *pgx.Conn) error {
	if !s.cfg.Publishes() || len(s.cfg.Peers) == 0 {
		return nil // nobody gets anything from here
	}
	regions, err := node.Removed(ctx, conn, s.cfg.PeerNames())
	if len(regions) > 0 {
		s.log.Warn("regions are no peers any more; what the others have applied of them may differ, so all tables are copied", "regions", strings.Join(regions, ", "))
	}
	return err
}

// lookAtLives asks for copies where a peer has another database than before, once for each.
func (s *Sidecar) lookAtLives(ctx context.Context) error {
	for _, p := range s.cfg.PeerNames() {
		if err := s.lookAtLife(ctx, p, s.broker.Peer(p).Life); err != nil {
			return err
		}
	}
	return nil
}

// lookAtLife is lookAtLives for one peer.
func (s *Sidecar) lookAtLife(ctx context.Context, peer, life string) error {
	if s.deaf(peer) {
		s.lives.note(peer, life, false, false) // whatever was said of it before it said so
		return nil
	}
	if !node.IsLife(life) || life == s.lives.of(peer) {
		return nil
	}
	_, err := s.provide(ctx, peer, life)
	return err
}

func (l *lives) of(peer string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known[peer]
}

// note takes note of whether a peer's database has everything, and whether that takes a command.
func (l *lives) note(peer, life string, done, lacks bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lacking = slices.DeleteFunc(l.lacking, func(p string) bool { return p == peer })
	if lacks {
		l.lacking = append(l.lacking, peer)
	}
	if done {
		l.known[peer] = life
	}
}

// doubt forgets that a peer has everything; what the database says counts.
func (l *lives) doubt(peer string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.known, peer)
}

// lack says which peer lacks rows that only a command brings; "" for none.
func (l *lives) lack() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lacking) == 0 {
		return ""
	}
	return "peer " + l.lacking[0] + " lacks rows that are here: its database is a new one, or a region was taken out of peers, and copy.mode keeps them from being copied. Run pgwaltz resync"
}

// deaf reports whether a peer has said that it applies nothing. It has no need of rows, until it says otherwise.
func (s *Sidecar) deaf(peer string) bool {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	return s.out.acks[peer].Deaf
}

// provide sees to it that a database of a peer gets all rows, and notes what comes of it. It reports whether they are under way, or were
// there already. Otherwise it takes a command, or the peer has used up what it may ask for, and gets it later.
func (s *Sidecar) provide(ctx context.Context, peer, life string) (done bool, err error) {
	err = s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		done = false
		tx, err := c.Begin(ctx)
		if err != nil {
			return fmt.Errorf("copy for a peer: %w", err)
		}
		defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // after a commit it does nothing
		other, err := node.Hear(ctx, tx, peer, life)
		if err != nil {
			return err
		}
		copies := other && s.cfg.Copy.Mode == config.CopyAuto && s.mayCopy(peer)
		if copies {
			if _, err := tablecopy.Request(ctx, tx, s.cfg.Postgres.Publication, nil); err != nil {
				return err
			}
			if err := node.Provided(ctx, tx); err != nil {
				return err
			}
			s.asksForCopies()
		}
		if err := tx.Commit(ctx); err != nil {
			return fmt.Errorf("copy for a peer: %w", err)
		}
		if copies {
			s.log.Warn("a peer has another database than before, or may lack rows of a region that is no peer any more; all tables are copied for it", "peer", peer)
		}
		done = copies || !other
		// In here, where nobody who doubts it comes between (welcome).
		s.lives.note(peer, life, done, !done && s.cfg.Copy.Mode != config.CopyAuto)
		return nil
	})
	return done, err
}

// mayCopy takes one request from the peer's budget.
func (s *Sidecar) mayCopy(peer string) bool {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	return s.out.mayRewind(peer)
}
