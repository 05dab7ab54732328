package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// What check says of a fallback that is configured: a region that only publishes leaves it to its peer, and one whose database does not
// answer could not fall back.
func TestCheckSaysWhetherARegionFallsBack(t *testing.T) {
	t.Parallel()
	for direction, want := range map[string]preflight.Severity{"publish": preflight.OK, "apply": preflight.Error} {
		path := filepath.Join(t.TempDir(), "config.yaml")
		text := fmt.Sprintf("cluster: demo\nregion: eu\ndirection: %s\nfallback: {to: native, after: 1m, back_after: 1m}\npostgres: {dsn: 'postgres://postgres@127.0.0.1:1/none', unbounded_wal: true}\n"+
			"peers: [{region: us, dsn: 'postgres://postgres@127.0.0.1:1/none'}]\nnats: {listen: '127.0.0.1:0', store_dir: %q}\nhttp: {listen: ''}\n", direction, t.TempDir())
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := config.Load(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		found := checkAutomatic(t.Context(), cfg)
		if len(found) != 1 || found[0].Code != "fallback" || found[0].Severity != want {
			t.Errorf("%s: %+v", direction, found)
		}
	}
}
