package sidecar

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/source/subscribe/quarantine"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A peer writes what this region's own configuration selects, and nothing else, whatever its
// frames say. What it sends of other tables is left out and counted in the quarantine. When such a table is selected later,
// the peer is asked for its rows (takeIn).

// refusedTables counts what an origin sent of tables that it may not write here.
type refusedTables struct {
	mu   sync.Mutex
	seen map[wal.RelationName]bool   // is in the table pgwaltz.quarantine
	more map[wal.RelationName]uint64 // changes that are not noted there yet
}

// maxRefusedTables bounds the names; further ones count as one table without a name.
const maxRefusedTables = 200

// add counts changes and returns those of a table that was not seen before.
func (r *refusedTables) add(counts map[wal.RelationName]uint64) map[wal.RelationName]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen, r.more = map[wal.RelationName]bool{}, map[wal.RelationName]uint64{}
	}
	var fresh map[wal.RelationName]uint64
	for name, n := range counts {
		if !r.seen[name] && len(r.seen) >= maxRefusedTables {
			name = quarantine.Unnamed
		}
		if r.seen[name] {
			r.more[name] += n
			continue
		}
		if fresh == nil {
			fresh = map[wal.RelationName]uint64{}
		}
		fresh[name] += n
		r.seen[name] = true
	}
	return fresh
}

// again takes back what could not be noted: it is noted a moment later, and the next change of such a table counts as the first.
func (r *refusedTables) again(counts map[wal.RelationName]uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, n := range counts {
		delete(r.seen, name)
		if _, ok := r.more[name]; !ok && len(r.more) >= maxRefusedTables {
			name = quarantine.Unnamed
		}
		r.more[name] += n
	}
}

// take returns what was counted and not noted.
func (r *refusedTables) take() map[wal.RelationName]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.more) == 0 {
		return nil
	}
	out := r.more
	r.more = map[wal.RelationName]uint64{}
	return out
}

// screen leaves out of the deliveries of in's origin what it may not write here.
func (s *Sidecar) screen(ctx context.Context, in *inboundState) func(subscribe.Delivery) {
	h := holdable{db: s.db}
	sc := replicator.Screen{Allowed: func(n wal.RelationName) bool { return s.cfg.Selected(n.Schema, n.Name) && h.can(ctx, n) }}
	return func(d subscribe.Delivery) {
		refused := sc.Pass(d.Packet)
		if refused == nil {
			return
		}
		refused = h.printable(refused)
		fresh := in.refused.add(refused)
		for name := range fresh {
			in.quarantined.Add(1)
			s.log.Warn("a peer sends changes of a table that is not selected here; they are left out", "origin", in.origin, "relation", name.String())
		}
		if err := s.noteRefused(ctx, in.origin, d.StreamSeq, fresh); err != nil {
			in.refused.again(fresh)
			if ctx.Err() == nil {
				s.log.Warn("note refused changes", "origin", in.origin, "reason", publicMessage(err))
			}
		}
	}
}

// ownScreen keeps the self-merge away from tables that are never published.
func ownScreen() func(subscribe.Delivery) {
	sc := replicator.Screen{Allowed: func(n wal.RelationName) bool { return !config.SystemSchema(n.Schema) }}
	return func(d subscribe.Delivery) { sc.Pass(d.Packet) }
}

// noteRefused counts changes in the quarantine.
func (s *Sidecar) noteRefused(ctx context.Context, origin string, seq uint64, counts map[wal.RelationName]uint64) error {
	if len(counts) == 0 {
		return nil
	}
	return s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		for name, n := range counts {
			if err := s.refused.Note(ctx, c, origin, name, seq, n); err != nil {
				return err
			}
		}
		return nil
	})
}

// noteAllRefused notes what was counted since the last time.
func (s *Sidecar) noteAllRefused(ctx context.Context) error {
	for _, in := range s.in {
		counts := in.refused.take()
		if err := s.noteRefused(ctx, in.origin, 0, counts); err != nil {
			in.refused.again(counts)
			return err
		}
	}
	return nil
}
