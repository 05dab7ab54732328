package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// The help of every command. Exit codes stand at its end.
const helpTemplate = `{{with or .Long .Short}}{{. | trimTrailingWhitespaces}}

{{end}}Usage:{{if not .HasParent}}
  pgwaltz COMMAND [flags]{{else}}
  {{.UseLine}}{{range .Commands}}{{if and .IsAvailableCommand $.HasParent}}
  {{.UseLine}}{{end}}{{end}}{{end}}
{{$all := .Commands}}{{range $group := .Groups}}
{{.Title}}
{{range $all}}{{if and (eq .GroupID $group.ID) .IsAvailableCommand}}  {{rpad .Name .NamePadding}} {{.Short}}
{{end}}{{end}}{{end}}{{if and .HasAvailableSubCommands (not .AllChildCommandsHaveGroup)}}
{{if .Groups}}More:{{else}}Commands:{{end}}
{{range $all}}{{if and (eq .GroupID "") .IsAvailableCommand}}  {{rpad .Name .NamePadding}} {{.Short}}
{{end}}{{end}}{{end}}{{if .HasExample}}
Examples:
{{.Example}}
{{end}}{{if .HasAvailableLocalFlags}}
Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}{{if .HasAvailableInheritedFlags}}
Flags of {{.Parent.CommandPath}}:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}{{with index .Annotations "exits"}}
Exit codes:
{{.}}{{end}}`

// exits notes the exit codes that a command ends with, for its help.
func exits(c *cobra.Command, codes ...int) *cobra.Command {
	if c.Annotations == nil {
		c.Annotations = map[string]string{}
	}
	var b strings.Builder
	for _, code := range codes {
		fmt.Fprintf(&b, "  %3d  %s\n", code, exitMeaning[code])
	}
	c.Annotations["exits"] = b.String()
	return c
}

// exitCodes reads back what exits noted.
func exitCodes(c *cobra.Command) (codes []int) {
	for line := range strings.Lines(c.Annotations["exits"]) {
		if code, err := strconv.Atoi(strings.Fields(line)[0]); err == nil {
			codes = append(codes, code)
		}
	}
	return codes
}

// newHelp makes "pgwaltz help COMMAND". Cobra's own forgives a mistyped command.
func newHelp() *cobra.Command {
	return exits(&cobra.Command{
		Use:   "help [COMMAND]",
		Short: "show the help of a command",
		ValidArgsFunction: func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			at, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return slices.DeleteFunc(subcommands(at), func(name string) bool { return !strings.HasPrefix(name, begun) }), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			at, rest, err := c.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return onlyCommands(at, rest)
			}
			return at.Help()
		},
	}, exitOK, exitUsage)
}
