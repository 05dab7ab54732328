package sidecar

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/pgwaltz/pgwaltz/adapter/guard"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/checkpoint"
)

// reconnect is the pace of every reconnect state: quick at first, then calm.
func reconnect() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(100*time.Millisecond), backoff.WithMultiplier(1.7),
		backoff.WithMaxInterval(5*time.Second), backoff.WithMaxElapsedTime(0))
}

// fatalError is what no waiting can mend.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }

func (e *fatalError) Unwrap() error { return e.err }

// supervise runs one pipe again and again; it returns when the context ends, or on an error
// that no repetition can mend.
func (s *Sidecar) supervise(ctx context.Context, name string, note func(error), run func(context.Context) error) error {
	pace := reconnect()
	for {
		started := time.Now()
		// Directions say themselves when they move again.
		calm := time.AfterFunc(calmAfter, func() {
			if note == nil {
				s.over(name)
			}
		})
		err := s.broker.Explain(guard.Run(name, func() error { return run(ctx) }))
		calm.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && s.isStopping() {
			<-ctx.Done() // the others finish
			return ctx.Err()
		}
		if errors.Is(err, checkpoint.ErrInvariant) {
			err = &fatalError{fmt.Errorf("%s: %w", name, err)} // going on could lose or double a transaction
		}
		var stop *fatalError
		if errors.As(err, &stop) {
			return err
		}
		if time.Since(started) > 10*time.Second {
			pace.Reset()
		}
		wait := pace.NextBackOff()
		if errors.Is(err, errAgain) {
			wait, err = 0, nil
		} else if err != nil {
			var p *guard.PanicError
			if errors.As(err, &p) {
				s.log.Error("a pipe has panicked", "pipe", name, "reason", p.Error(), "stack", string(p.Stack))
			}
			s.failed(name, err)
			if note != nil {
				note(err)
			}
			s.log.Warn("pipe stopped", "pipe", name, "reason", publicMessage(err), "again_in", wait.Round(time.Millisecond))
		}
		if err := pause.For(ctx, wait); err != nil {
			return err
		}
	}
}

// calmAfter is how long a side pipe has to run before its last error counts as over.
const calmAfter = 10 * time.Second

// errAgain makes supervise run the pipe again at once: a wanted restart.
var errAgain = errors.New("the pipe is to be opened anew")
