package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/cutover"
	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/internal/node"
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
		"nothing":            {nil, "Usage:\n  pgwaltz COMMAND"},
		"unknown command":    {[]string{"walk"}, `unknown command "walk"`},
		"unknown flag":       {[]string{"status", "-x"}, "unknown shorthand flag: 'x'"},
		"unknown long flag":  {[]string{"status", "-confg", "x"}, "Try: pgwaltz status --config"},
		"mistyped command":   {[]string{"stats"}, "Try: pgwaltz status\n"},
		"mistyped, flags":    {[]string{"stauts", "-config", "x"}, "Try: pgwaltz status\n"},
		"mistyped, below":    {[]string{"conflicts", "shwo", "-x"}, "Try: pgwaltz conflicts show\n"},
		"unknown root flag":  {[]string{"-verison"}, "Try: pgwaltz --version\n"},
		"mistyped below":     {[]string{"conflicts", "shwo", "7"}, "Try: pgwaltz conflicts show\n"},
		"mistyped help":      {[]string{"help", "resink"}, "Try: pgwaltz resync\n"},
		"help of a word":     {[]string{"help", "status", "now"}, `unexpected argument "now"`},
		"no value":           {[]string{"status", "-config"}, "flag needs an argument: --config"},
		"bad value":          {[]string{"conflicts", "-limit", "many"}, "invalid argument"},
		"which shell":        {[]string{"completion"}, "which one? bash, "},
		"word too many":      {[]string{"status", "now"}, `unexpected argument "now"`},
		"show without id":    {[]string{"conflicts", "show"}, "show needs the id"},
		"bad time":           {[]string{"conflicts", "-since", "yesterday"}, "neither a time nor an age"},
		"unknown type":       {[]string{"conflicts", "--type", "update_orign_differs"}, "is none of insert_exists, update_origin_differs"},
		"unknown verdict":    {[]string{"conflicts", "--verdict", "applied"}, "is none of apply, keep, park"},
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
		for _, c := range newCommands(nil) {
			if !c.Hidden && !strings.Contains(stdout, "\n  "+c.Name()+" ") {
				t.Errorf("%v does not name %s", args, c.Name())
			}
		}
	}
}

// Every command has help that is printed on request, and says how it ends.
func TestHelpOfEveryCommand(t *testing.T) {
	t.Parallel()
	each(newRoot(nil, io.Discard, io.Discard), func(c *cobra.Command) {
		words := strings.Fields(c.CommandPath())[1:]
		for _, args := range [][]string{append(slices.Clone(words), "-h"), append(slices.Clone(words), "--help"), append(slices.Clone(words), "-help"), append([]string{"help"}, words...)} {
			code, stdout, stderr := call(t, args...)
			if code != exitOK || stderr != "" || !strings.Contains(stdout, "Usage:\n  pgwaltz") || !strings.Contains(stdout, "\nExit codes:\n    0  ok\n") {
				t.Errorf("%v: code %d, stdout %q, stderr %q", args, code, stdout, stderr)
			}
		}
		if c.Short == "" || c.Args == nil && c.Name() != "resync" && c.Name() != "help" {
			t.Errorf("%s: no short description, or any words are taken", c.CommandPath())
		}
	})
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
}

// What a step of a cutover lacks is a problem found, whichever server it is at; a destination that cannot be asked says why itself.
func TestExitCodesOfACutover(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want int
		err  error
	}{
		{exitCheck, &cutover.NotReadyError{What: "x"}},
		{exitCheck, &cutover.NotPausedError{}},
		{exitCheck, &hold.LeakError{What: "x"}},
		{exitCheck, &hold.NotAllError{What: "x"}},
		{exitCheck, &cutover.AwayError{Region: "us", Why: &node.WrongError{What: "x"}}},
		{exitPostgres, &cutover.AwayError{Region: "us", Why: &pg.ConnectError{Err: errors.New("x")}}},
		{exitPostgres, errors.New("x")},
	} {
		if got := exitCode(setupError(fmt.Errorf("y: %w", c.err))); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

func TestReportOfASilentError(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if code := report(&out, silent(exitCheck)); code != exitCheck || out.Len() > 0 {
		t.Errorf("code %d, %q", code, out.String())
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
