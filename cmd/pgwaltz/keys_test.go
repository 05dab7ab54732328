package main

import (
	"strings"
	"testing"
)

// Flags that do not go together, and words that are no tables, are refused before anything is
// opened.
func TestKeysFlags(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"":                                    "one of --peer-dsn",
		"--write --peer-keys x":               "one of --peer-dsn",
		"--peer-dsn x --peer-keys y":          "one of --peer-dsn",
		"--peer-keys x --sql":                 "--sql needs --only",
		"--write --json":                      "do not go together",
		"--peer-keys x --only u --sql --json": "do not go together",
		"--peer-keys x a..b":                  "is no table's name",
		`--peer-keys x "unclosed.b`:           "is no table's name",
	} {
		code, _, stderr := call(t, append([]string{"keys", "--config", "nowhere.yaml"}, strings.Fields(args)...)...)
		if code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%s: code %d, %s", args, code, stderr)
		}
	}
	for word, want := range map[string]string{"orders": "public.orders", "s.t": "s.t", `"Od.d".x`: `"Od.d".x`, "Od.d": `"Od".d`} {
		got, err := tableName(word)
		if err != nil || got.String() != want {
			t.Errorf("%s: %s, %v", word, got, err)
		}
	}
}
