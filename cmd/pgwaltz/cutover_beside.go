package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/internal/cutover"
)

const cutoverRolesAbout = `Prints the statements that make the source's roles at the destination: attributes, passwords as the server keeps
them, settings, memberships. --run runs them there in one transaction.`

const cutoverExtensionsAbout = `Prints the statements that make the source's extensions at the destination, and names those that the server there does
not have. --run runs them in one transaction.`

const cutoverExecAbout = `Runs a command with the connections of both databases in its environment, when both are the ones that --source and
--destination say: PGWALTZ_SOURCE_HOST, _HOSTADDR, _PORT, _DATABASE, _USER, _PASSWORD, _SSLMODE, _SSLROOTCERT, _SSLCERT
and _SSLKEY, and the same with PGWALTZ_DESTINATION. Of several hosts it is the one that has answered.
The exit code is that of the command.`

// script prints statements, or runs them; secret ones hold what the server keeps of passwords.
func script(ctx context.Context, e *cutover.Ends, statements []string, secret, run bool, stdout, stderr io.Writer) error {
	if !run {
		for _, s := range statements {
			fmt.Fprintf(stdout, "%s;\n", s)
		}
		return nil
	}
	if err := e.RunAll(ctx, statements, secret); err != nil {
		return setupError(err)
	}
	fmt.Fprintf(stderr, "%d statements were run at %s.\n", len(statements), e.Destination.Region)
	return nil
}

func (k *cutting) roles() *cobra.Command {
	var o cutover.Roles
	var run, none bool
	c := k.command("roles --config FILE", "print the roles of the source for the destination", cutoverRolesAbout, cutover.Beside, func(ctx context.Context, e *cutover.Ends, stdout, stderr io.Writer) error {
		ctx, cancel := context.WithTimeout(ctx, k.timeout)
		defer cancel()
		o.Passwords = !none
		statements, secret, err := e.Roles(ctx, o)
		if err != nil {
			return setupError(err)
		}
		if !secret && !none {
			fmt.Fprintf(stderr, "Passwords are left out: this role may not read them at %s.\n", e.Source.Region)
		}
		return script(ctx, e, statements, secret, run, stdout, stderr)
	})
	c.Flags().BoolVar(&o.All, "all", false, "roles too that the destination has: they are altered")
	c.Flags().BoolVar(&none, "no-passwords", false, "leave passwords out")
	c.Flags().BoolVar(&o.RDS, "rds", false, "leave out what the administrator of a managed server may not set")
	c.Flags().BoolVar(&run, "run", false, "run the statements at the destination")
	return c
}

func (k *cutting) extensions() *cobra.Command {
	var run bool
	c := k.command("extensions --config FILE", "print the extensions of the source for the destination", cutoverExtensionsAbout, cutover.Beside, func(ctx context.Context, e *cutover.Ends, stdout, stderr io.Writer) error {
		ctx, cancel := context.WithTimeout(ctx, k.timeout)
		defer cancel()
		statements, fs, err := e.Extensions(ctx)
		if err != nil {
			return setupError(err)
		}
		fs.Print(stderr, false)
		if err := fs.Err("make extensions"); err != nil && run {
			return silent(exitCheck)
		}
		return script(ctx, e, statements, false, run, stdout, stderr)
	})
	c.Flags().BoolVar(&run, "run", false, "run the statements at the destination")
	return c
}

const cutoverAnalyzeAbout = `Gathers the statistics of the destination's tables, in three stages as vacuumdb --analyze-in-stages does: a new server plans
without them. The role analyzes the tables that it owns. --timeout bounds each stage.`

func (k *cutting) analyze() *cobra.Command {
	return k.lasting("analyze --config FILE", "gather the statistics of the destination's tables", cutoverAnalyzeAbout, cutover.Beside, func(ctx context.Context, e *cutover.Ends, _, stderr io.Writer) error {
		err := e.Analyze(ctx, k.timeout, func(stage string) { fmt.Fprintf(stderr, "Tables of %s: %s.\n", e.Destination.Region, stage) })
		if err != nil {
			return setupError(err)
		}
		return nil
	})
}

func (k *cutting) exec() *cobra.Command {
	var source, destination string
	c := exits(&cobra.Command{
		Use:   "exec --config FILE --source ID --destination ID -- COMMAND ARGUMENTS",
		Short: "run a command with the connections of both databases",
		Long:  cutoverExecAbout,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 || c.ArgsLenAtDash() != 0 {
				return &usageError{"exec needs a command behind --", c.CommandPath() + " --help"}
			}
			return nil
		},
	}, exitOK, exitOther, exitUsage, exitConfig, exitCheck, exitPostgres, exitPeer, exitInterrupted)
	c.Flags().StringVar(&source, "source", "", "system identifier and database of the source, as plan says them")
	takes(c.Flags(), "source", "ID")
	c.Flags().StringVar(&destination, "destination", "", "the same of the destination")
	takes(c.Flags(), "destination", "ID")
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := k.load()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(c.Context(), k.timeout)
		e, err := cutover.Open(ctx, cfg, k.way, cutover.Beside)
		cancel()
		if err != nil {
			return err
		}
		ends := append(connection("PGWALTZ_SOURCE_", e.Source.Conn), connection("PGWALTZ_DESTINATION_", e.Destination.Conn)...)
		err = errors.Join(e.Source.Is(source), e.Destination.Is(destination))
		e.Close(c.Context())
		if err != nil {
			return err
		}
		cmd := exec.CommandContext(c.Context(), args[0], args[1:]...)
		cmd.Env = append(os.Environ(), ends...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr()
		var ended *exec.ExitError
		if err := cmd.Run(); errors.As(err, &ended) && ended.ExitCode() > 0 {
			return silent(ended.ExitCode())
		} else if err != nil {
			return fmt.Errorf("run %s: %w", args[0], err)
		}
		return nil
	}
	return c
}
