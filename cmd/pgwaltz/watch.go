package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/internal/config"
)

// watchEvery is how often a running sidecar looks at its configuration file.
const watchEvery = 5 * time.Second

// watchConfig says, until ctx ends, which keys of the file have changed since it was read: they take
// effect with the next start. Each state of the file is spoken of once.
func watchConfig(ctx context.Context, cfg *config.Config, env []string, log *slog.Logger, every time.Duration) {
	read := func() []byte {
		var all []byte
		for _, path := range []string{cfg.File(), cfg.Signing.KeyFile} {
			text, err := os.ReadFile(path)
			if err != nil && path != "" {
				return nil // being written
			}
			all = append(append(all, text...), 0)
		}
		return all
	}
	last := []byte(nil) // what changed between the start and the first look counts
	for pause.For(ctx, every) == nil {
		now := read()
		if now == nil || bytes.Equal(now, last) {
			continue
		}
		last = now
		keys, err := cfg.Changed(env)
		switch {
		case err != nil:
			log.Error("the configuration file has changed, and the next start would refuse it", "reason", err.Error())
		case len(keys) > 0:
			log.Warn("the configuration has changed: restart the sidecar, so that it takes effect", "keys", strings.Join(keys, ", "))
		}
	}
}
