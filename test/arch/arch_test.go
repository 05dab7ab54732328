package arch

import (
	"strings"
	"testing"
)

func TestRules(t *testing.T) {
	t.Parallel()
	files, err := load("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("only %d files were found; is this the repository?", len(files))
	}
	found := check(files)
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, f := range found[r.name] {
				t.Errorf("%s\n\twhy not: %s", f, r.why)
			}
		})
	}
	rooms := map[string]bool{}
	for i := range files {
		rooms[files[i].room] = true
	}
	for room := range pure {
		if !rooms[room] {
			t.Errorf("the pure room %s is not there", room)
		}
	}
}

// Each rule must find what is planted for it, and nothing else.
func TestRulesCanFail(t *testing.T) {
	t.Parallel()
	files, err := load("testdata/bad")
	if err != nil {
		t.Fatal(err)
	}
	found := check(files)
	for rule, want := range map[string][]string{
		"pure rooms do no I/O":              {"checkpoint/up.go imports github.com/pgwaltz/pgwaltz/sink/apply", "decoder/file.go imports os"},
		"pure rooms read no clock":          {"wal/clock.go:5 uses time.Now"},
		"pure rooms start no goroutines":    {"wire/go.go:3 starts a goroutine"},
		"pure rooms draw no random numbers": {"conflict/dice.go imports math/rand/v2"},
		"imports point downwards": {
			"checkpoint/up.go imports sink/apply, which is not below it",
			"internal/orphan/orphan.go is in a room without a place in the order; give it one in test/arch/rules.go",
			"sink/apply/exit.go imports internal/sidecar, which is not below it",
		},
		"pipes and adapters do not know the upper floor": {"sink/apply/exit.go imports github.com/pgwaltz/pgwaltz/internal/sidecar"},
		"only cmd ends the process":                      {"sink/apply/exit.go:16 uses os.Exit"},
		"only cmd traps signals":                         {"sink/apply/exit.go:15 uses os/signal.Ignore"},
		"statements of a side table are in the room that owns it": {
			"sink/apply/exit.go:19 names pgwaltz.nobodys, which has no owner; give it one in test/arch/rules.go",
			"sink/apply/exit.go:19 names pgwaltz.parked, which belongs to conflict/parked",
		},
		"the product does not import tests": {"sink/apply/exit.go imports testing"},
	} {
		if got := strings.Join(found[rule], "\n"); got != strings.Join(want, "\n") {
			t.Errorf("%s: found\n%s\nwant\n%s", rule, got, strings.Join(want, "\n"))
		}
		delete(found, rule)
	}
	for rule := range found {
		t.Errorf("nothing is planted for %q", rule)
	}
}
