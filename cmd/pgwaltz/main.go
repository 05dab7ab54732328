// Command pgwaltz keeps PostgreSQL regions that all accept writes in step.
//
// Each command has a file of its own with a function that makes its cobra.Command; commands.go
// lists them. Data goes to stdout, talk goes to stderr. A command returns its error, and run
// prints it once, with a hint what to type.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

//go:generate go run . docs -o ../../docs/cli.md

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
	os.Exit(run(ctx, byName(os.Args[0], os.Args[1:]), os.Environ(), os.Stdout, os.Stderr))
}

// run is the whole program but for signals and exit, so that tests can call it. It returns
// the exit code.
func run(ctx context.Context, args, env []string, stdout, stderr io.Writer) int {
	root := newRoot(env, stdout, stderr)
	root.SetArgs(twoDashes(root, args))
	return report(stderr, root.ExecuteContext(ctx))
}
