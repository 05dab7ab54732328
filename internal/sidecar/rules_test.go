package sidecar

import (
	"encoding/json"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// What a peer says that is no rules changes nothing, and rules that change all the time are not followed without end: each
// change may have tables copied.
func TestRulesOfAPeer(t *testing.T) {
	t.Parallel()
	s := &Sidecar{cfg: &config.Config{}, log: slog.New(slog.DiscardHandler)}
	s.rules.forget()
	says := func(version string) {
		data, err := json.Marshal(preflight.Rules{Version: version, Tables: []preflight.Rule{{Match: `public."odd.name"`}}})
		if err != nil {
			t.Fatal(err)
		}
		s.hearRules("us", data)
	}
	says("rev")
	for _, text := range []string{"", "null and void", `{"tables": 1}`, `{"version":"x","tables":[{"match":"no pattern"}]}`, `{"version":"` + strings.Repeat("x", 1<<20) + `"}`} {
		if s.hearRules("us", []byte(text)); s.rules.told["us"].Version != "rev" {
			t.Errorf("%.40q changes the rules to %.40q", text, s.rules.told["us"].Version)
		}
	}
	changes := 0
	for i := range 200 {
		was := s.rules.told["us"]
		if says([]string{"version", "rev"}[i%2]); !reflect.DeepEqual(was, s.rules.told["us"]) {
			changes++
		}
	}
	if changes == 0 || changes > rewindBurst {
		t.Errorf("%d changes of 200", changes)
	}
}

// Nothing is copied behind a difference until each peer was asked, or a minute is over.
func TestPeersThatWereNotAsked(t *testing.T) {
	t.Parallel()
	var r otherRules
	r.forget()
	peers := []string{"eu", "us"}
	r.note([]string{"us"})
	if p := r.waits(peers); p != "eu" {
		t.Errorf("it waits for %q", p)
	}
	r.since = time.Now().Add(-rulesGrace)
	if p := r.waits(peers); p != "" {
		t.Errorf("it waits for %q without end", p)
	}
	r.forget()
	if r.note(peers); r.waits(peers) != "" {
		t.Errorf("it waits for %q, which was asked", r.waits(peers))
	}
}
