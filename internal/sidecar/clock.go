package sidecar

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// clockStore is how far the clock of the WAL (tombstone.Clock) is stored. A position is confirmed
// only when it is stored for that.
type clockStore struct {
	mu   sync.Mutex
	at   wal.LSN
	high wal.Micros // stored for at
	want wal.LSN
	kick chan struct{}
}

// beginClock begins the clock of a decoding, before the slot is read.
func (s *Sidecar) beginClock(ctx context.Context, from wal.LSN) error {
	var high wal.Micros
	err := s.ownDB.do(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
		high, err = tombstone.LoadClock(ctx, c, from)
		return err
	})
	if err != nil {
		return err
	}
	s.own.BeginClock(from, high)
	k := &s.out.clock
	k.mu.Lock()
	defer k.mu.Unlock()
	k.at, k.high, k.want = from, high, 0
	k.kick = make(chan struct{}, 1)
	return nil
}

// clockedTo is the highest position at or below the given one that may be confirmed, because
// the clock is stored for it. What is missing is stored meanwhile.
func (s *Sidecar) clockedTo(lsn wal.LSN) wal.LSN {
	at, high := s.own.ClockAt(lsn)
	k := &s.out.clock
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case at <= k.at:
		return min(lsn, k.at)
	case high == k.high:
		return at // no transaction in between had a time
	}
	k.want = at
	select {
	case k.kick <- struct{}{}:
	default:
	}
	return k.at
}

// storeClock stores the clock for positions that are about to be confirmed.
func (s *Sidecar) storeClock(ctx context.Context) error {
	k := &s.out.clock
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-k.kick:
		}
		k.mu.Lock()
		want := k.want
		k.mu.Unlock()
		at, high := s.own.ClockAt(want)
		if at == 0 {
			continue
		}
		err := s.ownDB.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
			tx, err := c.Begin(ctx)
			if err != nil {
				return fmt.Errorf("store the clock of the WAL: %w", err)
			}
			defer tx.Rollback(ctx)
			if _, err := tx.Exec(ctx, "set local synchronous_commit = local"); err != nil {
				return fmt.Errorf("store the clock of the WAL: %w", err)
			}
			if err := tombstone.SaveClock(ctx, tx, at, high); err != nil {
				return err
			}
			return tx.Commit(ctx)
		})
		if err != nil {
			return err
		}
		s.own.ForgetClock(at)
		k.mu.Lock()
		k.at, k.high = at, high
		k.mu.Unlock()
	}
}
