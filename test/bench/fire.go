package main

import (
	"fmt"
	"path/filepath"
	"runtime"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// fire is a busy loop on each core: whoever is measured beside it gets half of the CPU.
type fire []*harness.Process

// kindle starts it; the caller ends it with out.
func kindle(dir string) (fire, error) {
	var f fire
	for i := range runtime.NumCPU() {
		p, err := harness.StartProcess(harness.Spec{
			Name: "busy loop", Path: "/bin/sh", Args: []string{"-c", "while :; do :; done"}, Log: filepath.Join(dir, fmt.Sprintf("loop%d.log", i)),
		})
		if err != nil {
			f.out()
			return nil, err
		}
		f = append(f, p)
	}
	return f, nil
}

func (f fire) out() {
	for _, p := range f {
		p.Kill()
	}
}
