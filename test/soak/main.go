// Command soak runs TPC-C between two regions for half an hour, and asks that nothing wears out:
// what a burst takes, memory, descriptors, and how long a session of a sidecar stays idle in a
// transaction, all stay as they were in the beginning.
//
//	go run ./test/soak [-duration 30m] [-pgwaltz bin/pgwaltz] [-keep]
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
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process: 0 nothing wore out, 1 something did or failed, 2 usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("soak", flag.ContinueOnError)
	f.SetOutput(stderr)
	duration := f.Duration("duration", 30*time.Minute, "of the load")
	binary := f.String("pgwaltz", "", "`binary` to run (default: build cmd/pgwaltz)")
	keep := f.Bool("keep", false, "keep the folder with data and logs")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case f.NArg() > 0 || *duration < 10*time.Second:
		fmt.Fprintln(stderr, "soak: -duration must be at least 10s, and there are no arguments")
		return 2
	}
	if err := harness.UseProduct(*binary); err != nil {
		fmt.Fprintln(stderr, "soak:", err)
		return 1
	}
	defer harness.RemoveTemplates()
	defer harness.RemoveProduct()
	w, err := newWorld(ctx, *keep)
	if err == nil {
		defer w.close()
		err = w.soak(ctx, *duration, stdout)
	}
	if err != nil {
		fmt.Fprintln(stderr, "soak:", err)
		return 1
	}
	fmt.Fprintln(stdout, "nothing wore out")
	return 0
}
