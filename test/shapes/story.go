package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// story is what happened in a run. It is safe for use from any goroutine.
type story struct {
	out   io.Writer
	loud  bool
	began time.Time

	mu    sync.Mutex
	lines []string
}

// say adds a line.
func (s *story) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := fmt.Sprintf("%6.1fs  %s", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
	s.lines = append(s.lines, line)
	if s.loud {
		fmt.Fprintln(s.out, line)
	}
}
