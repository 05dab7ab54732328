package harness

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
)

// ErrTimeout marks a condition that did not come true in its time.
var ErrTimeout = errors.New("condition not reached in time")

// Poll calls fn every interval until it answers true, fails, or the limit has passed. fn
// says in words what it still waits for; the timeout error repeats the last words.
func Poll(ctx context.Context, limit, every time.Duration, fn func(context.Context) (done bool, waiting string, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := "first answer"
	for {
		done, waiting, err := fn(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if done {
			return nil
		}
		if waiting != "" && ctx.Err() == nil {
			last = waiting
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("wait %s for %s: %w", limit, last, ErrTimeout)
			}
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Pause waits for d or until ctx ends.
func Pause(ctx context.Context, d time.Duration) error { return pause.For(ctx, d) }
