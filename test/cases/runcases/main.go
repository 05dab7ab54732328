// Command runcases executes acceptance cases against two real regions.
//
//	go run ./test/cases/runcases [-run REGEXP] [-priority P1] [-v] [PATH...]
//
// PATH is a file or a folder; without one it is test/cases. It prints one line per case
// and a summary, and exits with 1 when a case failed, with 2 when it could not run at all.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"

	"github.com/pgwaltz/pgwaltz/test/cases"
	"github.com/pgwaltz/pgwaltz/test/harness"
)

func main() {
	harness.RunChild()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("runcases", flag.ContinueOnError)
	fs.SetOutput(stderr)
	match := fs.String("run", "", "run only cases whose `ID Title` fits this regular expression")
	priority := fs.String("priority", "", "run only cases of this priority, for example P1")
	verbose := fs.Bool("v", false, "print each step before it is executed")
	list := fs.Bool("list", false, "print the cases and do not run them")
	logs := fs.String("logs", os.Getenv("PGWALTZ_CASE_LOGS"), "keep the logs of failed cases in this folder")
	jobs := fs.Int("j", 1, "how many cases to run at a time; each runner has clusters of its own")
	topology := fs.String("topology", "", "topology of cases that leave it open: embedded, external or cluster")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	re, err := regexp.Compile(*match)
	if err != nil {
		fmt.Fprintln(stderr, "runcases: read -run:", err)
		return 2
	}
	paths := fs.Args()
	if len(paths) == 0 {
		root, err := harness.ModuleRoot()
		if err != nil {
			fmt.Fprintln(stderr, "runcases:", err)
			return 2
		}
		paths = []string{filepath.Join(root, "test", "cases")}
	}
	all, err := cases.ParseFiles(paths...)
	if err != nil {
		fmt.Fprintln(stderr, "runcases:", err)
		return 2
	}
	var chosen []*cases.Case
	for _, c := range all {
		if re.MatchString(c.ID+" "+c.Title) && (*priority == "" || c.Priority == *priority) {
			chosen = append(chosen, c)
		}
	}
	if *list {
		for _, c := range chosen {
			fmt.Fprintf(stdout, "%s %s [%s] %s:%d\n", c.ID, c.Title, c.Priority, c.File, c.Line)
		}
		return 0
	}
	return execute(ctx, chosen, options{*verbose, *logs, harness.Topology(*topology), max(*jobs, 1)}, stdout, stderr)
}

type options struct {
	verbose  bool
	logs     string
	topology harness.Topology
	jobs     int
}

func execute(ctx context.Context, chosen []*cases.Case, o options, stdout, stderr io.Writer) int {
	if len(chosen) == 0 {
		fmt.Fprintln(stderr, "runcases: no case fits")
		return 2
	}
	if _, err := harness.Product(); err != nil {
		fmt.Fprintln(stderr, "runcases:", err)
		return 2
	}
	defer harness.RemoveProduct()
	defer harness.RemoveTemplates()
	queue, results := make(chan *cases.Case), make(chan cases.Result)
	var workers sync.WaitGroup
	for range min(o.jobs, len(chosen)) {
		r, err := cases.NewRunner()
		if err != nil {
			fmt.Fprintln(stderr, "runcases:", err)
			return 2
		}
		defer r.Close()
		r.LogDir, r.Topology = o.logs, o.topology
		if o.verbose {
			r.Verbose = func(c *cases.Case, s cases.Step) {
				fmt.Fprintf(stdout, "     %s:%d --@%s %s\n", c.ID, s.Line, s.Name, firstLine(s.Arg))
			}
		}
		workers.Go(func() {
			for c := range queue {
				results <- r.Run(ctx, c)
			}
		})
	}
	go func() {
		defer close(results)
		for _, c := range chosen {
			if ctx.Err() != nil {
				break
			}
			queue <- c
		}
		close(queue)
		workers.Wait()
	}()
	passed, failed := 0, 0
	for res := range results {
		if res.Err != nil {
			failed++
			fmt.Fprintf(stdout, "FAIL %s %s: %s (%.1fs)\n", res.Case.ID, res.Case.Title, oneLine(res.Err.Error()), res.Elapsed.Seconds())
		} else {
			passed++
			fmt.Fprintf(stdout, "ok   %s %s (%.1fs)\n", res.Case.ID, res.Case.Title, res.Elapsed.Seconds())
		}
		if o.verbose {
			for _, n := range res.Notes {
				fmt.Fprintf(stdout, "     %s\n", n)
			}
		}
	}
	fmt.Fprintf(stdout, "%d passed, %d failed\n", passed, failed)
	if failed > 0 || ctx.Err() != nil {
		return 1
	}
	return 0
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", " ⏎ ") }
