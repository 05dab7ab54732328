package settings

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// scenes in the order in which they are played.
var scenes = []struct {
	name string
	play func(*scene)
}{
	{"merge", merge}, {"oneway", oneWay}, {"copies", copies}, {"pace", pace}, {"hold", hold}, {"logins", logins}, {"links", links}, {"server", server}, {"modes", modes}, {"fallback", fallback}, {"refusals", refusals},
}

// scene is one pair of regions with settings from one place.
type scene struct {
	*testing.T
	from   by
	fleet  *harness.Fleet
	proofs *proofs
	name   string
	pair   *harness.Pair
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// open makes the pair and runs sql in both databases.
func (s *scene) open(o harness.PairOptions, sql string) {
	s.Helper()
	name := "k_" + s.name + "_" + string(s.from)[:3]
	var err error
	s.pair, err = s.fleet.Pair(s.Context(), name, o)
	s.must(err)
	s.Cleanup(func() {
		if s.Failed() {
			for _, r := range s.pair.Regions() {
				s.Logf("%s: %s", r.Side, harness.TailFile(r.Sidecar.LogPath, 12))
			}
		}
		s.pair.Close()
		s.fleet.Recycle(s.T.Context(), name, true)
	})
	for _, r := range s.pair.Regions() {
		s.sql(r, sql)
	}
}

// give sets keys of one region from where this scene has them, and counts them as seen when the
// scene ends well.
func (s *scene) give(r *harness.Region, settings map[string]any) {
	s.Helper()
	for key, value := range settings {
		s.set(r.Sidecar, key, value)
	}
	s.Cleanup(func() {
		if !s.Failed() {
			for key := range settings {
				s.proofs.add(key)
			}
		}
	})
}

// set sets one key without counting it; nil takes it out.
func (s *scene) set(c *harness.Sidecar, key string, value any) {
	name := "PGWALTZ_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
	c.Set(key, nil)
	c.Setenv(name, "")
	if value == nil {
		return
	}
	if s.from == file {
		c.Set(key, value)
		return
	}
	text := fmt.Sprint(value)
	if list, ok := value.([]any); ok {
		var parts []string
		for _, v := range list {
			parts = append(parts, fmt.Sprint(v))
		}
		text = strings.Join(parts, ",")
	}
	c.Setenv(name, text)
}

func (s *scene) sql(r *harness.Region, text string) string {
	s.Helper()
	out, err := r.Cluster.PSQL(s.Context(), r.Database, text)
	s.must(err)
	return strings.TrimSpace(out)
}

func (s *scene) want(r *harness.Region, query, answer string) {
	s.Helper()
	if got := s.sql(r, query); got != answer {
		s.Errorf("%s: %s is %q, want %q", r.Side, query, got, answer)
	}
}

// until waits for the answer.
func (s *scene) until(r *harness.Region, query, answer string) {
	s.Helper()
	s.must(harness.Poll(s.Context(), 100*time.Second, 50*time.Millisecond, func(ctx ctxt) (bool, string, error) {
		out, err := r.Cluster.PSQL(ctx, r.Database, query)
		return strings.TrimSpace(out) == answer, fmt.Sprintf("%s: %s to be %q, it is %q", r.Side, query, answer, strings.TrimSpace(out)), err
	}))
}

// start sets both regions up and runs them.
func (s *scene) start() {
	s.Helper()
	s.must(s.pair.Setup(s.Context()))
	s.run(s.pair.A, s.pair.B)
	s.must(s.pair.WaitReady(s.Context(), time.Minute))
}

func (s *scene) run(regions ...*harness.Region) {
	s.Helper()
	for _, r := range regions {
		s.must(r.Sidecar.Start())
	}
}

func (s *scene) inStep() {
	s.Helper()
	s.must(s.pair.WaitInStep(s.Context(), 90*time.Second))
}

func (s *scene) status(r *harness.Region, path string) string {
	s.Helper()
	v, err := r.Sidecar.StatusField(s.Context(), path)
	s.must(err)
	return v
}

func (s *scene) number(r *harness.Region, path string) float64 {
	s.Helper()
	var n float64
	if _, err := fmt.Sscan(s.status(r, path), &n); err != nil {
		s.Fatalf("%s is no number: %v", path, err)
	}
	return n
}

func (s *scene) metric(r *harness.Region, name string) float64 {
	s.Helper()
	v, ok, err := r.Sidecar.Metric(s.Context(), name)
	s.must(err)
	if !ok {
		s.Fatalf("no metric %s", name)
	}
	return v
}

// cli runs a command and wants the code, and each text in what it says.
func (s *scene) cli(r *harness.Region, code int, words string, texts ...string) {
	s.Helper()
	args := strings.Fields(words)
	res, err := r.Sidecar.CLI(s.Context(), args[0], args[1:]...)
	s.must(err)
	said := res.Stdout + res.Stderr
	if res.Code != code {
		s.Errorf("%s of %s: code %d, want %d:\n%s", words, r.Side, res.Code, code, said)
	}
	for _, t := range texts {
		if text, not := strings.CutPrefix(t, "!"); strings.Contains(said, text) == not {
			s.Errorf("%s of %s: %q in\n%s", words, r.Side, t, said)
		}
	}
}

func (s *scene) log(r *harness.Region) string {
	s.Helper()
	text, err := os.ReadFile(r.Sidecar.LogPath)
	s.must(err)
	return string(text)
}

// write makes a file of one line.
func (s *scene) write(name, text string) string {
	s.Helper()
	path := filepath.Join(s.TempDir(), name)
	s.must(os.WriteFile(path, []byte(text+"\n"), 0o600))
	return path
}

func (s *scene) within(what string, fn func() (bool, string)) {
	s.Helper()
	s.must(harness.Poll(s.Context(), 60*time.Second, 50*time.Millisecond, func(ctxt) (bool, string, error) {
		ok, why := fn()
		return ok, what + ": " + why, nil
	}))
}
