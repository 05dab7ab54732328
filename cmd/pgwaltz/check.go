package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

const checkAbout = `Reads the local database as the role that run uses, tries the way to the peers, and says what
works, what is missing and what is doubtful, each with the statement or setting that mends it.
It changes nothing.

Of the embedded NATS server it tries whether it could start; addresses that are dialled, and an
external server, it connects to and logs in at. Every peer is asked for a sign of life. It takes
some seconds where somebody does not answer. In a fallback mode it looks at the peers' databases
instead, and at what pgwaltz mode switch would have to do.`

// checkReport is what check -json prints.
type checkReport struct {
	Region   string             `json:"region"`
	OK       bool               `json:"ok"` // no errors; warnings may be there
	Findings preflight.Findings `json:"findings"`
}

func newCheck(env []string) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "check --config FILE [--json] [--all] [--show-config]",
		Short: "say what is missing before run, with remedies",
		Long:  checkAbout,
		Args:  noWords,
	}, exitOK, exitOther, exitUsage, exitConfig, exitCheck, exitPostgres, exitInterrupted)
	load := needsConfig(c, env)
	asJSON := c.Flags().Bool("json", false, "print one JSON object")
	all := c.Flags().Bool("all", false, "print every finding, also those of one kind about many tables")
	show := c.Flags().Bool("show-config", false, "print the configuration in effect, secrets masked, and check nothing")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		if *show {
			return showConfig(cfg, c.OutOrStdout())
		}
		cfg, modes := checkMode(c.Context(), cfg)
		link := make(chan preflight.Findings, 1)
		go func() {
			if cfg.Mode == config.ModeStream {
				link <- slices.Concat(checkLink(c.Context(), cfg), checkAutomatic(c.Context(), cfg))
				return
			}
			link <- checkFallback(c.Context(), cfg)
		}()
		found, err := checkRegion(c.Context(), cfg)
		found = slices.Concat(modes, found, <-link)
		if err != nil {
			if !*asJSON {
				found.Print(c.OutOrStdout(), *all)
			}
			return setupError(err)
		}
		return printFindings(c.OutOrStdout(), cfg.Region, found, *asJSON, *all)
	}
	return c
}

func showConfig(cfg *config.Config, w io.Writer) error {
	text, err := cfg.Render()
	if err == nil {
		_, err = w.Write(text)
	}
	return err
}

// printFindings prints what check found. Where errors are among it, it returns exitCheck.
func printFindings(w io.Writer, region string, found preflight.Findings, asJSON, all bool) error {
	errors := found.Count(preflight.Error)
	if asJSON {
		if found == nil {
			found = preflight.Findings{}
		}
		if err := printJSON(w, checkReport{Region: region, OK: errors == 0, Findings: found}); err != nil {
			return err
		}
	} else {
		found.Print(w, all)
		fmt.Fprintf(w, "Region %s: %d errors, %d warnings.\n", region, errors, found.Count(preflight.Warning))
	}
	if errors > 0 {
		return silent(exitCheck)
	}
	return nil
}

func checkRegion(ctx context.Context, cfg *config.Config) (preflight.Findings, error) {
	conn, err := pg.Connect(ctx, cfg.Postgres.DSN.Reveal(), pg.Options{Region: cfg.Region, Role: "check", LockTimeout: cfg.Postgres.LockTimeout})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return preflight.Check(ctx, conn, cfg)
}
