package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pgwaltz/pgwaltz/internal/demo"
)

const demoAbout = `Starts two PostgreSQL clusters in a temporary folder, a sidecar for each, writes in both
at once with some conflicts on purpose, cuts the link between them and heals it, and then
compares every table and looks for every write in the result or in the audit log.
Everything it started is gone when it ends.`

func newDemo(env []string) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "demo [flags]",
		Short: "two regions on this machine, a cut link, and the proof that they agree",
		Long:  demoAbout,
		Args:  noWords,
	}, exitOK, exitOther, exitUsage, exitDiffer, exitInterrupted)
	opt := demo.Options{Env: withoutConfig(env), Bin: lookup(env, "PGWALTZ_PG_BIN")}
	f := c.Flags()
	f.DurationVar(&opt.Duration, "duration", 30*time.Second, "how long to write, the cut included")
	f.DurationVar(&opt.Cut, "cut", 5*time.Second, "how long to cut the link; 0 for no cut")
	f.IntVar(&opt.Rate, "rate", 200, "operations per second, both regions together")
	f.Uint64Var(&opt.Seed, "seed", 0, "of the workload; the summary names it (default: drawn)")
	f.BoolVar(&opt.Keep, "keep", false, "keep the folder with the databases, configurations and logs")
	for flag, value := range map[string]string{"duration": "TIME", "cut": "TIME", "rate": "N", "seed": "N"} {
		takes(f, flag, value)
	}
	asJSON := f.Bool("json", false, "print only the summary, as one JSON object")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if !f.Changed("seed") {
			opt.Seed = uint64(time.Now().UnixNano() % 1_000_000)
		}
		return runDemo(c.Context(), opt, *asJSON, env, c.OutOrStdout())
	}
	return c
}

func runDemo(ctx context.Context, opt demo.Options, asJSON bool, env []string, stdout io.Writer) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the pgwaltz program: %w", err)
	}
	opt.Executable = exe
	if err := opt.Validate(); err != nil {
		return &coded{exitUsage, err}
	}
	if !asJSON {
		opt.Progress = stdout
		opt.Size = terminalSize(stdout, env)
	}
	summary, err := demo.Run(ctx, opt)
	if err != nil {
		if ctx.Err() != nil {
			return &coded{exitInterrupted, fmt.Errorf("run demo: interrupted, and cleaned up: %w", err)}
		}
		return fmt.Errorf("run demo: %w", err)
	}
	summary.Judge()
	if asJSON {
		err = printJSON(stdout, summary)
	} else {
		err = summary.Print(stdout)
	}
	switch {
	case err != nil:
		return fmt.Errorf("print summary: %w", err)
	case summary.Good:
		return nil
	case summary.Differ():
		return silent(exitDiffer)
	}
	return silent(exitOther)
}

// terminalSize asks for the size of the terminal that w is. It is nil where w is none, or where
// the environment asks for no colour: https://no-color.org.
func terminalSize(w io.Writer, env []string) func() (columns, rows int) {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) || lookup(env, "NO_COLOR") != "" || lookup(env, "TERM") == "dumb" {
		return nil
	}
	return func() (columns, rows int) {
		columns, rows, err := term.GetSize(int(file.Fd()))
		if err != nil || columns < 1 || rows < 1 {
			return 80, 24
		}
		return columns, rows
	}
}

// withoutConfig drops our own variables: they would override the regions' configurations.
// What tests set on purpose passes through.
func withoutConfig(env []string) []string {
	var kept []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, "PGWALTZ_") || strings.HasPrefix(kv, "PGWALTZ_FAILPOINT=") {
			kept = append(kept, kv)
		}
	}
	return kept
}

func lookup(env []string, name string) string {
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}
