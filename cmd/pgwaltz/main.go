// Command pgwaltz keeps PostgreSQL regions that all accept writes in step.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// command is one word of the command line. Data goes to stdout, talk to stderr; the
// returned number is the exit code.
type command struct {
	name    string
	summary string
	run     func(ctx context.Context, args, env []string, stdout, stderr io.Writer) int
}

func commands() []command {
	return []command{
		{"run", "replicate: publish the local changes and apply the peer's", runRun},
		{"setup", "prepare a database: schema, publication, slot, identities, grants", runSetup},
		{"check", "say what is missing before run, with remedies", runCheck},
		{"status", "show both directions of a running sidecar", runStatus},
		{"conflicts", "list the audit log of conflicts, or show one", runConflicts},
		{"resync", "copy tables to the peers again, or reopen a stream after a gap", runResync},
		{"demo", "two regions on this machine, a cut link, and the proof that they agree", runDemo},
		{"version", "print the version", runVersion},
	}
}

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	// Room for the first signal and the one that ends the waiting.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // under nohup it stays ignored
		signal.Notify(signals, syscall.SIGHUP)
	}
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(exitInterrupted)
	}()
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run finds the command and runs it. It is the whole program but for signals and exit, so
// that tests can call it.
func run(ctx context.Context, args, env []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		usage(stderr)
		return exitUsage
	}
	name, rest := args[0], args[1:]
	switch name {
	case "help", "-h", "-help", "--help":
		if name == "help" && len(rest) > 0 {
			return run(ctx, []string{rest[0], "-h"}, env, stdout, stderr)
		}
		usage(stdout)
		return exitOK
	case "-version", "--version":
		name = "version"
	}
	for _, c := range commands() {
		if c.name == name {
			return c.run(ctx, rest, env, stdout, stderr)
		}
	}
	return report(stderr, &usageError{
		message: fmt.Sprintf("unknown command %q", name),
		hint:    "pgwaltz help",
	})
}

func usage(w io.Writer) {
	var b strings.Builder
	b.WriteString("pgwaltz keeps PostgreSQL regions that all accept writes in step.\n\nUsage: pgwaltz <command> [flags]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "  %-10s %s\n", c.name, c.summary)
	}
	b.WriteString("\nTry it:            pgwaltz demo\nHelp on a command: pgwaltz <command> -h\n")
	io.WriteString(w, b.String())
}
