package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/pgwaltz/pgwaltz/internal/demo"
)

const demoAbout = `Starts two PostgreSQL clusters in a temporary folder, a sidecar for each, writes in both
at once with some conflicts on purpose, cuts the link between them and heals it, and then
compares every table and looks for every write in the result or in the audit log.
Everything it started is gone when it ends.`

func runDemo(ctx context.Context, args, env []string, stdout, stderr io.Writer) int {
	f := newFlags("demo", "demo [flags]", demoAbout, exitOK, exitOther, exitUsage, exitDiffer, exitInterrupted)
	duration := f.Duration("duration", 30*time.Second, "how long to write, the cut included")
	cut := f.Duration("cut", 5*time.Second, "how long to cut the link; 0 for no cut")
	rate := f.Int("rate", 200, "operations per second, both regions together")
	seed := f.Uint64("seed", uint64(time.Now().UnixNano()%1_000_000), "of the workload; the summary names it")
	keep := f.Bool("keep", false, "keep the folder with the databases, configurations and logs")
	asJSON := f.Bool("json", false, "print only the summary, as one JSON object")
	if err := parseFlags(f, args, stdout, false); err != nil {
		return report(stderr, err)
	}
	exe, err := os.Executable()
	if err != nil {
		return report(stderr, fmt.Errorf("find the pgwaltz program: %w", err))
	}
	opt := demo.Options{Duration: *duration, Cut: *cut, Rate: *rate, Seed: *seed, Keep: *keep, Executable: exe,
		Env: withoutConfig(env), Bin: lookup(env, "PGWALTZ_PG_BIN")}
	if err := opt.Validate(); err != nil {
		return report(stderr, &coded{exitUsage, err})
	}
	if !*asJSON {
		opt.Progress = stdout
		if file, ok := stdout.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
			opt.Terminal = true
			if width, _, err := term.GetSize(int(file.Fd())); err == nil {
				opt.Width = width
			}
		}
	}
	summary, err := demo.Run(ctx, opt)
	if err != nil {
		if ctx.Err() != nil {
			return report(stderr, &coded{exitInterrupted, fmt.Errorf("run demo: interrupted, and cleaned up: %w", err)})
		}
		return report(stderr, fmt.Errorf("run demo: %w", err))
	}
	summary.Judge()
	if *asJSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		err = e.Encode(summary)
	} else {
		err = summary.Print(stdout)
	}
	switch {
	case err != nil:
		return report(stderr, fmt.Errorf("print summary: %w", err))
	case summary.Good:
		return exitOK
	case summary.Differ():
		return exitDiffer
	}
	return exitOther
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
