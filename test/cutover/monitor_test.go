package cutover

import (
	"encoding/json"
	"strings"
)

// look is what `cutover monitor` says.
func (w *walk) look(more ...string) (code int, found map[string]any) {
	w.Helper()
	code, text := w.run("", append([]string{"monitor", "--json"}, more...)...)
	from, to := strings.Index(text, "{"), strings.LastIndex(text, "}")
	if from < 0 || json.Unmarshal([]byte(text[from:to+1]), &found) != nil {
		w.Fatalf("monitor: code %d: %s", code, text)
	}
	return code, found
}

// sees wants a look with code 0, and the cutover that far.
func (w *walk) sees(step string, yes bool, more ...string) {
	w.Helper()
	code, found := w.look(more...)
	state, _ := found["cutover"].(map[string]any)
	if code != 0 || state[step] != any(yes) {
		w.Errorf("monitor: code %d: %v, want %s %t", code, found, step, yes)
	}
}
