package guard

import (
	"errors"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	t.Parallel()
	want := errors.New("plain")
	if err := Run("x", func() error { return want }); err != want {
		t.Errorf("got %v", err)
	}
	var pe *PanicError
	err := Run("the inbound pipe", func() error {
		panic(errors.New("out of order"))
	})
	if !errors.As(err, &pe) || !strings.HasPrefix(err.Error(), "panic in the inbound pipe: out of order") || !strings.Contains(string(pe.Stack), "guard_test.go") {
		t.Errorf("got %v", err)
	}
}
