package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/pgwaltz/pgwaltz/internal/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

const checkAbout = `Reads the local database as the role that run uses, and says what is missing or doubtful,
each with the statement or setting that mends it. It changes nothing.`

// checkReport is what check -json prints.
type checkReport struct {
	Region   string             `json:"region"`
	OK       bool               `json:"ok"` // no errors; warnings may be there
	Findings preflight.Findings `json:"findings"`
}

func runCheck(ctx context.Context, args, env []string, stdout, stderr io.Writer) int {
	f := newFlags("check", "check -config FILE [-json] [-show-config]", checkAbout, exitOK, exitOther, exitUsage, exitConfig, exitCheck, exitPostgres, exitInterrupted)
	file := f.String("config", "", "configuration `file`")
	asJSON := f.Bool("json", false, "print one JSON object")
	show := f.Bool("show-config", false, "print the configuration in effect, secrets masked, and check nothing")
	if err := parseFlags(f, args, stdout, false); err != nil {
		return report(stderr, err)
	}
	cfg, err := config.Load(*file, env)
	if err != nil {
		return report(stderr, err)
	}
	if *show {
		text, err := cfg.Render()
		if err == nil {
			_, err = stdout.Write(text)
		}
		return report(stderr, err)
	}
	found, err := checkRegion(ctx, cfg)
	if err != nil {
		return report(stderr, setupError(err))
	}
	errors := len(found.Errors())
	if *asJSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		if found == nil {
			found = preflight.Findings{}
		}
		if err := e.Encode(checkReport{Region: cfg.Region, OK: errors == 0, Findings: found}); err != nil {
			return report(stderr, err)
		}
	} else {
		found.Print(stdout)
		fmt.Fprintf(stdout, "Region %s: %d errors, %d warnings.\n", cfg.Region, errors, len(found)-errors)
	}
	if errors > 0 {
		return exitCheck
	}
	return exitOK
}

func checkRegion(ctx context.Context, cfg *config.Config) (preflight.Findings, error) {
	conn, err := pg.Connect(ctx, cfg.Postgres.DSN.Reveal(), pg.Options{Region: cfg.Region, Role: "check", LockTimeout: cfg.Postgres.LockTimeout})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return preflight.Check(ctx, conn, cfg)
}
