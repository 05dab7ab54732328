package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/internal/cutover"
)

const cutoverRehearseAbout = `Writes as the application, in a table of its own, while a cutover is tried: prepare makes the table at both ends,
run writes to it, remove drops it.`

const cutoverRehearseRunAbout = `Writes rows until --for is over or until Ctrl-C, one after the other, as a role of the application: to the source, and
from finish on to the destination, as the application would. Sessions that end are opened again. Then it looks whether
each row that was acknowledged is there once, and says how long nothing could be written.

The role's password is PGWALTZ_REHEARSAL_PASSWORD. The exit code is 4 where a row is missing, or there twice, or there
though it was refused, where a number was given out twice, where nothing could be written at all, and where the longest
outage was longer than --max-outage.`

func (k *cutting) rehearse() *cobra.Command {
	c := exits(&cobra.Command{Use: "rehearse", Short: "write as the application while a cutover is tried", Long: cutoverRehearseAbout, Args: onlyCommands, RunE: helpOnly}, exitOK, exitUsage)
	c.AddCommand(k.rehearsePrepare(), k.rehearseRun(), k.rehearseRemove())
	return c
}

// asRole is a command's flag for the role that writes.
func asRole(c *cobra.Command, role *string) {
	c.Flags().StringVar(role, "role", "", "the application's role, as which it writes")
	takes(c.Flags(), "role", "ROLE")
}

func (k *cutting) rehearsePrepare() *cobra.Command {
	var role string
	c := k.command("prepare --config FILE --role ROLE", "make the table of a rehearsal at both ends", "", cutover.Beside, func(ctx context.Context, e *cutover.Ends, _, stderr io.Writer) error {
		if role == "" {
			return &usageError{"--role is missing", "the role as which the application writes"}
		}
		if err := e.PrepareRehearsal(ctx, role); err != nil {
			return setupError(err)
		}
		fmt.Fprintf(stderr, "Table %s is at %s and %s. Next: pgwaltz setup in both regions, so that it is published.\n", cutover.RehearsalTable, e.Source.Region, e.Destination.Region)
		return nil
	})
	asRole(c, &role)
	return c
}

func (k *cutting) rehearseRemove() *cobra.Command {
	return k.command("remove --config FILE", "drop the table of a rehearsal at both ends", "", cutover.Beside, func(ctx context.Context, e *cutover.Ends, _, stderr io.Writer) error {
		if err := e.RemoveRehearsal(ctx); err != nil {
			return setupError(err)
		}
		fmt.Fprintf(stderr, "Table %s is gone at %s and %s.\n", cutover.RehearsalTable, e.Source.Region, e.Destination.Region)
		return nil
	})
}

func (k *cutting) rehearseRun() *cobra.Command {
	o := cutover.Rehearsal{}
	var rate float64
	var most time.Duration
	var asJSON bool
	c := k.lasting("run --config FILE --role ROLE", "write, and look whether all of it is there", cutoverRehearseRunAbout, cutover.Beside, func(ctx context.Context, e *cutover.Ends, stdout, stderr io.Writer) error {
		switch {
		case o.Role == "":
			return &usageError{"--role is missing", "the role as which the application writes"}
		case rate <= 0 || rate > 1000:
			return &usageError{"--rate has to be above 0, and 1000 at most", ""}
		}
		o.Every = time.Duration(float64(time.Second) / rate)
		o.Arrival = k.timeout
		o.Password = os.Getenv("PGWALTZ_REHEARSAL_PASSWORD")
		r, err := e.Rehearse(ctx, o)
		if err != nil {
			return setupError(err)
		}
		if asJSON {
			err = printJSON(stdout, r)
		} else {
			err = printRehearsed(stdout, r)
		}
		switch {
		case err != nil:
			return err
		case r.Lost():
			fmt.Fprintln(stderr, "The rehearsal found errors.")
			return silent(exitCheck)
		case r.Acknowledged == 0:
			fmt.Fprintln(stderr, "Nothing could be written.")
			return silent(exitCheck)
		case most > 0 && r.Longest > most.Seconds():
			fmt.Fprintf(stderr, "The longest outage was longer than %s.\n", most)
			return silent(exitCheck)
		}
		return nil
	})
	asRole(c, &o.Role)
	c.Flags().Float64Var(&rate, "rate", 20, "writes in a second")
	takes(c.Flags(), "rate", "N")
	c.Flags().DurationVar(&o.For, "for", 0, "how long to write; without it until Ctrl-C")
	c.Flags().DurationVar(&most, "max-outage", 0, "the longest outage that is well; 0 means any")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printRehearsed(w io.Writer, r *cutover.Rehearsed) error {
	var codes []string
	for _, code := range slices.Sorted(maps.Keys(r.Errors)) {
		codes = append(codes, fmt.Sprintf("%s %d times", code, r.Errors[code]))
	}
	if len(codes) == 0 {
		codes = []string{"none"}
	}
	for _, line := range []struct{ what, is string }{
		{"written", fmt.Sprintf("%d rows in %.1f s, at %s", r.Acknowledged, r.Seconds, strings.Join(r.Moves, ", then "))},
		{"errors", strings.Join(codes, ", ")},
		{"outages", fmt.Sprintf("%d, the longest %.1f s; the longest time between two writes was %.1f s", r.Outages, r.Longest, r.LongestGap)},
		{"missing", numbers(r.Missing)},
		{"there twice", numbers(r.Twice)},
		{"refused, and there", numbers(r.Ghosts)},
		{"updates", fmt.Sprintf("%d of %d", r.Beats, r.Rows)},
		{"numbers given twice", fmt.Sprint(r.GivenTwice)},
		{"not in the other region", fmt.Sprint(r.MissingAway)},
	} {
		if err := row(w, "%-24s%s\n", line.what, line.is); err != nil {
			return err
		}
	}
	return nil
}

// numbers names a few.
func numbers(list []int64) string {
	if len(list) == 0 {
		return "none"
	}
	text := strings.Trim(fmt.Sprint(list[:min(5, len(list))]), "[]")
	if len(list) > 5 {
		return fmt.Sprintf("%d: %s, ...", len(list), text)
	}
	return fmt.Sprintf("%d: %s", len(list), text)
}
