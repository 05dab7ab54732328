package main

import (
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// The groups of the command list, in their order.
const (
	groupRun  = "run"
	groupLook = "look"
	groupMend = "mend"
	groupTry  = "try"
)

// newCommands makes every command. A new one is a file with a newX function, and a line here.
// env is the environment in the form of os.Environ.
func newCommands(env []string) []*cobra.Command {
	return []*cobra.Command{
		in(groupRun, newSetup(env)),
		in(groupRun, newCheck(env)),
		in(groupRun, newRun(env)),
		in(groupRun, newMode(env)),
		in(groupRun, newCutover(env)),
		in(groupLook, newStatus(env)),
		in(groupLook, newConflicts(env)),
		in(groupLook, newKeys(env)),
		in(groupMend, newParked(env)),
		in(groupMend, newResync(env)),
		in(groupMend, newUninstall(env)),
		in(groupTry, newDemo(env)),
		in(groupRun, newPgsync()),
		in(groupRun, newMigrateConfig()),
		newVersion(),
		newDocs(),
	}
}

func in(group string, c *cobra.Command) *cobra.Command {
	c.GroupID = group
	return c
}

// newRoot makes the command line of the program.
func newRoot(env []string, stdout, stderr io.Writer) *cobra.Command {
	root := exits(&cobra.Command{
		Use:           "pgwaltz",
		Short:         "Keeps PostgreSQL regions that all accept writes in step.",
		Long:          "pgwaltz keeps PostgreSQL regions that all accept writes in step.",
		Example:       "  pgwaltz demo\n  pgwaltz help status",
		Version:       versionText(),
		SilenceErrors: true, // report prints them
		SilenceUsage:  true,
		Args:          onlyCommands,
		RunE: func(c *cobra.Command, _ []string) error {
			c.SetOut(c.ErrOrStderr())
			if err := c.Help(); err != nil {
				return err
			}
			return silent(exitUsage)
		},
	}, exitOK, exitOther, exitUsage, exitConfig, exitCheck, exitPostgres, exitPeer, exitDiffer, exitInterrupted)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Set up and run:"},
		&cobra.Group{ID: groupLook, Title: "Look:"},
		&cobra.Group{ID: groupMend, Title: "Mend:"},
		&cobra.Group{ID: groupTry, Title: "Try:"},
	)
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.SetVersionTemplate(versionLine())
	root.SetFlagErrorFunc(flagMistake)
	root.SetHelpTemplate(helpTemplate)
	root.AddCommand(newCommands(env)...)
	root.SetHelpCommand(newHelp())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd("completion")
	root.InitDefaultVersionFlag()
	each(root, func(c *cobra.Command) {
		c.InitDefaultHelpFlag()
		c.DisableFlagsInUseLine = true
		c.Flags().SortFlags = false
		if under := c.Parent(); under != nil && under.Name() == "completion" {
			c.Short, c.Args = "print the completion script of "+c.Name(), noWords
			exits(c, exitOK, exitUsage)
		}
		if c.Name() == "completion" && c.Parent() == root {
			c.Short, c.Args, c.RunE = "print the completion script of a shell", onlyCommands, helpOnly
			exits(c, exitOK, exitUsage)
		}
	})
	return root
}

// each calls f for c and every command below it.
func each(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, sub := range c.Commands() {
		each(sub, f)
	}
}

// helpOnly is what a command does that is only a name for the commands below it.
func helpOnly(c *cobra.Command, _ []string) error {
	return &usageError{"which one? " + strings.Join(subcommands(c), ", "), c.CommandPath() + " --help"}
}

func subcommands(c *cobra.Command) (names []string) {
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return names
}
