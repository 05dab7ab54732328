package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

const killed = 128 + 9 // the exit code of a process that SIGKILL ended

// keeper starts one sidecar again whenever it ends, as a service manager does, unless a
// fault wants it down. Safe for use from any goroutine.
type keeper struct {
	s    *harness.Sidecar
	want atomic.Bool

	mu    sync.Mutex
	exits map[int]int      // exit code -> how often; only ends that no fault asked for by signal
	armed *harness.Process // started with a failpoint that kills, which may fire at any later time
	stop  context.CancelFunc
	done  chan struct{}
}

func newKeeper(s *harness.Sidecar) *keeper {
	ctx, cancel := context.WithCancel(context.Background())
	k := &keeper{s: s, exits: map[int]int{}, stop: cancel, done: make(chan struct{})}
	k.want.Store(true)
	go k.run(ctx)
	return k
}

func (k *keeper) run(ctx context.Context) {
	defer close(k.done)
	var counted *harness.Process
	for harness.Pause(ctx, 100*time.Millisecond) == nil {
		if k.s.Running() {
			k.s.NotePeak()
			continue
		}
		if p := k.s.Process(); p != nil && p != counted {
			counted = p
			k.mu.Lock()
			k.exits[p.ExitCode()]++
			k.mu.Unlock()
		}
		if !k.want.Load() {
			continue
		}
		if harness.Pause(ctx, 200*time.Millisecond) != nil {
			return
		}
		if k.want.Load() {
			_ = k.s.Start() // tried again with the next tick
		}
	}
}

// down ends the process with kill -9 and keeps it down until up.
func (k *keeper) down() {
	k.want.Store(false)
	k.s.Kill()
}

// arm notes that p was started with a failpoint that kills: it may fire while p is being
// stopped softly, and is then no complaint.
func (k *keeper) arm(p *harness.Process) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.armed = p
}

func (k *keeper) isArmed(p *harness.Process) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return p != nil && p == k.armed
}

// stopSoft ends the process with SIGTERM and keeps it down until up. An exit code other
// than 0 is an error, except that of a failpoint that the process was armed with.
func (k *keeper) stopSoft(ctx context.Context) error {
	k.want.Store(false)
	if !k.s.Running() {
		return nil
	}
	p := k.s.Process()
	code, err := k.s.Stop(ctx, 60*time.Second)
	if err == nil && code != 0 && !(code == killed && k.isArmed(p)) {
		err = fmt.Errorf("stop sidecar %s: exit code %d", k.s.Region, code)
	}
	if err != nil {
		k.s.Kill()
	}
	return err
}

func (k *keeper) up() { k.want.Store(true) }

func (k *keeper) close() {
	k.stop()
	<-k.done
}

func (k *keeper) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return fmt.Sprint(k.exits)
}
