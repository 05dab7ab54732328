package cases

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// state is what background work of a case shares with its steps.
type state struct {
	mu       sync.Mutex
	sessions map[string]*harness.Session
	loads    map[string]*loader
	polls    map[string]*poller
	chaos    map[string]*job
	holders  map[string]*harness.SlotHolder // sessions that hold a slot, by side
	fail     map[string]*failWatch
}

func newState() *state {
	return &state{
		sessions: map[string]*harness.Session{}, loads: map[string]*loader{}, polls: map[string]*poller{},
		chaos: map[string]*job{}, holders: map[string]*harness.SlotHolder{}, fail: map[string]*failWatch{},
	}
}

// job is one background goroutine with a result.
type job struct {
	cancel context.CancelFunc
	done   chan struct{} // closed at the end
	err    error         // valid after done
}

// goJob runs fn in the background; the case ends it at the latest.
func (x *run) goJob(ctx context.Context, fn func(context.Context) error) *job {
	ctx, cancel := context.WithCancel(ctx)
	j := &job{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(j.done)
		j.err = fn(ctx)
	}()
	x.later(func() { cancel(); <-j.done })
	return j
}

func (j *job) wait(ctx context.Context) error {
	select {
	case <-j.done:
		return j.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// failWatch restarts a sidecar after its failpoint has killed it.
type failWatch struct {
	mu     sync.Mutex
	deaths int
	stop   func()
}

func (w *failWatch) fired() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.deaths
}

const failpointEnv = "PGWALTZ_FAILPOINT"

// setFailpoint arms a failpoint for the next start, or disarms it.
func (x *run) setFailpoint(r *harness.Region, spec string) {
	r.Sidecar.Setenv(failpointEnv, spec)
	x.state.mu.Lock()
	defer x.state.mu.Unlock()
	if w := x.state.fail[r.Side]; w != nil && w.stop != nil {
		w.stop()
	}
	delete(x.state.fail, r.Side)
	if spec != "" {
		x.state.fail[r.Side] = &failWatch{}
	}
}

// watchFailpoint, called after each start, begins to revive a sidecar with an armed
// failpoint: it dies there once and is started again without it.
func (s *state) watchFailpoint(x *run, r *harness.Region) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.fail[r.Side]
	if w == nil || w.stop != nil {
		return nil
	}
	w.stop = r.Sidecar.Revive(func(int) {
		w.mu.Lock()
		w.deaths++
		w.mu.Unlock()
		r.Sidecar.Setenv(failpointEnv, "")
	})
	x.later(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if w.stop != nil && s.fail[r.Side] == w {
			w.stop()
			delete(s.fail, r.Side)
		}
	})
	return nil
}

// failpointFired waits until the armed failpoint has ended the process and the next
// process answers.
func (x *run) failpointFired(ctx context.Context, r *harness.Region, limit time.Duration) error {
	x.state.mu.Lock()
	w := x.state.fail[r.Side]
	x.state.mu.Unlock()
	if w == nil {
		return fmt.Errorf("wait for failpoint of %s: none is armed", r.Side)
	}
	return harness.Poll(ctx, limit, 50*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		if w.fired() == 0 {
			return false, "the failpoint of sidecar " + r.Side + " to fire", nil
		}
		_, err := r.Sidecar.Status(ctx)
		return err == nil, "sidecar " + r.Side + " to answer again", nil
	})
}
