package settings

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

func TestMain(m *testing.M) { harness.Main(m) }

// by is where a setting comes from.
type by string

const (
	file by = "file"
	env  by = "environment"
)

// proofs are the keys whose effect was seen.
type proofs struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (p *proofs) add(keys ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range keys {
		p.seen[k] = true
	}
}

// TestEverySettingHasAnEffect plays scenes, each with settings from the file and then with the same
// ones from variables, and wants every key to have been seen at work in one of them.
func TestEverySettingHasAnEffect(t *testing.T) {
	_, err := harness.FindBinaries()
	pgtest.Found(t, err)
	variables := config.Variables()
	for _, from := range []by{file, env} {
		t.Run(string(from), func(t *testing.T) {
			t.Parallel()
			fleet, err := harness.NewFleet(harness.ClusterConfig{Settings: map[string]string{"track_commit_timestamp": "on"}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(fleet.Close)
			p := &proofs{seen: map[string]bool{}}
			played := 0
			for _, s := range scenes {
				t.Run(s.name, func(t *testing.T) {
					played++
					s.play(&scene{T: t, from: from, fleet: fleet, proofs: p, name: s.name})
				})
			}
			if t.Failed() || played < len(scenes) { // some were left out by -run
				return
			}
			want := map[string]bool{}
			for _, k := range leaves() {
				want[k] = from == file
			}
			for _, key := range variables {
				want[key] = from == env || want[key]
			}
			for key, needed := range want {
				if needed && !p.seen[key] {
					t.Errorf("%s: no scene has seen its effect when it comes from the %s", key, from)
				}
				if !needed && p.seen[key] {
					t.Errorf("%s cannot be given in the %s", key, from)
				}
				delete(p.seen, key)
			}
			for key := range p.seen {
				t.Errorf("%s is no key", key)
			}
		})
	}
}

// leaves are the keys of the file that hold a value.
func leaves() []string {
	keys := config.Keys()
	return slices.DeleteFunc(slices.Clone(keys), func(k string) bool {
		return slices.ContainsFunc(keys, func(o string) bool { return strings.HasPrefix(o, k+".") || strings.HasPrefix(o, k+"[].") })
	})
}

// Every variable is the one that the documents' rule gives for its key.
func TestVariablesFollowTheRule(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range config.Variables() {
		if want := "PGWALTZ_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_")); name != want {
			t.Errorf("%s is of %s, and the rule says %s", name, key, want)
		}
		if !strings.Contains(string(text), "`"+key+"`") && !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("neither %s nor %s is in docs/configuration.md", key, name)
		}
	}
	for _, k := range leaves() {
		if !strings.Contains(string(text), fmt.Sprintf("| `%s` |", k)) {
			t.Errorf("%s has no line in docs/configuration.md", k)
		}
	}
}
