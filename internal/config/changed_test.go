package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a file says anew is named by its keys; what files hold that it names is not, unless it is
// read at the start alone.
func TestChanged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	password, key := write("password", "one\n"), write("key", "k\n")
	text, err := os.ReadFile("testdata/full.good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := write("pgwaltz.yaml", string(text))
	env := []string{"PGWALTZ_POSTGRES_PASSWORD_FILE=" + password, "PGWALTZ_SIGNING_KEY_FILE=" + key, "PGWALTZ_LOG_LEVEL=warn"}
	c, err := Load(path, env)
	if err != nil {
		t.Fatal(err)
	}
	changed := func() string {
		t.Helper()
		keys, err := c.Changed(env)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(keys)
	}
	for _, one := range []struct{ from, to, want string }{
		{"", "", "[]"},
		{"", "# a remark\n", "[]"},
		{"max_bytes: 10GiB", "max_bytes: 20GiB", "[nats.max_bytes]"},
		{"max_bytes: 10GiB", "max_bytes: 10240MiB", "[]"},
		{"region: ap", "region: ap-2", "[peers]"},
		{"order: time", "order: version", "[tables.rules]"},
		{"mode: off", "mode: auto", "[copy.mode]"},
	} {
		if !strings.Contains(string(text), one.from) {
			t.Errorf("%q is not in the file", one.from)
		}
		write("pgwaltz.yaml", strings.Replace(string(text), one.from, one.to, 1))
		if got := changed(); got != one.want {
			t.Errorf("%q instead of %q: %s, want %s", one.to, one.from, got, one.want)
		}
	}
	write("pgwaltz.yaml", string(text))
	write("password", "two\n")
	if got := changed(); got != "[]" {
		t.Errorf("another password in its file: %s", got)
	}
	write("key", "other\n")
	if got := changed(); got != "[signing.key_file]" {
		t.Errorf("another signing key: %s", got)
	}
	write("pgwaltz.yaml", "nats: [\n")
	if _, err := c.Changed(env); err == nil {
		t.Error("a file that is no YAML is read")
	}
}
