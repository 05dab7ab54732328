package supervisor_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pgwaltz/pgwaltz/internal/config"
)

// loadText is config.Load of a file with this text.
func loadText(t *testing.T, text string) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgwaltz.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}
