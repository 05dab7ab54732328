package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/fallback/pglogical"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/internal/supervisor"
)

// checkMode returns the configuration with the mode that is in effect, and what is to be said of it. Where the database does not
// answer, which the other checks say, it is the configuration's own.
func checkMode(ctx context.Context, cfg *config.Config) (*config.Config, preflight.Findings) {
	mode, err := supervisor.Mode(ctx, cfg)
	var half *fallback.HalfDoneError
	if errors.As(err, &half) {
		then := *cfg
		then.Mode = half.Mode
		return &then, preflight.Findings{{Severity: preflight.Error, Code: "mode_cut_off", What: half.Error() + ": no sidecar starts here", Remedy: half.Hint()}}
	}
	if err != nil || mode == cfg.Mode {
		return cfg, nil
	}
	then := *cfg
	then.Mode = mode
	return &then, preflight.Findings{{Severity: preflight.Warning, Code: "mode_differs",
		What:   fmt.Sprintf("the region was switched to mode %s, which counts, and the configuration says %s", mode, cfg.Mode),
		Remedy: fmt.Sprintf("mode: %s", mode)}}
}

// checkAutomatic says what stands in the way of the fallback that is configured.
func checkAutomatic(ctx context.Context, cfg *config.Config) preflight.Findings {
	if !cfg.Fallback.On() {
		return nil
	}
	out, err := supervisor.CheckFallback(ctx, cfg)
	if err != nil {
		return preflight.Findings{{Severity: preflight.Error, Code: "fallback", What: fmt.Sprintf("the region could not fall back to mode %s: %v", cfg.Fallback.To, err)}}
	}
	if len(out.Errors()) == 0 {
		out = append(out, preflight.Finding{Severity: preflight.OK, Code: "fallback", What: fmt.Sprintf("the region goes to mode %s when the stream is impossible for %s", cfg.Fallback.To, cfg.Fallback.After)})
	}
	return out
}

// checkFallback says what stands in the way of the mode, and what the mode does not promise.
func checkFallback(ctx context.Context, cfg *config.Config) preflight.Findings {
	failed := func(err error) preflight.Findings {
		return preflight.Findings{{Severity: preflight.Error, Code: "mode", What: err.Error()}}
	}
	conn, err := supervisor.Connect(ctx, cfg)
	if err != nil {
		return failed(err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
	plan, err := supervisor.Plan(ctx, conn, cfg, cfg.Mode, pglogical.Names{})
	if err != nil {
		return failed(err)
	}
	out := plan.Findings
	if n := plan.Pending(); n > 0 && len(out.Errors()) == 0 {
		out = append(out, preflight.Finding{Severity: preflight.Warning, Code: "mode_unfinished",
			What: fmt.Sprintf("%d statements of mode %s are not run yet", n, cfg.Mode), Remedy: fmt.Sprintf("pgwaltz mode switch %s --config FILE", cfg.Mode)})
	}
	return append(out, preflight.Finding{Severity: preflight.OK, Code: "mode", What: fmt.Sprintf("mode %s: weaker than the stream, %s", cfg.Mode, strings.Join(supervisor.Weaker(cfg.Mode), "; "))})
}
