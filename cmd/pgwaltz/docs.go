package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// newDocs makes the hidden command that writes docs/cli.md: `make docs`.
func newDocs() *cobra.Command {
	c := exits(&cobra.Command{
		Use:    "docs [-o FILE]",
		Short:  "write the reference of the command line as Markdown",
		Args:   noWords,
		Hidden: true,
	}, exitOK, exitOther, exitUsage)
	file := c.Flags().StringP("output", "o", "", "write to this file (default: standard output)")
	takes(c.Flags(), "output", "FILE")
	c.RunE = func(c *cobra.Command, _ []string) error {
		text := reference(c.Root())
		if *file == "" {
			_, err := c.OutOrStdout().Write(text)
			return err
		}
		return os.WriteFile(*file, text, 0o644)
	}
	return c
}

// reference is docs/cli.md: every command with its help as it is printed.
func reference(root *cobra.Command) []byte {
	var b bytes.Buffer
	b.WriteString(`# Command line

<!-- Written by "make docs" from the commands themselves. Do not edit. -->

Flags may be written with one dash or with two: ` + "`-config`" + ` is ` + "`--config`" + `. Data goes to standard output, talk and errors
go to standard error. An error is printed once, with a line that says what to try. ` + "`pgwaltz completion SHELL`" + ` prints the
completion script of a shell.

| exit code | meaning |
| --- | --- |
`)
	for _, code := range exitCodes(root) {
		fmt.Fprintf(&b, "| %d | %s |\n", code, exitMeaning[code])
	}
	b.WriteString("\nAny other code is a failure too.\n\n| command | what it does |\n| --- | --- |\n")
	each(root, func(c *cobra.Command) {
		if c != root && c.IsAvailableCommand() {
			fmt.Fprintf(&b, "| [%s](#%s) | %s |\n", c.CommandPath(), strings.ReplaceAll(c.CommandPath(), " ", "-"), c.Short)
		}
	})
	each(root, func(c *cobra.Command) {
		if c != root && c.IsAvailableCommand() {
			fmt.Fprintf(&b, "\n## %s\n\n```\n%s```\n", c.CommandPath(), helpText(c))
		}
	})
	return b.Bytes()
}

// helpText is what --help prints.
func helpText(c *cobra.Command) string {
	var b bytes.Buffer
	c.SetOut(&b)
	defer c.SetOut(nil) // that of its parent again
	if err := c.Help(); err != nil {
		io.WriteString(&b, err.Error())
	}
	return b.String()
}
