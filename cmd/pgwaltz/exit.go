package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// The exit codes of every command. Each command's -h lists the ones it uses.
const (
	exitOK          = 0
	exitOther       = 1
	exitUsage       = 2
	exitConfig      = 3
	exitCheck       = 4 // check found problems
	exitPostgres    = 5 // the local server
	exitPeer        = 6 // broker, peer or sidecar out of reach
	exitDiffer      = 7 // the regions differ
	exitInterrupted = 130
)

// exitText is the meaning of each code, for the end of every -h.
func exitText(codes ...int) string {
	meaning := map[int]string{
		exitOK: "ok", exitOther: "any other error", exitUsage: "wrong usage", exitConfig: "configuration",
		exitCheck: "problems found", exitPostgres: "local PostgreSQL", exitPeer: "broker, peer or sidecar out of reach",
		exitDiffer: "the regions differ", exitInterrupted: "interrupted",
	}
	var b strings.Builder
	b.WriteString("\nExit codes:\n")
	for _, c := range codes {
		fmt.Fprintf(&b, "  %3d  %s\n", c, meaning[c])
	}
	return b.String()
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

// exitCode asks the error itself: whatever has ExitCode() int in its chain decides.
func exitCode(err error) int {
	var c interface{ ExitCode() int }
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
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
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	fmt.Fprintf(stderr, "Error: %s\n", err)
	var h interface{ Hint() string }
	if errors.As(err, &h) && h.Hint() != "" {
		fmt.Fprintf(stderr, "Try: %s\n", h.Hint())
	}
	return exitCode(err)
}

// newFlags makes the flag set of a command: help goes to stdout when it is asked for, the
// usage of a mistake to nowhere (report prints the mistake and a hint).
func newFlags(name, synopsis, about string, codes ...int) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "Usage: pgwaltz %s\n\n%s\n", synopsis, about)
		has := false
		f.VisitAll(func(*flag.Flag) { has = true })
		if has {
			fmt.Fprint(f.Output(), "\nFlags:\n")
			f.PrintDefaults()
		}
		fmt.Fprint(f.Output(), exitText(codes...))
	}
	return f
}

// parseFlags parses and turns a mistake into a usageError. flag.ErrHelp comes back after the help was
// printed to stdout. Unless more is true, words after the flags are a mistake.
func parseFlags(f *flag.FlagSet, args []string, stdout io.Writer, more bool) error {
	for _, a := range args {
		if a == "--" {
			break
		}
		if a == "-h" || a == "-help" || a == "--help" {
			f.SetOutput(stdout)
			f.Usage()
			f.SetOutput(io.Discard)
			return flag.ErrHelp
		}
	}
	if err := f.Parse(args); err != nil {
		return &usageError{err.Error(), "pgwaltz " + f.Name() + " -h"}
	}
	if !more && f.NArg() > 0 {
		return &usageError{fmt.Sprintf("unexpected argument %q", f.Arg(0)), "pgwaltz " + f.Name() + " -h"}
	}
	return nil
}
