package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
)

// call runs the program in process.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, talk bytes.Buffer
	code = run(t.Context(), args, nil, &out, &talk)
	return code, out.String(), talk.String()
}

func TestUsageMistakes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"nothing":            {nil, "Usage: pgwaltz <command>"},
		"unknown command":    {[]string{"walk"}, `unknown command "walk"`},
		"unknown flag":       {[]string{"status", "-x"}, "flag provided but not defined: -x"},
		"word too many":      {[]string{"status", "now"}, `unexpected argument "now"`},
		"show without id":    {[]string{"conflicts", "show"}, "show needs the id"},
		"bad time":           {[]string{"conflicts", "-since", "yesterday"}, "neither a time nor an age"},
		"bad limit":          {[]string{"conflicts", "-limit", "0"}, "limit must be"},
		"demo too short":     {[]string{"demo", "-duration", "1s"}, "too short"},
		"demo without rate":  {[]string{"demo", "-rate", "0"}, "rate 0"},
		"version with words": {[]string{"version", "please"}, "unexpected argument"},
	} {
		code, stdout, stderr := call(t, c.args...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, c.says) {
			t.Errorf("%s: code %d, stdout %q, stderr %q", name, code, stdout, stderr)
		}
		if name != "nothing" && (!strings.HasPrefix(stderr, "Error: ") || !strings.Contains(stderr, "\nTry: ") || strings.Count(stderr, "Error:") != 1) {
			t.Errorf("%s: stderr %q", name, stderr)
		}
	}
}

func TestHelpNamesEveryCommand(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"help"}, {"-h"}, {"--help"}} {
		code, stdout, stderr := call(t, args...)
		if code != exitOK || stderr != "" {
			t.Errorf("%v: code %d, stderr %q", args, code, stderr)
		}
		for _, c := range commands() {
			if !strings.Contains(stdout, "\n  "+c.name+" ") {
				t.Errorf("%v does not name %s", args, c.name)
			}
		}
	}
}

func TestHelpListsExitCodes(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"status", "conflicts", "demo", "version"} {
		for _, args := range [][]string{{name, "-h"}, {name, "--help"}, {"help", name}} {
			code, stdout, stderr := call(t, args...)
			if code != exitOK || stderr != "" || !strings.Contains(stdout, "Usage: pgwaltz "+name) || !strings.Contains(stdout, "\nExit codes:\n    0  ok\n") {
				t.Errorf("%v: code %d, stdout %q, stderr %q", args, code, stdout, stderr)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	for _, arg := range []string{"version", "-version", "--version"} {
		if code, stdout, _ := call(t, arg); code != exitOK || !strings.HasPrefix(stdout, "pgwaltz ") {
			t.Errorf("%s: code %d, stdout %q", arg, code, stdout)
		}
	}
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"status", "conflicts"} {
		if code, _, stderr := call(t, name, "-config", "/nowhere/pgwaltz.yaml"); code != exitConfig || !strings.HasPrefix(stderr, "Error: ") {
			t.Errorf("%s: code %d, stderr %q", name, code, stderr)
		}
	}
}

func TestExitCodeComesFromTheChain(t *testing.T) {
	t.Parallel()
	for want, err := range map[int]error{
		exitOK:          nil,
		exitOther:       errors.New("x"),
		exitUsage:       fmt.Errorf("y: %w", &usageError{"x", "z"}),
		exitDiffer:      fmt.Errorf("y: %w", &coded{exitDiffer, errors.New("x")}),
		exitInterrupted: fmt.Errorf("y: %w", context.Canceled),
	} {
		if got := exitCode(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
	if exitCode(flag.ErrHelp) != exitOK {
		t.Error("asking for help is an error")
	}
}

func TestReportPrintsOnceWithHint(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	code := report(&out, fmt.Errorf("do it: %w", &usageError{"it cannot be done", "something else"}))
	if code != exitUsage || out.String() != "Error: do it: it cannot be done\nTry: something else\n" {
		t.Errorf("code %d, %q", code, out.String())
	}
}
