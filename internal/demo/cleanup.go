package demo

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// phase is a word that the screen reads while the script sets it.
type phase struct {
	mu   sync.Mutex
	word string
}

func (p *phase) set(word string) { p.mu.Lock(); p.word = word; p.mu.Unlock() }

func (p *phase) get() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.word
}

// cleanUp ends everything that was started, in the order in which each still has what it
// needs to end well: sidecars, link, databases, folder. It then looks whether anything is
// left, and returns that.
func (d *demo) cleanUp() (left []string, err error) {
	var pids []int
	for i := len(d.regions) - 1; i >= 0; i-- {
		r := d.regions[i]
		if r == nil || r.sidecar == nil {
			continue
		}
		pids = append(pids, r.sidecar.cmd.Process.Pid)
		err = errors.Join(err, r.sidecar.stop())
	}
	if d.link != nil {
		d.link.Close()
	}
	for _, r := range d.regions {
		if r == nil {
			continue
		}
		if r.pool != nil {
			r.pool.Close()
		}
		if r.cluster != nil {
			if pid := r.cluster.PID(); pid != 0 {
				pids = append(pids, pid)
			}
			err = errors.Join(err, r.cluster.Stop())
		}
	}
	if d.dir != "" && !d.opt.Keep {
		if rmErr := os.RemoveAll(d.dir); rmErr != nil {
			err = errors.Join(err, fmt.Errorf("remove folder: %w", rmErr))
		}
		if _, statErr := os.Stat(d.dir); statErr == nil {
			left = append(left, "folder "+d.dir)
		}
	}
	for _, pid := range pids {
		if syscall.Kill(pid, 0) == nil {
			left = append(left, fmt.Sprintf("process %d", pid))
		}
	}
	return left, err
}
