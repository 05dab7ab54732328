package sidecar

import (
	"testing"
	"time"
)

func TestAliveWhileTheLoopTurns(t *testing.T) {
	t.Parallel()
	var s Sidecar
	if err := s.alive(); err != nil {
		t.Errorf("before it begins: %v", err)
	}
	s.turn()
	if err := s.alive(); err != nil {
		t.Errorf("while it turns: %v", err)
	}
	s.turned.Store(time.Now().Add(-stuckAfter - time.Minute).UnixNano())
	if s.alive() == nil {
		t.Error("a loop that is stuck counts as alive")
	}
}
