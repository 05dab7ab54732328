// Command bench measures pgwaltz side by side with a native subscription and with
// pglogical: on the same two clusters, on the same histories, in interleaved repetitions.
// It prints ratios, rates and the CPU account of every stage, and writes them as JSON.
//
//	go run ./test/bench [-scale 1] [-repetitions 3] [-only W6,W2] [-out results.json] [-markdown results.md]
//
// What each workload is, and how to read the figures, stands in docs/benchmarks.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process: 0 everything measured and equal, 1 something failed,
// 2 usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseOptions(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	if err := command(ctx, o, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

func command(ctx context.Context, o Options, stdout, stderr io.Writer) error {
	if o.Render != "" {
		rep, err := readReport(o.Render)
		if err != nil {
			return err
		}
		rep.markdown(stdout)
		if o.Plots != "" {
			return rep.plots(o.Plots)
		}
		return nil
	}
	defer harness.RemoveTemplates()
	defer harness.RemoveProduct()
	rep, err := measure(ctx, o, func(format string, args ...any) { fmt.Fprintf(stderr, format+"\n", args...) })
	if rep == nil {
		return err
	}
	// What was measured before an interruption is worth printing all the same.
	rep.text(stdout)
	return errors.Join(err, rep.save(o), rep.failures())
}
