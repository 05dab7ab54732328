package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// twoDashes writes -config as --config, so that flags may have one dash or two. The word
// behind a flag that takes a value is left as it is, and so is everything behind "--".
func twoDashes(root *cobra.Command, args []string) []string {
	takesValue := map[string]bool{}
	each(root, func(c *cobra.Command) {
		visit := func(f *pflag.Flag) { takesValue[f.Name] = f.NoOptDefVal == "" }
		c.Flags().VisitAll(visit)
		c.PersistentFlags().VisitAll(visit)
	})
	out := make([]string, 0, len(args))
	// The last word of a request for completion is what stands there so far.
	completing := len(args) > 0 && (args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd)
	for i := 0; i < len(args); i++ {
		word := args[i]
		name := strings.TrimLeft(word, "-")
		switch {
		case word == "--", completing && i == len(args)-1:
			return append(out, args[i:]...)
		case name == word || len(name) < 2 || !letter(name[0]):
			out = append(out, word)
			continue
		case !strings.HasPrefix(word, "--"):
			word = "-" + word
		}
		out = append(out, word)
		if name, _, value := strings.Cut(name, "="); !value && takesValue[name] && i+1 < len(args) && !(completing && i+1 == len(args)-1) {
			i++
			out = append(out, args[i])
		}
	}
	return out
}

func letter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

// flagMistake turns a flag that is unknown or has a wrong value into a usageError.
func flagMistake(c *cobra.Command, err error) error {
	// Behind a mistyped command, its flags are unknown too.
	if words := c.Flags().Args(); c.HasAvailableSubCommands() && len(words) > 0 {
		return onlyCommands(c, words)
	}
	hint := c.CommandPath() + " --help"
	if rest, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok {
		name, _, _ := strings.Cut(rest, "=")
		if near := nearestFlag(c, name); near != "" {
			hint = c.CommandPath() + " --" + near
		}
	}
	return &usageError{err.Error(), hint}
}

func nearestFlag(c *cobra.Command, name string) string {
	// A flag is suggested as a command is: cobra measures the distance of names.
	names := &cobra.Command{Use: "flags", SuggestionsMinimumDistance: 2}
	visit := func(f *pflag.Flag) {
		if !f.Hidden {
			names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
		}
	}
	c.NonInheritedFlags().VisitAll(visit)
	c.InheritedFlags().VisitAll(visit)
	if near := names.SuggestionsFor(name); len(near) > 0 {
		return near[0]
	}
	return ""
}

// takes says in the help of a flag what its value is.
func takes(f *pflag.FlagSet, flag, value string) {
	at := f.Lookup(flag)
	at.Value = named{at.Value, value}
}

type named struct {
	pflag.Value
	name string
}

func (n named) Type() string { return n.name }

// noWords refuses words behind the flags.
func noWords(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{fmt.Sprintf("unexpected argument %q", args[0]), c.CommandPath() + " --help"}
	}
	return nil
}

// onlyCommands refuses words that are no command below c, and suggests the one that may be meant.
func onlyCommands(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	what := fmt.Sprintf("unexpected argument %q", args[0])
	if c.HasAvailableSubCommands() {
		what = fmt.Sprintf("unknown command %q", args[0])
		if c.HasParent() {
			what += " of " + c.CommandPath()
		}
	}
	return &usageError{what, suggest(c, args[0])}
}

// suggest is the hint for a mistyped command.
func suggest(c *cobra.Command, typed string) string {
	if c.SuggestionsMinimumDistance <= 0 {
		c.SuggestionsMinimumDistance = 2
	}
	if near := c.SuggestionsFor(typed); len(near) > 0 {
		return c.CommandPath() + " " + near[0]
	}
	return c.CommandPath() + " --help"
}
