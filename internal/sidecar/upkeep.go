package sidecar

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/checkpoint/streamstore"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/source/subscribe/quarantine"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// upkeep does what is due now and then: look at the slot, take frames out of the stream that
// everybody has, collect tombstones, keep the audit log within its retention, and keep an
// idle database's slot moving.
func (s *Sidecar) upkeep(ctx context.Context) error {
	var slow time.Time
	var rest time.Duration // before the next slow round; short at first, for a process that is started again and again
	var beat int64
	var trust reliance
	for {
		if s.cfg.Publishes() {
			if err := s.lookAtSlot(ctx); err != nil && ctx.Err() == nil {
				s.log.Debug("look at slot", "reason", publicMessage(err))
			}
			s.purge(ctx)
			if err := s.keepReliance(ctx, &trust); err != nil && ctx.Err() == nil {
				s.log.Warn("rely on the stream", "reason", publicMessage(err))
			}
			if err := s.lookAtLives(ctx); err != nil && ctx.Err() == nil {
				s.log.Debug("look at the peers' databases", "reason", publicMessage(err))
			}
			if err := s.answerPeers(ctx); err != nil && ctx.Err() == nil {
				s.log.Debug("answer a peer's gap", "reason", publicMessage(err))
			}
			if err := s.db.do(ctx, s.members.Look); err != nil && ctx.Err() == nil {
				s.log.Debug("look at the publication", "reason", publicMessage(err))
			}
			if err := s.lookAtSchemas(ctx); err != nil && ctx.Err() == nil {
				s.log.Debug("look at schemas", "reason", publicMessage(err))
			}
			if err := s.beat(ctx, &beat); err != nil && ctx.Err() == nil {
				s.log.Debug("heartbeat", "reason", publicMessage(err))
			}
		}
		if err := s.lookAtNames(ctx); err != nil && ctx.Err() == nil {
			s.log.Debug("look at names of tables", "reason", publicMessage(err))
		}
		if err := s.db.do(ctx, s.endPause); err != nil && ctx.Err() == nil {
			s.log.Warn("look at the write pause of a cutover", "reason", publicMessage(err))
		}
		s.takeIn(ctx)
		s.settleStrays(ctx)
		if err := s.noteAllRefused(ctx); err != nil && ctx.Err() == nil {
			s.log.Debug("note refused changes", "reason", publicMessage(err))
		}
		if time.Since(slow) > rest {
			slow = time.Now()
			if err := s.collect(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("upkeep", "reason", publicMessage(err))
			}
			rest = nextRound(rest, time.Since(slow))
			if s.cfg.Publishes() {
				if err := s.db.do(ctx, s.members.SettlePartitions); err != nil && ctx.Err() == nil {
					s.log.Warn("upkeep", "reason", publicMessage(err))
				}
			}
		}
		if err := pause.For(ctx, time.Second); err != nil {
			return err
		}
	}
}

// endPause gives writes back that a cutover has paused and nobody has come back to.
func (s *Sidecar) endPause(ctx context.Context, c *pgx.Conn) error {
	said, err := hold.Overdue(ctx, c)
	if said != "" {
		s.log.Warn("the write pause of a cutover was over its time: writes are given back", "said", said)
	}
	return err
}

// nextRound is how long to rest before the next slow round, behind a rest and a round that took cost.
func nextRound(rest, cost time.Duration) time.Duration {
	return min(time.Minute, max(20*cost, min(2*rest, 15*time.Second), 4*time.Second))
}

func (s *Sidecar) lookAtSlot(ctx context.Context) error {
	s.out.mu.Lock()
	acks := s.out.words()
	s.out.mu.Unlock()
	return s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		slot, err := pg.LoadSlot(ctx, c, s.cfg.Postgres.Slot)
		if err != nil {
			return err
		}
		if err := s.vouch(ctx, c, slot); err != nil {
			return err
		}
		row, err := streamstore.Load(ctx, c, s.cfg.Region)
		if err != nil {
			return err
		}
		end, err := walEnd(ctx, c)
		if err != nil {
			return err
		}
		if err := s.noteHistory(ctx, c, row, acks, end); err != nil {
			return err
		}
		s.judgeAcks(acks, end)
		s.out.mu.Lock()
		defer s.out.mu.Unlock()
		s.out.row, s.out.seenAt = slot, time.Now()
		if row.Resync && s.out.pipe != nil && s.out.reopen != nil {
			s.out.reopen(errAgain) // a peer cannot go on without a new incarnation
		}
		return nil
	})
}

// beatBytes is how far the server's WAL may run ahead of a slot that has nothing to send
// before a message of our own makes it move.
const beatBytes = 1 << 20

// beat writes a transactional logical message when other databases fill the WAL: it is
// decoded, framed, acknowledged and confirmed like any change, and so releases what was
// retained, without a table or a change of the publication.
func (s *Sidecar) beat(ctx context.Context, last *int64) error {
	s.out.mu.Lock()
	slot := s.out.slot
	s.out.mu.Unlock()
	if slot == nil {
		return nil
	}
	return s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		var end int64
		if err := c.QueryRow(ctx, `select (pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::int8`).Scan(&end); err != nil {
			return err
		}
		if end-max(*last, int64(s.out.confirmed.Load())) < beatBytes {
			return nil
		}
		*last = end
		_, err := c.Exec(ctx, `select pg_catalog.pg_logical_emit_message(true, 'pgwaltz.beat', '')`)
		return err
	})
}

// mergedFrame is the frame up to which the self-merge has stored its checkpoint.
func (s *Sidecar) mergedFrame(ctx context.Context, incarnation uint32) (uint64, error) {
	var cp checkpoint.Checkpoint
	err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		stored, found, err := pgstore.Load(ctx, c, s.cfg.Region)
		if err == nil && (!found || stored.Incarnation != incarnation) {
			err = fmt.Errorf("the self-merge has stored nothing of incarnation %d yet", incarnation)
		}
		cp = stored
		return err
	})
	return cp.FrameNo, err
}

// collect removes what is old: tombstones that no peer can need, and audit rows.
func (s *Sidecar) collect(ctx context.Context) error {
	return s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		if err := s.collectTombstones(ctx, c); err != nil {
			return err
		}
		if r := s.cfg.Audit.Retention; r > 0 {
			if _, err := audit.Prune(ctx, c, r); err != nil {
				return err
			}
			if err := quarantine.Prune(ctx, c, r); err != nil {
				return err
			}
		}
		return nil
	})
}

// collectBatch is how many keys are collected at once.
const collectBatch = 10000

// collectTombstones removes what no peer and no later decoding can ask for.
func (s *Sidecar) collectTombstones(ctx context.Context, c *pgx.Conn) error {
	horizon, passed, caught := s.horizon(), s.passedByAll(), s.own.Caught()
	if !s.cfg.Publishes() { // nothing is decoded here, and nobody reads it
		horizon, passed, caught = ^wal.LSN(0), ^wal.LSN(0), true
	}
	if horizon == 0 {
		return nil
	}
	for n := collectBatch; n == collectBatch; {
		var err error
		if n, err = tombstone.Trim(ctx, c, horizon, collectBatch); err != nil {
			return err
		}
	}
	if err := tombstone.TrimClock(ctx, c, horizon); err != nil {
		return err
	}
	if s.own.Crowded() {
		if err := tombstone.Load(ctx, c, s.own.Index); err != nil {
			return err
		}
	}
	passed, age := min(passed, horizon), s.settledAge()
	if passed == 0 || s.cfg.Tombstones.MinAge <= 0 || !caught {
		return nil
	}
	all := 0
	for n := collectBatch; n == collectBatch; all += n {
		var err error
		if n, err = tombstone.Collect(ctx, c, s.own.Index, age, passed, collectBatch); err != nil {
			return err
		}
	}
	if all > 0 {
		s.log.Debug("tombstones collected", "keys", all)
	}
	if s.own.Full() && all > 0 {
		return tombstone.Load(ctx, c, s.own.Index)
	}
	return nil
}

// horizon is a position in front of which the slot sends nothing any more, also after a crash
// of the server: what it confirmed may be forgotten by then, but not where it restarts. A
// session that reads again is behind it for a while.
func (s *Sidecar) horizon() wal.LSN {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if s.out.row == nil {
		return 0
	}
	return min(s.out.row.RestartLSN, s.own.Session())
}

// settledAge is the age from which nothing can come any more that a tombstone would have to
// refuse: the configured one, and more while a peer's changes are late here. Nor do they go while a peer
// has changes set aside that are as old: one of them may be the delete that the tombstone is of. Without
// it an insert of the key would begin no new generation, and the row that stands there still would
// beat it. What is set aside here may be below a tombstone, and must find it when it is tried again.
func (s *Sidecar) settledAge() time.Duration {
	age := s.cfg.Tombstones.MinAge
	for _, in := range s.in {
		if !s.cfg.Applies() || s.silent(in.origin) {
			continue // nothing comes from there
		}
		in.mu.Lock()
		sent := in.sent
		in.mu.Unlock()
		if sent == 0 {
			return 100 * 365 * 24 * time.Hour // nothing is known of it yet
		}
		age = max(age, time.Since(sent.Time())+time.Minute)
	}
	parked := []wal.Micros{s.parkedSince()}
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	for _, a := range s.out.acks {
		parked = append(parked, a.Parked)
	}
	for _, at := range parked {
		if at != 0 {
			age = max(age, time.Since(at.Time())+s.cfg.MaxClockSkew+time.Minute)
		}
	}
	return age
}

// silent reports whether a peer has said that it publishes nothing.
func (s *Sidecar) silent(peer string) bool {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	return s.out.acks[peer].Silent
}

// seqIndex remembers which stream sequence holds which frame of the incarnation at hand,
// sparsely, so that acknowledged frames can be purged by sequence.
type seqIndex struct {
	mu          sync.Mutex
	incarnation uint32
	first       uint64 // the sequence of frame 1, 0 when this run did not store it
	frames      []frameSeq
}

type frameSeq struct{ frame, seq uint64 }

// maxSeqs bounds the index; every second entry goes when it is full.
const maxSeqs = 4096

func (x *seqIndex) add(h wire.Header, seq uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if h.Incarnation != x.incarnation {
		x.incarnation, x.first, x.frames = h.Incarnation, 0, x.frames[:0]
	}
	if h.Number == 1 {
		x.first = seq
	}
	if len(x.frames) >= maxSeqs {
		n := 0
		for i := 1; i < len(x.frames); i += 2 {
			x.frames[n] = x.frames[i]
			n++
		}
		x.frames = x.frames[:n]
	}
	x.frames = append(x.frames, frameSeq{h.Number, seq})
}

// recalled adds a frame that lies before those of this run.
func (x *seqIndex) recalled(incarnation uint32, frame, seq uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n, found := slices.BinarySearchFunc(x.frames, frame, func(f frameSeq, frame uint64) int { return cmp.Compare(f.frame, frame) })
	if incarnation == x.incarnation && !found && len(x.frames) < maxSeqs {
		x.frames = slices.Insert(x.frames, n, frameSeq{frame, seq})
	}
}

// before returns the sequence up to which only frames of incarnations before the given one lie; false
// when it is not known, as when nothing of it is stored.
func (x *seqIndex) before(incarnation uint32) (uint64, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.incarnation != incarnation || x.first == 0 {
		return 0, false
	}
	return x.first - 1, true
}

// upTo returns the sequence up to which all frames up to the given one lie; 0 for none. What
// is older than that is forgotten.
func (x *seqIndex) upTo(frame uint64) uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	seq, n := uint64(0), 0
	for n < len(x.frames) && x.frames[n].frame <= frame {
		seq = x.frames[n].seq
		n++
	}
	if n > 1 {
		x.frames = append(x.frames[:0], x.frames[n-1:]...)
	}
	return seq
}
