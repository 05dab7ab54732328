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

// options are the choices of one run.
type options struct {
	seed              uint64
	span              time.Duration
	tables, regions   int
	keys              int
	faults, ddl, loud bool
	restorer          bool
	keep              string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process: 0 all is equal, 1 it is not, or something failed, 2 usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	f := flag.NewFlagSet("shapes", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Uint64Var(&o.seed, "seed", 1, "what tables, transactions and alterations are drawn from")
	f.DurationVar(&o.span, "span", 15*time.Second, "how long the regions write")
	f.IntVar(&o.tables, "tables", 10, "how many tables")
	f.IntVar(&o.regions, "regions", 2, "two or three regions")
	f.IntVar(&o.keys, "keys", 6, "keys of each table, at most 9")
	f.BoolVar(&o.faults, "faults", false, "cut links, kill sidecars and servers")
	f.BoolVar(&o.ddl, "ddl", false, "alter tables, in one region after the other")
	f.BoolVar(&o.restorer, "restorer", false, "triggers restore applied rows, and foreign keys are enforced for them")
	f.BoolVar(&o.loud, "v", false, "tell the story as it happens")
	f.StringVar(&o.keep, "keep", "", "`folder` for logs, dumps and the story of a run that failed")
	binary := f.String("pgwaltz", "", "`binary` to run (default: build cmd/pgwaltz)")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case f.NArg() > 0 || o.regions < 2 || o.regions > 3 || o.tables < 1 || o.keys < 1 || o.keys > 9:
		fmt.Fprintln(stderr, "shapes: two or three regions, one table at least, one to nine keys, and no arguments")
		return 2
	}
	if err := harness.UseProduct(*binary); err != nil {
		fmt.Fprintln(stderr, "shapes:", err)
		return 1
	}
	defer harness.RemoveTemplates()
	defer harness.RemoveProduct()
	w, err := newWorld(ctx, o, stdout)
	if err == nil {
		err = w.live(ctx)
		if err != nil && o.keep != "" {
			err = errors.Join(err, w.save(context.WithoutCancel(ctx)))
		}
		w.close()
	}
	if err != nil {
		fmt.Fprintf(stderr, "shapes: seed %d: %v\n", o.seed, err)
		return 1
	}
	fmt.Fprintf(stdout, "seed %d: equal\n", o.seed)
	return 0
}
