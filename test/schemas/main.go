package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options are the flags.
type options struct {
	binary, packages string
	layouts, roles   []string
	identities, only []string
	verbose, keep    bool
}

// list is a flag of words separated by commas, of which each has to be one of allowed.
type list struct {
	words   *[]string
	allowed []string
}

func (l list) String() string {
	if l.words == nil {
		return ""
	}
	return strings.Join(*l.words, ",")
}

func (l list) Set(s string) error {
	*l.words = strings.Split(s, ",")
	for _, w := range *l.words {
		if !slices.Contains(l.allowed, w) {
			return fmt.Errorf("%q is none of %s", w, strings.Join(l.allowed, ", "))
		}
	}
	return nil
}

func parse(args []string, stderr io.Writer) (options, error) {
	o := options{layouts: []string{"one", "five"}, roles: []string{"least"}, identities: []string{"full"}}
	var names []string
	for _, p := range packages {
		names = append(names, p.name)
	}
	f := flag.NewFlagSet("schemas", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.binary, "pgwaltz", "", "`binary` to run (default: build cmd/pgwaltz)")
	f.StringVar(&o.packages, "packages", "", "`folder` for the packages, which is kept")
	f.Var(list{&o.layouts, []string{"one", "five"}}, "layout", "one: all in one database; five: a database for each")
	f.Var(list{&o.roles, []string{"least", "owner", "superuser"}}, "role", "who the sidecar and setup connect as")
	f.Var(list{&o.identities, []string{"full", "keep"}}, "identity", "replica identity")
	f.Var(list{&o.only, names}, "only", "these schemas alone")
	f.BoolVar(&o.verbose, "v", false, "print what check says")
	f.BoolVar(&o.keep, "keep", false, "keep logs and configurations of a run that fails")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("there are no arguments")
	}
	return o, nil
}

// run is main without the process: 0 all equal, 1 something differs or failed, 2 usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "schemas:", err)
		return 2
	}
	if err := harness.UseProduct(o.binary); err != nil {
		fmt.Fprintln(stderr, "schemas:", err)
		return 1
	}
	defer harness.RemoveTemplates()
	defer harness.RemoveProduct()
	sources, done, err := fetch(ctx, o)
	if err != nil {
		fmt.Fprintln(stderr, "schemas:", err)
		return 1
	}
	defer done()
	failed := 0
	for _, role := range o.roles {
		for _, identity := range o.identities {
			for _, layout := range o.layouts {
				title := fmt.Sprintf("layout %s, role %s, identity %s", layout, role, identity)
				fmt.Fprintln(stdout, "==", title)
				if err := (&trial{o: o, layout: layout, role: role, identity: identity, out: stdout}).run(ctx, sources); err != nil {
					failed++
					fmt.Fprintf(stdout, "FAIL %s: %v\n", title, err)
				}
			}
		}
	}
	if failed > 0 {
		fmt.Fprintf(stderr, "schemas: %d runs failed\n", failed)
		return 1
	}
	fmt.Fprintln(stdout, "all tables are equal in both regions")
	return 0
}
