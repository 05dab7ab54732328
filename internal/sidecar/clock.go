package sidecar

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// clockStore is for which positions the clock of the WAL (tombstone.Clock) is stored. A position is
// confirmed only when it is stored for that, and a later process begins to read at such a position.
type clockStore struct {
	mu     sync.Mutex
	stored []tombstone.ClockAt // rising; nothing in front of the first one is asked for any more
	want   wal.LSN
	kick   chan struct{}
}

// positions are those of what is stored.
func positions(stored []tombstone.ClockAt) []wal.LSN {
	out := make([]wal.LSN, len(stored))
	for i, c := range stored {
		out[i] = c.LSN
	}
	return out
}

// last returns the newest of what is stored at or below a position; the zero value for nothing.
func (k *clockStore) last(lsn wal.LSN) tombstone.ClockAt {
	n, found := slices.BinarySearchFunc(k.stored, lsn, func(c tombstone.ClockAt, l wal.LSN) int {
		switch {
		case c.LSN < l:
			return -1
		case c.LSN > l:
			return 1
		}
		return 0
	})
	if found {
		return k.stored[n]
	}
	if n == 0 {
		return tombstone.ClockAt{}
	}
	return k.stored[n-1]
}

// note adds what was stored.
func (k *clockStore) note(c tombstone.ClockAt) {
	n := len(k.stored)
	for n > 0 && k.stored[n-1].LSN >= c.LSN {
		n--
	}
	if n < len(k.stored) && k.stored[n].LSN == c.LSN {
		k.stored[n] = c
		return
	}
	k.stored = slices.Insert(k.stored, n, c)
}

// forget drops what lies in front of a position that was confirmed.
func (k *clockStore) forget(confirmed wal.LSN) {
	n := 0
	for n+1 < len(k.stored) && k.stored[n+1].LSN <= confirmed {
		n++
	}
	k.stored = slices.Delete(k.stored, 0, n)
}

// beginClock begins the clock of a decoding, before the slot is read.
func (s *Sidecar) beginClock(b *beginning) {
	k := &s.out.clock
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stored, k.want = b.clock, 0
	k.kick = make(chan struct{}, 1)
	s.own.BeginClock(b.from, k.last(b.from).High)
}

// clockedTo is the highest position at or below the given one that may be confirmed, because
// the clock is stored for it. What is missing is stored meanwhile.
func (s *Sidecar) clockedTo(lsn wal.LSN) wal.LSN {
	at, high := s.own.ClockAt(lsn)
	k := &s.out.clock
	k.mu.Lock()
	defer k.mu.Unlock()
	base := k.last(lsn)
	switch {
	case at <= base.LSN:
		return base.LSN
	case high == base.High:
		return at // no transaction in between had a time
	}
	k.want = at
	select {
	case k.kick <- struct{}{}:
	default:
	}
	return base.LSN
}

// The clock is stored for where the decoding is, so that a later process need not read the WAL from where
// the slot was confirmed: at most every clockEvery, behind clockBytes of WAL, or behind clockLittle when
// it was not stored for clockRest.
const (
	clockEvery  = 500 * time.Millisecond
	clockRest   = 5 * time.Second
	clockBytes  = 4 << 20
	clockLittle = 64 << 10
)

// storeClock stores the clock for positions that are about to be confirmed, and now and then for
// where the decoding is.
func (s *Sidecar) storeClock(ctx context.Context) error {
	k := &s.out.clock
	ahead := time.NewTicker(clockEvery)
	defer ahead.Stop()
	last := time.Now() // when it was stored for where the decoding is
	for {
		var err error
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-k.kick:
			k.mu.Lock()
			want := k.want
			k.mu.Unlock()
			err = s.storeClockAt(ctx, want)
		case <-ahead.C:
			step := wal.LSN(clockBytes)
			if time.Since(last) >= clockRest {
				step = clockLittle
			}
			var stored bool
			if stored, err = s.storeClockAhead(ctx, step); stored {
				last = time.Now()
			}
		}
		if err != nil {
			return err
		}
	}
}

// storeClockAhead stores the clock for where the decoding is, when everything that was committed below
// that is visible to everybody: who begins to read there does not see it in the WAL. It does so behind step
// bytes of WAL, and reports whether it did.
func (s *Sidecar) storeClockAhead(ctx context.Context, step wal.LSN) (bool, error) {
	k := &s.out.clock
	at := s.own.Session()
	k.mu.Lock()
	newest := wal.LSN(0)
	if n := len(k.stored); n > 0 {
		newest = k.stored[n-1].LSN
	}
	k.mu.Unlock()
	if at < newest+step {
		return false, nil
	}
	now, err := localDB{s.ownDB}.Snapshot(ctx)
	if err != nil || s.own.Unseen(now.InProgress) {
		return false, err
	}
	return true, s.storeClockAt(ctx, at)
}

// storeClockAt stores the clock for a position, or for a lower one where it is known.
func (s *Sidecar) storeClockAt(ctx context.Context, want wal.LSN) error {
	k := &s.out.clock
	c := tombstone.ClockAt{}
	if c.LSN, c.High = s.own.ClockAt(want); c.LSN == 0 {
		return nil
	}
	err := s.ownDB.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		tx, err := conn.Begin(ctx)
		if err != nil {
			return fmt.Errorf("store the clock of the WAL: %w", err)
		}
		defer tx.Rollback(ctx)
		if _, err := tx.Exec(ctx, "set local synchronous_commit = local"); err != nil {
			return fmt.Errorf("store the clock of the WAL: %w", err)
		}
		if err := tombstone.SaveClock(ctx, tx, c.LSN, c.High); err != nil {
			return err
		}
		return tx.Commit(ctx)
	})
	if err != nil {
		return err
	}
	confirmed := wal.LSN(s.out.confirmed.Load())
	k.mu.Lock()
	k.note(c)
	k.forget(confirmed)
	first := k.stored[0].LSN
	k.mu.Unlock()
	s.own.ForgetClock(first)
	return nil
}
