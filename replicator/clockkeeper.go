package replicator

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// ClockDB is where a ClockKeeper stores the clock. Safe for concurrent use.
type ClockDB interface {
	// SaveClock is tombstone.SaveClock, on disk when it returns.
	SaveClock(ctx context.Context, at wal.LSN, high wal.Micros) error
	// Snapshot is tombstone.ReadSnapshot.
	Snapshot(ctx context.Context) (*tombstone.Snapshot, error)
}

// ClockKeeper knows for which positions the clock of the WAL (tombstone.Clock) is stored, and stores it. A position is
// confirmed only when it is stored for that, and a later process begins to read at such a position. Safe for concurrent use.
type ClockKeeper struct {
	wal *LocalWAL
	db  ClockDB

	mu     sync.Mutex
	stored []tombstone.ClockAt // rising; nothing in front of the first one is asked for any more
	want   wal.LSN
	kick   chan struct{}
}

// NewClockKeeper makes one; Begin comes before it is used.
func NewClockKeeper(l *LocalWAL, db ClockDB) *ClockKeeper {
	return &ClockKeeper{wal: l, db: db, kick: make(chan struct{}, 1)}
}

// ClockPositions are those of what is stored.
func ClockPositions(stored []tombstone.ClockAt) []wal.LSN {
	out := make([]wal.LSN, len(stored))
	for i, c := range stored {
		out[i] = c.LSN
	}
	return out
}

// last returns the newest of what is stored at or below a position; the zero value for nothing.
func (k *ClockKeeper) last(lsn wal.LSN) tombstone.ClockAt {
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
func (k *ClockKeeper) note(c tombstone.ClockAt) {
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
func (k *ClockKeeper) forget(confirmed wal.LSN) {
	n := 0
	for n+1 < len(k.stored) && k.stored[n+1].LSN <= confirmed {
		n++
	}
	k.stored = slices.Delete(k.stored, 0, n)
}

// Begin begins the clock of a decoding, before the slot is read from a position on; stored is what the database holds
// from the slot's position on (tombstone.StoredClock).
func (k *ClockKeeper) Begin(from wal.LSN, stored []tombstone.ClockAt) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stored, k.want = stored, 0
	select {
	case <-k.kick:
	default:
	}
	k.wal.BeginClock(from, k.last(from).High)
}

// To is the highest position at or below the given one that may be confirmed, because
// the clock is stored for it. What is missing is stored meanwhile, while Run runs.
func (k *ClockKeeper) To(lsn wal.LSN) wal.LSN {
	at, high := k.wal.ClockAt(lsn)
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

// Run stores the clock for positions that are about to be confirmed, and now and then for
// where the decoding is. confirmed is the position that is confirmed by now. It ends with an error, or the context.
func (k *ClockKeeper) Run(ctx context.Context, confirmed func() wal.LSN) error {
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
			err = k.store(ctx, want, confirmed())
		case <-ahead.C:
			step := wal.LSN(clockBytes)
			if time.Since(last) >= clockRest {
				step = clockLittle
			}
			var stored bool
			if stored, err = k.storeAhead(ctx, step, confirmed()); stored {
				last = time.Now()
			}
		}
		if err != nil {
			return err
		}
	}
}

// storeAhead stores the clock for where the decoding is, when everything that was committed below
// that is visible to everybody: who begins to read there does not see it in the WAL. It does so behind step
// bytes of WAL, and reports whether it did.
func (k *ClockKeeper) storeAhead(ctx context.Context, step, confirmed wal.LSN) (bool, error) {
	at := k.wal.Session()
	k.mu.Lock()
	newest := wal.LSN(0)
	if n := len(k.stored); n > 0 {
		newest = k.stored[n-1].LSN
	}
	k.mu.Unlock()
	if at < newest+step {
		return false, nil
	}
	now, err := k.db.Snapshot(ctx)
	if err != nil || k.wal.Unseen(now.InProgress) {
		return false, err
	}
	return true, k.store(ctx, at, confirmed)
}

// store stores the clock for a position, or for a lower one where it is known.
func (k *ClockKeeper) store(ctx context.Context, want, confirmed wal.LSN) error {
	c := tombstone.ClockAt{}
	if c.LSN, c.High = k.wal.ClockAt(want); c.LSN == 0 {
		return nil
	}
	if err := k.db.SaveClock(ctx, c.LSN, c.High); err != nil {
		return err
	}
	k.mu.Lock()
	k.note(c)
	k.forget(confirmed)
	first := k.stored[0].LSN
	k.mu.Unlock()
	k.wal.ForgetClock(first)
	return nil
}
