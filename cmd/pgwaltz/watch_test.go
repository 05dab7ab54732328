package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/config"
)

// pages is a log that can be read while it is written.
type pages struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (p *pages) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *pages) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// A file that changes below a sidecar that runs is spoken of, by its keys, and each state of it once.
func TestChangedConfigurationIsSpokenOf(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "eu.yaml")
	write := func(maxBytes, more string) {
		t.Helper()
		text := "cluster: c\nregion: eu\npostgres: {dsn: \"host=/run/x dbname=y\"}\npeers: [{region: us}]\nnats: {listen: \"127.0.0.1:0\", store_dir: /nowhere, max_bytes: " + maxBytes + "}\n" + more
		next := path + ".next"
		if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
	}
	write("1GiB", "")
	cfg, err := config.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	var said pages
	ctx, stop := context.WithCancel(t.Context())
	var watch sync.WaitGroup
	watch.Go(func() { watchConfig(ctx, cfg, nil, slog.New(slog.NewTextHandler(&said, nil)), time.Millisecond) })
	until := func(words string) {
		t.Helper()
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		limit := time.After(20 * time.Second)
		for !strings.Contains(said.String(), words) {
			select {
			case <-tick.C:
			case <-limit:
				t.Fatalf("waited for %q in:\n%s", words, &said)
			}
		}
	}
	write("2GiB", "")
	until("keys=nats.max_bytes")
	write("2GiB", "log: {level: debug}\n")
	until(`keys="nats.max_bytes, log.level"`)
	write("2GiB", "nonsense: hunter2\n")
	until("the next start would refuse it")
	write("1GiB", "# as it was\n")
	write("3GiB", "")
	stop()
	watch.Wait()
	if n := strings.Count(said.String(), "keys=nats.max_bytes\n"); n < 1 || n > 2 || strings.Contains(said.String(), "hunter2") {
		t.Errorf("said:\n%s", &said)
	}
}
