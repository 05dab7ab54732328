package sidecar

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/checkpoint/streamstore"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/sink/publish"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// slotBusyError says that somebody else reads the slot. It is free again when that process
// ends, or after wal_sender_timeout when it hangs.
type slotBusyError struct {
	slot string
	pid  int32
}

func (e *slotBusyError) Error() string {
	return fmt.Sprintf("replication slot %q is active for PID %d", e.slot, e.pid)
}

// beginning is where a run of the outbound pipe starts.
type beginning struct {
	at     wire.Position // of the stream
	slot   wal.LSN       // of the WAL: what the slot has confirmed
	from   wal.LSN       // of the WAL: where it is read from
	resync bool
	// resumed: a new incarnation behind what the stream holds.
	resumed bool
	// sameWAL: the gap is one of some peers; the WAL is the one that was published before.
	sameWAL bool
	// newcomers: all tables are copied behind it, so that a peer which has applied nothing may begin with it.
	newcomers bool
	// reopened is the newest incarnation that admitted a gap.
	reopened uint32
	knew     map[string]pgstore.Place // how far each peer's stream was applied when its gap was found
	loose    uint64                   // see outboundState
	past     *checkpoint.Repetition   // what the WAL repeats of what the stream held; nil for nothing
	clock    []tombstone.ClockAt      // what is stored of it from the slot's position on
}

// begin finds out where to begin, and stores what peers will get to know before they do. nil
// means that there is a gap, which is noted; nothing may be published until it is resolved.
func (s *Sidecar) begin(ctx context.Context, tail publish.Tail) (b *beginning, err error) {
	err = s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		sit, slot, err := s.situation(ctx, c, tail)
		if err != nil {
			return err
		}
		d := sit.Begin()
		if d.Step != checkpoint.Stop && slot.Active {
			return &slotBusyError{s.cfg.Postgres.Slot, slot.ActivePID}
		}
		if due, err := s.unreadDue(ctx, c, sit, d); err != nil {
			return err
		} else if due {
			return errUnread
		}
		if d.Step != checkpoint.Stop {
			if err := s.turnExclusions(ctx, c, sit, slot.RestartLSN); err != nil {
				return err
			}
		}
		if b, err = s.decided(ctx, c, sit, d, tail); b == nil || err != nil {
			return err
		}
		b.knew, err = pgstore.Known(ctx, c)
		return err
	})
	return b, err
}

// situation gathers what decides. The end of the WAL is read last: what anybody knew before
// lies below it.
func (s *Sidecar) situation(ctx context.Context, c *pgx.Conn, tail publish.Tail) (checkpoint.Situation, *pg.Slot, error) {
	s.out.mu.Lock()
	sit := checkpoint.Situation{Epoch: s.epoch, Peers: len(s.readers()), Acks: s.out.words(), Renew: s.out.anew, Unsure: s.broker.Unsure()}
	s.out.mu.Unlock()
	h := tail.Header
	sit.Tail = checkpoint.Tail{
		Found: tail.Found, Damaged: tail.Damaged, Open: h.Flags.Has(wire.Open), Epoch: h.Epoch,
		Incarnation: h.Incarnation, EndLSN: h.EndLSN, Mark: h.Mark,
	}
	slot, err := pg.LoadSlot(ctx, c, s.cfg.Postgres.Slot)
	if err != nil {
		return sit, nil, err
	}
	if slot != nil {
		sit.Slot = checkpoint.Slot{Found: true, Lost: slot.Lost(), Confirmed: slot.ConfirmedFlushLSN}
	}
	row, err := streamstore.Load(ctx, c, s.cfg.Region)
	if err != nil {
		return sit, nil, err
	}
	sit.Stored = row.Stored
	own, found, err := pgstore.Load(ctx, c, s.cfg.Region)
	if err != nil {
		return sit, nil, err
	}
	if found && own.Epoch.SameWAL(s.epoch) {
		sit.Merged = own.EndLSN
	}
	sit.Unread = found && own.Incarnation < row.Reopened
	if sit.WALEnd, err = walEnd(ctx, c); err != nil {
		return sit, nil, err
	}
	s.out.mu.Lock()
	s.out.row, s.out.seenAt = slot, time.Now()
	s.out.mu.Unlock()
	return sit, slot, nil
}

// walEnd is the end of this server's WAL: no position beyond it was ever handed out.
func walEnd(ctx context.Context, c *pgx.Conn) (wal.LSN, error) {
	return pg.WALEnd(ctx, c)
}

// decided carries a decision out, as far as the database goes.
func (s *Sidecar) decided(ctx context.Context, c *pgx.Conn, sit checkpoint.Situation, d checkpoint.Decision, tail publish.Tail) (*beginning, error) {
	from := sit.Slot.Confirmed
	b := &beginning{slot: from, from: from, reopened: sit.Stored.Reopened}
	if d.Step != checkpoint.Reopen {
		b.past = sit.Past()
	}
	stored, err := tombstone.StoredClock(ctx, c, from)
	if err != nil {
		return nil, err
	}
	b.clock, b.from = stored, sit.Reading(d, replicator.ClockPositions(stored))
	switch d.Step {
	case checkpoint.Stop:
		return nil, s.gap(ctx, c, d)
	case checkpoint.Continue:
		b.at, b.loose = tail.Header.Position(), sit.Stored.Loose
		if err := s.copiesBehind(ctx, c, b.at); err != nil {
			return nil, err
		}
		if sit.Stored.Resync {
			s.log.Info("resync: there is no gap; the tables are copied again", "lsn", from.String())
			return b, s.settleResync(ctx, c)
		}
		return b, nil
	}
	b.at, b.resync = wire.Position{Incarnation: d.Incarnation}, d.Step == checkpoint.Reopen
	b.at.EndLSN, b.at.Mark = sit.Opening(d)
	b.resumed = d.Step == checkpoint.Resume
	b.sameWAL = b.resync && !d.History
	b.newcomers = b.resync || sit.Stored.Newcomer
	if b.resync {
		b.reopened = d.Incarnation
		s.log.Warn("resync: the gap is accepted and the stream is opened anew behind it", "incarnation", d.Incarnation, "lsn", from.String(), "reason", d.Why)
	}
	if err := s.newIncarnation(ctx, c, sit, b); err != nil {
		return nil, err
	}
	return b, s.broker.Settle()
}

// settleResync notes that an operator's resync was seen where there is no gap.
func (s *Sidecar) settleResync(ctx context.Context, c *pgx.Conn) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return fmt.Errorf("settle a resync: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // after a commit it does nothing
	if err := streamstore.Settle(ctx, tx, s.cfg.Region); err != nil {
		return err
	}
	return s.members.Forgive(ctx, tx, func() error { return tx.Commit(ctx) })
}

// newIncarnation stores the number of an incarnation before any peer can see it, and flushed,
// since a crash must not give it out twice.
func (s *Sidecar) newIncarnation(ctx context.Context, c *pgx.Conn, sit checkpoint.Situation, b *beginning) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin incarnation: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := tx.Exec(ctx, "set local synchronous_commit = local"); err != nil {
		return fmt.Errorf("begin incarnation: %w", err)
	}
	if err := streamstore.Begin(ctx, tx, s.cfg.Region, b.at.Incarnation, s.epoch, b.resync); err != nil {
		return err
	}
	if err := streamstore.SaveExclusions(ctx, tx, s.cfg.Region, s.exclusions.Exclusions); err != nil { // the row may be new
		return err
	}
	if err := s.copiesBehind(ctx, tx, b.at); err != nil {
		return err
	}
	if b.resync {
		if err := s.forgetHistory(ctx, tx, sit, b.at.Incarnation); err != nil {
			return err
		}
		if !sit.Stored.Gap {
			if err := pgstore.NoteKnown(ctx, tx); err != nil {
				return err
			}
		}
	}
	commit := func() error {
		if err := tx.Commit(ctx); err != nil {
			return fmt.Errorf("begin incarnation: %w", err)
		}
		return nil
	}
	if b.resync {
		return s.members.Forgive(ctx, tx, commit)
	}
	return commit()
}

// copiesBehind puts back the copies whose chunks the stream does not hold (any more).
func (s *Sidecar) copiesBehind(ctx context.Context, c tablecopy.Execer, at wire.Position) error {
	n, err := tablecopy.Reopened(ctx, c, tablecopy.Place{Incarnation: at.Incarnation, Frame: at.Number})
	if n > 0 {
		s.log.Info("copied rows that no peer has acknowledged are sent again", "tables", n)
	}
	return err
}

// forgetHistory forgets what belongs to the WAL before a gap: how far the own stream is
// merged. Tables that nobody asked to copy since then are copied again.
func (s *Sidecar) forgetHistory(ctx context.Context, tx pgx.Tx, sit checkpoint.Situation, incarnation uint32) error {
	if err := pgstore.Skip(ctx, tx, s.cfg.Region, incarnation-1); err != nil {
		return err
	}
	if sit.Stored.Resync {
		return nil // the command has asked for the copies
	}
	defer s.asksForCopies()
	_, err := tablecopy.Request(ctx, tx, s.cfg.Postgres.Publication, nil)
	return err
}

// otherHistory reacts to a WAL that repeats positions with other transactions. Where an operator has
// asked for a resync a moment ago, before this was known, it is what he wanted.
func (s *Sidecar) otherHistory(ctx context.Context, cause error) error {
	return s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		row, err := streamstore.Load(ctx, c, s.cfg.Region)
		if err != nil {
			return err
		}
		err = s.gap(ctx, c, checkpoint.Decision{
			From: wal.LSN(s.out.durable.Load()), To: s.out.begun(), Why: "the server was restored from an older state: " + cause.Error(), Remedy: checkpoint.RemedyResync, History: true,
		})
		if err != nil || !resynced(row) {
			return err
		}
		if _, err := streamstore.RequestResync(ctx, c, s.cfg.Region); err != nil {
			return err
		}
		return s.copyAgain(ctx, c)
	})
}

// gap records a hole between what was published and what the slot can give.
func (s *Sidecar) gap(ctx context.Context, c *pgx.Conn, d checkpoint.Decision) error {
	o := &s.out
	o.mu.Lock()
	if o.gap == nil {
		s.log.Error("gap: nothing is published until it is resolved", "from", d.From.String(), "to", d.To.String(), "reason", d.Why, "remedy", d.Remedy)
	}
	o.state, o.reason = status.Gap, d.Why
	since := time.Now()
	if o.gap != nil {
		since = o.gap.Since
	}
	o.gap = &status.GapInfo{From: d.From.String(), To: d.To.String(), Since: since, Remedy: d.Remedy}
	o.slot, o.pipe = nil, nil
	o.mu.Unlock()
	return s.recordGap(ctx, c, d.From, d.To, d.History, d.Why)
}

// recordGap notes a gap, and with the first note of it what this region knew of its peers (Ack.Anew).
func (s *Sidecar) recordGap(ctx context.Context, c *pgx.Conn, from, to wal.LSN, history bool, why string) error {
	first, err := streamstore.NoteGap(ctx, c, s.cfg.Region, from, to, history, why)
	if err != nil || !first {
		return err
	}
	return pgstore.NoteKnown(ctx, c)
}

// awaitResync looks for the operator's word, or for anything else that closes the gap.
func (s *Sidecar) awaitResync(ctx context.Context) error {
	if err := pause.For(ctx, time.Second); err != nil {
		return err
	}
	return errAgain
}
