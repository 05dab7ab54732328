// Package failpoint makes a process fail at a named place, for tests of crash safety. It is
// set from outside, through the environment, because the process under test is a real one:
//
//	PGWALTZ_FAILPOINT="name:kill@7,name:error,name:sleep=5s@2"
//
// kill ends the process with SIGKILL, error makes Hit return ErrInjected, sleep delays. @n
// means at the n-th pass, counted from 1 and for each entry by itself; without it, at the
// first. Every entry fires once, or at every pass with @each. Unset, a pass costs the test of a nil map.
package failpoint

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Env is the environment variable that holds the failpoints.
const Env = "PGWALTZ_FAILPOINT"

// ErrInjected is what Hit returns for an entry of kind error.
var ErrInjected = errors.New("injected failure")

// active is the one piece of package state: it belongs to the process, as the environment does.
var active = fromEnv(os.Getenv(Env)) //nolint:gochecknoglobals // see above

// Hit passes the named place: it returns nil, sleeps, returns an error that wraps
// ErrInjected, or does not return. It may be called from any goroutine.
func Hit(name string) error {
	if active == nil {
		return nil
	}
	return active.hit(name)
}

// Armed reports whether there is an entry for the named place, so that what never comes by there can be left out.
func Armed(name string) bool { return len(active[name]) > 0 }

type action byte

const (
	kill action = iota + 1
	fail
	sleep
)

type point struct {
	action action
	delay  time.Duration
	at     int64 // 0: every pass
	passes atomic.Int64
}

type points map[string][]*point

// fromEnv ends the process on a spec that it cannot read: a crash test whose failpoint is
// misspelt would pass without testing anything.
func fromEnv(spec string) points {
	p, err := parse(spec)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	return p
}

func parse(spec string) (points, error) {
	if strings.TrimSpace(spec) == "" {
		return nil, nil
	}
	set := points{}
	for entry := range strings.SplitSeq(spec, ",") {
		name, what, ok := strings.Cut(strings.TrimSpace(entry), ":")
		if !ok || name == "" {
			return nil, fmt.Errorf("parse %s entry %q: want name:kill@n, name:error@n or name:sleep=5s@n", Env, entry)
		}
		p, err := parsePoint(what)
		if err != nil {
			return nil, fmt.Errorf("parse %s entry %q: %w", Env, entry, err)
		}
		set[name] = append(set[name], p)
	}
	return set, nil
}

func parsePoint(what string) (*point, error) {
	p := &point{at: 1}
	what, count, ok := strings.Cut(what, "@")
	switch {
	case ok && count == "each":
		p.at = 0
	case ok:
		n, err := strconv.ParseInt(count, 10, 64)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("pass %q: want a number from 1, or each", count)
		}
		p.at = n
	}
	word, arg, _ := strings.Cut(what, "=")
	switch word {
	case "kill":
		p.action = kill
	case "error":
		p.action = fail
	case "sleep":
		d, err := time.ParseDuration(arg)
		if err != nil {
			return nil, fmt.Errorf("sleep %q: want a duration", arg)
		}
		p.action, p.delay = sleep, d
	default:
		return nil, fmt.Errorf("action %q: want kill, error or sleep", word)
	}
	return p, nil
}

func (ps points) hit(name string) error {
	var err error
	for _, p := range ps[name] { // all of them count the pass, whichever of them fires
		if n := p.passes.Add(1); p.at != 0 && n != p.at {
			continue
		}
		switch p.action {
		case kill:
			die()
		case fail:
			err = fmt.Errorf("pass failpoint %s: %w", name, ErrInjected)
		case sleep:
			time.Sleep(p.delay)
		}
	}
	return err
}

// die ends the process at once, without deferred calls, as a power cut of the process would.
func die() {
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Kill()
	}
	select {} // the signal is on its way; nothing after this place may run
}
