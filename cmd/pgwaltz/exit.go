package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/pgwaltz/pgwaltz/internal/visible"
)

// The exit codes of every command. The help of each command lists the ones it uses.
const (
	exitOK          = 0
	exitOther       = 1
	exitUsage       = 2
	exitConfig      = 3
	exitCheck       = 4 // check found problems
	exitPostgres    = 5 // the local server
	exitPeer        = 6 // broker, peer or sidecar out of reach
	exitDiffer      = 7 // the regions differ
	exitPartitioned = 8
	exitGap         = 9
	exitParked      = 10
	exitDown        = 11 // the sidecar answers, and a direction does not run
	exitBehind      = 12 // more than --max-lag
	exitInterrupted = 130
)

// exitMeaning is what each code says.
var exitMeaning = map[int]string{
	exitOK: "ok", exitOther: "any other error", exitUsage: "wrong usage", exitConfig: "configuration",
	exitCheck: "problems found", exitPostgres: "local PostgreSQL", exitPeer: "broker, peer or sidecar out of reach",
	exitDiffer: "the regions differ", exitPartitioned: "state partitioned", exitGap: "state gap", exitParked: "state parked, or a change failed again",
	exitDown: "state down", exitBehind: "more than --max-lag behind", exitInterrupted: "interrupted",
}

// coded gives an error the exit code it ends the program with.
type coded struct {
	code int
	err  error
}

func (e *coded) Error() string { return e.err.Error() }
func (e *coded) Unwrap() error { return e.err }
func (e *coded) ExitCode() int { return e.code }

// usageError is a mistake on the command line.
type usageError struct{ message, hint string }

func (e *usageError) Error() string { return e.message }
func (e *usageError) Hint() string  { return e.hint }
func (e *usageError) ExitCode() int { return exitUsage }

// silent ends the program with its code and prints nothing: what there is to say was said.
type silent int

func (e silent) Error() string { return exitMeaning[int(e)] }
func (e silent) ExitCode() int { return int(e) }

// exitCode asks the error itself: whatever has ExitCode() int in its chain decides.
func exitCode(err error) int {
	var c interface{ ExitCode() int }
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &c):
		return c.ExitCode()
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitOther
}

// report prints err once, with its remedy where one is known, and returns its exit code.
// It is the only place that prints errors.
func report(stderr io.Writer, err error) int {
	if said := silent(0); err == nil || errors.As(err, &said) {
		return exitCode(err)
	}
	fmt.Fprintf(stderr, "Error: %s\n", visible.Lines(err.Error()))
	var h interface{ Hint() string }
	if errors.As(err, &h) && h.Hint() != "" {
		fmt.Fprintf(stderr, "Try: %s\n", visible.Lines(h.Hint()))
	}
	return exitCode(err)
}
