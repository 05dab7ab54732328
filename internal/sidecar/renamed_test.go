package sidecar

import (
	"maps"
	"testing"
)

// TestMovedSchemas: an old name leads to the present one, also when the schema is renamed twice.
func TestMovedSchemas(t *testing.T) {
	t.Parallel()
	m := movedSchemas{}
	m.note("a", "b")
	m.note("x", "y")
	m.note("b", "c")
	if want := (movedSchemas{"a": "c", "b": "c", "x": "y"}); !maps.Equal(m, want) {
		t.Errorf("got %v, want %v", m, want)
	}
}
