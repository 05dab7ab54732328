package main

import (
	"context"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/internal/cutover"
)

const cutoverSchemaAbout = `Makes the source's schema in the destination's database, before setup there: all of it in one transaction, or
nothing. It needs pg_dump and pg_restore, of the source's version or a newer one. What pgwaltz has made is left out, and so
are publications and subscriptions. Roles come first: pgwaltz cutover roles.

Where the destination has the same schema already nothing is made, and where it has something else it is refused.`

func (k *cutting) schema() *cobra.Command {
	c := exits(&cobra.Command{Use: "schema", Short: "the schema of the source, for the destination", Args: onlyCommands, RunE: helpOnly}, exitOK, exitUsage)
	c.AddCommand(k.schemaCopy())
	return c
}

func (k *cutting) schemaCopy() *cobra.Command {
	o := cutover.Schema{Env: func(c *pgx.Conn) []string {
		return append(connection("PG", c), "PGAPPNAME=pgwaltz_schema_copy", "PGCONNECT_TIMEOUT=10")
	}}
	c := k.command("copy --config FILE", "make the source's schema at the destination", cutoverSchemaAbout, cutover.Beside, func(ctx context.Context, e *cutover.Ends, stdout, stderr io.Writer) error {
		ctx, cancel := context.WithTimeoutCause(ctx, k.timeout, fmt.Errorf("not within %s", k.timeout))
		defer cancel()
		out, err := e.CopySchema(ctx, o)
		if len(out.Findings) > 0 {
			out.Findings.Print(stderr, false)
			if out.Findings.Err("copy the schema") != nil {
				return silent(exitCheck)
			}
		}
		if err != nil {
			return setupError(err)
		}
		switch {
		case o.Dry:
			if _, err := io.WriteString(stdout, out.Text); err != nil {
				return err
			}
			fmt.Fprintf(stderr, "%d objects, as %s writes them; nothing was changed.\n", out.Objects, out.Program)
		case out.Same:
			fmt.Fprintf(stderr, "%s has the schema of %s already: nothing was changed.\n", e.Destination.Region, e.Source.Region)
		default:
			fmt.Fprintf(stderr, "%d objects of %s were made at %s. Next: pgwaltz setup there.\n", out.Objects, e.Source.Region, e.Destination.Region)
		}
		return nil
	})
	c.Flags().BoolVar(&o.Dry, "dry-run", false, "print the statements, and make nothing")
	c.Flags().BoolVar(&o.NoOwner, "no-owner", false, "let the role of this command own everything there")
	c.Flags().BoolVar(&o.NoPrivileges, "no-privileges", false, "leave grants out")
	c.Flags().StringVar(&o.Bin, "bin", "", "the folder of pg_dump and pg_restore; without it they are looked for")
	takes(c.Flags(), "bin", "FOLDER")
	return c
}
