package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/sidecar"
	"github.com/pgwaltz/pgwaltz/internal/supervisor"
	"github.com/pgwaltz/pgwaltz/internal/visible"
)

const runAbout = `Replicates: publishes the changes of the local database and applies those of the peers.
It refuses to start when something is missing and says what to do. A second sidecar of the
same region waits and takes over. SIGTERM stops it in order, a second signal at once.`

// memoryLimit is what the garbage collector works towards unless GOMEMLIMIT says otherwise.
// It keeps a sidecar within 256 MiB in ordinary use; one giant row may need more for a while.
const memoryLimit = 200 << 20

// gcPercent lets garbage gather while there is room: the live heap is small and short-lived,
// and the limit above brings the collector in when it is not.
const gcPercent = 400

func newRun(env []string) *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "run --config FILE",
		Short: "replicate: publish the local changes and apply the peer's",
		Long:  runAbout,
		Args:  noWords,
	}, exitOK, exitOther, exitUsage, exitConfig, exitCheck, exitPostgres, exitPeer, exitInterrupted)
	load := needsConfig(c, env)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		return runSidecar(c.Context(), cfg, env, c.ErrOrStderr())
	}
	return c
}

// runSidecar runs until ctx ends or the sidecar gives up. After ctx has ended it waits for
// shutdown_timeout at most.
func runSidecar(ctx context.Context, cfg *config.Config, env []string, stderr io.Writer) error {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	log := newLogger(cfg, stderr)
	s, err := newWorker(ctx, cfg, log)
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer stop()
	watch.Go(func() { watchConfig(watching, cfg, env, log, watchEvery) })
	done := make(chan error, 1) // room for the result, so that the goroutine ends in any case
	go func() { done <- s.Run(ctx) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		select {
		case err = <-done:
		case <-time.After(cfg.ShutdownTimeout):
			// What is not finished is repeated at the next start.
			fmt.Fprintf(stderr, "not stopped within %s; leaving\n", cfg.ShutdownTimeout)
			return silent(exitOther)
		}
	}
	return err
}

// newWorker makes what does the work in the mode that is in effect. Where the database does not answer, the
// configuration says which that is; a sidecar looks again when it leads, before it does anything.
func newWorker(ctx context.Context, cfg *config.Config, log *slog.Logger) (interface{ Run(context.Context) error }, error) {
	if cfg.Fallback.On() {
		return supervisor.NewAuto(cfg, log, versionText()), nil
	}
	mode, err := supervisor.Mode(ctx, cfg)
	var half *fallback.HalfDoneError
	switch {
	case errors.As(err, &half):
		return nil, err
	case err != nil:
		mode = cfg.Mode
	case mode != cfg.Mode:
		log.Warn("the region was switched, and the configuration says another mode", "mode", string(mode), "configured", string(cfg.Mode))
	}
	if err == nil {
		supervisor.Withdraw(ctx, cfg, log)
	}
	if mode == config.ModeStream {
		return sidecar.New(cfg, log, versionText())
	}
	return supervisor.New(cfg, mode, log, versionText()), nil
}

// newLogger writes to stderr in the configured form.
func newLogger(cfg *config.Config, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
		level = slog.LevelInfo
	}
	o := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == config.LogJSON {
		return slog.New(slog.NewJSONHandler(visible.JSONWriter(w), o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
