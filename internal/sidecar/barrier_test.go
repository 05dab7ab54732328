package sidecar

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/wal"
)

// farWAL is a server whose WAL ends far behind what is read of it.
type farWAL struct{ replicator.LocalDB }

func (farWAL) InsertLSN(context.Context) (wal.LSN, error) { return 1000, nil }
func (farWAL) Flush(context.Context) error                { return nil }

// A region that has much of its own to read does not wait long, not even at first: it may be one that starts again
// every few seconds.
func TestABarrierFarBehindIsShort(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Sidecar{own: replicator.NewLocalWAL(endlessWAL{})}
		s.own.Stamped(1000)
		began := time.Now()
		if err := s.barrier(t.Context()); !errors.Is(err, apply.ErrOverdue) || time.Since(began) != barrierAgain {
			t.Errorf("%v after %v, want it overdue after %v", err, time.Since(began), barrierAgain)
		}
	})
}

// endlessWAL is a server whose WAL ends very far behind what is read of it.
type endlessWAL struct{ farWAL }

func (endlessWAL) InsertLSN(context.Context) (wal.LSN, error) { return 1 << 30, nil }

// Behind a wait for own changes that was in vain the next ones are short, until one is not.
func TestABarrierInVainMakesTheNextOnesShort(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Sidecar{own: replicator.NewLocalWAL(farWAL{})}
		for _, want := range []time.Duration{barrierLimit, barrierAgain, barrierAgain} {
			began := time.Now()
			if err := s.barrier(t.Context()); !errors.Is(err, apply.ErrOverdue) || time.Since(began) != want {
				t.Errorf("%v after %v, want it overdue after %v", err, time.Since(began), want)
			}
		}
		s.own.Stamped(1000)
		s.own.MergedTo(1000)
		if err := s.barrier(t.Context()); err != nil || s.overdue.Load() {
			t.Errorf("%v, overdue %v: everything is merged", err, s.overdue.Load())
		}
	})
}
