package harness

import (
	"context"
	"time"
)

// Revive starts the process again whenever it ends, until the returned function is
// called. onDeath is called before each new start, from Revive's goroutine.
func (s *Sidecar) Revive(onDeath func(code int)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	s.mu.Lock()
	s.reviving++
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			p := s.Process()
			if p == nil {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-p.Done():
			}
			if onDeath != nil {
				onDeath(p.ExitCode())
			}
			if Pause(ctx, 200*time.Millisecond) != nil {
				return
			}
			if s.Process() == p {
				_ = s.Start()
			}
		}
	}()
	return func() {
		cancel()
		<-done
		s.mu.Lock()
		s.reviving--
		s.mu.Unlock()
	}
}

// Reviving reports whether somebody starts the process again when it ends.
func (s *Sidecar) Reviving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reviving > 0
}
