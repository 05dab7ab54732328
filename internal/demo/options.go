package demo

import (
	"fmt"
	"io"
	"time"
)

const warmUp = 2 * time.Second

// Options says what to show. Seed 0 is a seed like any other.
type Options struct {
	Duration   time.Duration // of the writing, the cut included
	Cut        time.Duration // of the link; 0: no cut
	Rate       int           // operations per second, both regions together
	Seed       uint64
	Keep       bool      // keep the folder with databases, configs and logs
	Executable string    // the pgwaltz program that the sidecars run
	Env        []string  // their environment
	Bin        string    // PGWALTZ_PG_BIN, or ""
	Progress   io.Writer // the live screen or the plain lines; nil: nothing
	// Size is the size of the terminal that Progress is. It may change. Nil: no terminal, or
	// one without colour.
	Size func() (columns, rows int)
}

// OptionsError is a wrong option.
type OptionsError struct{ What string }

func (e *OptionsError) Error() string { return e.What }

// Hint is the remedy.
func (e *OptionsError) Hint() string { return "pgwaltz demo -h" }

// Validate checks what does not fit together.
func (o Options) Validate() error {
	switch {
	case o.Rate < 1 || o.Rate > 20000:
		return &OptionsError{fmt.Sprintf("rate %d is not between 1 and 20000", o.Rate)}
	case o.Cut < 0:
		return &OptionsError{"the cut cannot be negative"}
	case o.Duration < warmUp+o.Cut+time.Second:
		return &OptionsError{fmt.Sprintf("duration %s is too short: it must hold %s of warm-up and the cut of %s", o.Duration, warmUp, o.Cut)}
	}
	return nil
}
