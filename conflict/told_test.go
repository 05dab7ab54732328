package conflict_test

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict"
)

// What a peer calls a conflict becomes a label of metrics and a word of the log.
func TestToldTypesAreKnownOnes(t *testing.T) {
	for _, known := range conflict.Types() {
		if got := conflict.Told(string(known)); got != known {
			t.Errorf("%s is told as %s", known, got)
		}
	}
	for _, word := range []string{"", "kind_1", "\xff", "a\x00b", "INSERT_EXISTS"} {
		if got := conflict.Told(word); got != conflict.Other {
			t.Errorf("%q is told as %s", word, got)
		}
	}
}
