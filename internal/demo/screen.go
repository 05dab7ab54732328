package demo

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// screen shows views: redrawn in place over the whole terminal, else as a line each second.
// It moves the cursor only over its own lines and changes no mode of the terminal, so that
// there is nothing to restore however the program ends.
type screen struct {
	out   io.Writer
	size  func() (columns, rows int) // of the terminal; nil: plain lines
	drawn int                        // lines on the terminal that the next frame replaces
	was   [2]int                     // the size when they were drawn
	mu    sync.Mutex                 // over the writing and what stands above
}

func (s *screen) terminal() bool { return s.size != nil }

// run draws what look returns until ctx ends.
func (s *screen) run(ctx context.Context, look func() view) error {
	every := time.Second
	if s.terminal() {
		every = 200 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.show(look())
		}
	}
}

func (s *screen) show(v view) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.terminal() {
		fmt.Fprintln(s.out, plainLine(v))
		return
	}
	columns, rows := s.size()
	var b strings.Builder
	switch {
	case s.drawn > 0 && s.was != [2]int{columns, rows}:
		b.WriteString("\x1b[2J\x1b[H") // the terminal has wrapped the old lines
	case s.drawn > 0:
		fmt.Fprintf(&b, "\x1b[%dA", s.drawn)
	}
	// The cursor's line and the last column stay free, so that nothing scrolls or wraps.
	lines := frame(v, columns-1, rows-1)
	for _, l := range lines {
		b.WriteString(l.paint())
		b.WriteString("\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	io.WriteString(s.out, b.String())
	s.drawn, s.was = len(lines), [2]int{columns, rows}
}

// keep leaves the last frame where it is.
func (s *screen) keep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drawn = 0
}

// say prints a line that stays, above the live part.
func (s *screen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove()
	fmt.Fprintf(s.out, format+"\n", args...)
}

// clear takes the live part away.
func (s *screen) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove()
}

func (s *screen) remove() {
	if s.drawn > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.drawn)
		s.drawn = 0
	}
}
