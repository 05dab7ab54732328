package conflict

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestTrace(t *testing.T) {
	name := strings.ReplaceAll(os.Getenv("TRACE"), "_", " ")
	if name == "" {
		t.Skip("no TRACE")
	}
	seed, _ := strconv.Atoi(os.Getenv("SEED"))
	cfg := models()[name]
	cfg.window = window(seed % int(windows))
	m := newModel(cfg, uint64(seed))
	m.trace = t.Logf
	t.Log(m.run())
}
