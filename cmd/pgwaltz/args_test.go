package main

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestOneDashOrTwo(t *testing.T) {
	t.Parallel()
	root := newRoot(nil, io.Discard, io.Discard)
	for given, want := range map[string]string{
		"run -config f":                    "run --config f",
		"run --config f":                   "run --config f",
		"-version":                         "--version",
		"status -config=f -json":           "status --config=f --json",
		"status -json -config f":           "status --json --config f",
		"conflicts -key -config -json":     "conflicts --key -config --json", // a value may look like a flag
		"conflicts --key -json -json":      "conflicts --key -json --json",
		"conflicts -limit -5":              "conflicts --limit -5",
		"conflicts show -config f -h":      "conflicts show --config f -h",
		"resync -config f -- -table":       "resync --config f -- -table",
		"status -":                         "status -",
		"status -unknown -json":            "status --unknown --json",
		"__complete status -config f -js":  "__complete status --config f -js",
		"__complete conflicts -verdict -a": "__complete conflicts --verdict -a",
	} {
		if got := twoDashes(root, strings.Fields(given)); strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", given, got, want)
		}
	}
	if got := twoDashes(root, []string{"status", "-config", ""}); !slices.Equal(got, []string{"status", "--config", ""}) {
		t.Errorf("%q", got)
	}
}

// twoDashes looks at names only, so a name takes a value everywhere or nowhere.
func TestAFlagTakesAValueEverywhereOrNowhere(t *testing.T) {
	t.Parallel()
	takes := map[string]bool{}
	each(newRoot(nil, io.Discard, io.Discard), func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if before, seen := takes[f.Name]; seen && before != (f.NoOptDefVal == "") {
				t.Errorf("--%s of %s differs from that of another command", f.Name, c.CommandPath())
			}
			takes[f.Name] = f.NoOptDefVal == ""
			if len(f.Shorthand) > 0 && !slices.Contains([]string{"h", "v", "o"}, f.Shorthand) {
				t.Errorf("-%s of %s: one letter flags are for help, version and output", f.Shorthand, c.CommandPath())
			}
		})
	})
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	for request, want := range map[string]string{
		"__complete sta":                      "status\tshow both directions of a running sidecar",
		"__complete conflicts -verdict ap":    "apply",
		"__complete conflicts -config f sh":   "show\tshow one conflict with both rows side by side",
		"__complete conflicts --unt":          "--until\tonly what was detected before this time",
		"__complete help conf":                "conflicts",
		"__complete help conflicts sh":        "show",
		"__completeNoDesc completion b":       "bash",
		"__complete status --config some.yam": "yaml",
	} {
		code, stdout, _ := call(t, strings.Fields(request)...)
		if first, _, _ := strings.Cut(stdout, "\n"); code != exitOK || first != want {
			t.Errorf("%s: code %d, %q", request, code, stdout)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if code, stdout, stderr := call(t, "completion", shell); code != exitOK || !strings.Contains(stdout, "pgwaltz") || stderr != "" {
			t.Errorf("%s: code %d, %q", shell, code, stderr)
		}
	}
}
