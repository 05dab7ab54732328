package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// skewVariable sets the clock of a sidecar off, in seconds, when its binary was built by
// buildSkewable.
const skewVariable = "PGWALTZ_CHAOS_SKEW"

// skewSource is one more file of package time.
const skewSource = `package time

import "syscall"

var chaosSkew = func() (sec int64) {
	text, _ := syscall.Getenv("` + skewVariable + `")
	neg := len(text) > 0 && text[0] == '-'
	for i := 0; i < len(text); i++ {
		if c := text[i]; c >= '0' && c <= '9' {
			sec = 10*sec + int64(c-'0')
		}
	}
	if neg {
		return -sec
	}
	return sec
}()
`

// buildSkewable builds the program with a package time whose Now can be set off: a static
// binary asks the kernel for the time and passes libfaketime by. Monotonic time stays true.
func buildSkewable(ctx context.Context, dir string) (string, error) {
	root, err := harness.ModuleRoot()
	if err != nil {
		return "", err
	}
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find GOROOT: %w", err)
	}
	std := filepath.Join(strings.TrimSpace(string(goroot)), "src", "time")
	text, err := os.ReadFile(filepath.Join(std, "time.go"))
	if err != nil {
		return "", fmt.Errorf("read package time: %w", err)
	}
	from, body, ok := bytes.Cut(text, []byte("\nfunc Now() Time {\n"))
	first, rest, ok2 := bytes.Cut(body, []byte("\n"))
	if !ok || !ok2 || !bytes.HasPrefix(first, []byte("\tsec, nsec, mono := ")) {
		return "", errors.New("change package time: its function Now looks different in this version of Go")
	}
	text = bytes.Join([][]byte{from, []byte("\nfunc Now() Time {\n"), first, []byte("\n\tsec += chaosSkew\n"), rest}, nil)
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(std, "time.go"):       filepath.Join(dir, "time.go"),
		filepath.Join(std, "chaos_skew.go"): filepath.Join(dir, "chaos_skew.go"),
	}})
	if err != nil {
		return "", fmt.Errorf("write overlay: %w", err)
	}
	for name, data := range map[string][]byte{"time.go": text, "chaos_skew.go": []byte(skewSource), "overlay.json": overlay} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return "", fmt.Errorf("write overlay: %w", err)
		}
	}
	bin := filepath.Join(dir, "pgwaltz-clock")
	cmd := exec.CommandContext(ctx, "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", bin, "./cmd/pgwaltz")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build with a clock that can be set off: %w: %s", err, out)
	}
	return bin, nil
}

// useSkewable makes every sidecar of this run one whose clock can be set off.
func (w *world) useSkewable(ctx context.Context) error {
	dir, err := w.fleet.Room.Sub("clock", false)
	if err != nil {
		return err
	}
	bin, err := buildSkewable(ctx, dir)
	if err != nil {
		return err
	}
	w.skewable = true
	return harness.UseProduct(bin)
}

// skewSidecar starts the sidecar again with another clock, which it keeps until the next.
func skewSidecar(ctx context.Context, w *world, s *side, d draw) error {
	k := s.leader(ctx)
	off := d.n%240 - 120
	if d.kind%4 == 0 {
		off *= 60
	}
	w.say("  clock of the sidecar of %s is off by %d s", s.Side, off)
	k.down()
	k.s.Setenv(skewVariable, fmt.Sprint(off))
	k.up()
	waitNewProcess(ctx, k)
	return nil
}

// setClocksRight starts every sidecar again whose clock is off.
func (w *world) setClocksRight(ctx context.Context) {
	for _, s := range w.sides {
		for _, k := range s.keepers() {
			if w.skewable && k.want.Load() {
				k.down()
				k.s.Setenv(skewVariable, "")
				k.up()
				waitNewProcess(ctx, k)
			}
		}
	}
}
