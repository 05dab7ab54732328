package cutover

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// rehearsal is `cutover rehearse run`, which goes on until it is stopped.
type rehearsal struct {
	*walk
	process *harness.Process
	out     string
}

func (w *walk) rehearse() *rehearsal {
	w.Helper()
	bin, err := harness.Product()
	w.must(err)
	conf, err := w.at.Sidecar.ConfigPath()
	w.must(err)
	r := &rehearsal{walk: w, out: filepath.Join(w.pair.Dir(), "rehearse.log")}
	args := append([]string{"cutover", "-config", conf}, w.line("rehearse run")...)
	r.process, err = harness.StartProcess(harness.Spec{Name: "rehearse", Path: bin, Args: append(args, "--json"), Dir: w.T.TempDir(), Log: r.out})
	w.must(err)
	w.Cleanup(r.process.Kill)
	return r
}

// ended stops it with Ctrl-C, and returns what it has found.
func (r *rehearsal) ended() (code int, found map[string]any) {
	r.Helper()
	r.must(r.process.Signal(syscall.SIGINT))
	code, err := r.process.Wait(r.Context(), 2*time.Minute)
	r.must(err)
	text, err := os.ReadFile(r.out)
	r.must(err)
	from, to := strings.Index(string(text), "{"), strings.LastIndex(string(text), "}")
	if from < 0 || json.Unmarshal(text[from:to+1], &found) != nil {
		r.Fatalf("rehearse: code %d: %s", code, text)
	}
	return code, found
}

// clean wants nothing lost, and the application to have been led from region to region.
func (r *rehearsal) clean(moves ...any) {
	r.Helper()
	code, found := r.ended()
	number := func(name string) float64 { n, _ := found[name].(float64); return n }
	list := func(name string) []any { l, _ := found[name].([]any); return l }
	if code != 0 || number("acknowledged") < 20 || number("outages") < float64(len(moves)-1) || number("longest_outage_seconds") <= 0 || number("beats") != number("rows") ||
		len(list("missing"))+len(list("twice"))+len(list("ghosts")) > 0 || number("numbers_twice") > 0 || number("missing_in_other_region") > 0 || !slices.Equal(list("moves"), moves) {
		r.Errorf("rehearse: code %d: %v, want moves %v", code, found, moves)
	}
	r.Logf("rehearse: %v written, %v outages, the longest %.1f s, errors %v", found["acknowledged"], found["outages"], number("longest_outage_seconds"), found["errors"])
}
