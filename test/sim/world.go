package sim

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// World is one run: the regions and everything between them. It must live in a synctest
// bubble, where time passes only while it sleeps, and belongs to one goroutine.
type World struct {
	cfg        Config
	rng        *rand.Rand
	start      time.Time
	due        events
	seq        uint64
	regions    []*region
	links      map[[2]int]bool // cut, by the lower and the higher region
	faulty     bool
	over       bool
	typing     int  // commands that the operator is about to type
	restored   bool // a database lost what it had committed
	restoredAt time.Time
	failure    string
	led        ledger
	trace      trace
	Stats      Stats
}

// Stats counts what a run has met.
type Stats struct {
	Transactions, Conflicts, Frames, Fragments, Parts, Crashes, Faults, Rewinds, Gaps,
	Duplicates, Quarantined, Parked, Pushbacks, Barriers, Races, Restores, Notices, Stalls, Overdue, Recorded, Proofs, Lookups, Refused, Retried, Passed, Recalled, AtOnce, Far,
	PowerCuts, Lost int
}

// region is a database and what stands beside it.
type region struct {
	id     int
	name   string
	db     *database
	stream *stream
	side   *sidecar
	unsure bool // what its stream has acknowledged may not be there
}

// Run plays one configuration and returns what went wrong ("" for nothing), the trace hash
// and the counts. print, if not nil, gets every event as a line.
func Run(cfg Config, print func(string)) (string, uint64, Stats) {
	w := &World{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 1)), start: time.Now(),
		links: map[[2]int]bool{}, faulty: true, trace: newTrace(print),
	}
	w.led.init()
	for i := range cfg.Regions {
		r := &region{id: i, name: string(rune('a'+i)) + "a"}
		r.db = newDatabase(w, r)
		r.stream = newStream(w, r)
		r.side = newSidecar(w, r)
		w.regions = append(w.regions, r)
	}
	for _, r := range w.regions {
		w.after(w.span(0, 5000), r.side.boot)
	}
	w.after(time.Millisecond, w.work)
	w.loop()
	return w.failure, w.trace.sum(), w.Stats
}

type stop struct{}

// after runs f at least d from now.
func (w *World) after(d time.Duration, f func()) {
	w.seq++
	w.due.push(event{at: time.Since(w.start) + max(d, 1), seq: w.seq, f: f})
}

// loop lets time pass from event to event.
func (w *World) loop() {
	for !w.over && len(w.due) > 0 {
		e := w.due.pop()
		time.Sleep(e.at - time.Since(w.start))
		w.guard(e.f)
	}
}

// step lets the next event happen within another one, which waits. It ends that one when gone
// holds.
func (w *World) step(gone func() bool) {
	if len(w.due) == 0 {
		w.fail("somebody waits for what never comes")
	}
	e := w.due.pop()
	time.Sleep(e.at - time.Since(w.start))
	w.guard(e.f)
	if w.over || gone() {
		panic(stop{})
	}
}

// guard runs one callback; failures and kills end it in the middle.
func (w *World) guard(f func()) {
	defer func() {
		switch x := recover().(type) {
		case nil, stop:
		case killed:
			x.s.crash()
		default:
			if !w.over {
				w.failure = fmt.Sprintf("panic: %v\n%s", x, debug.Stack())
				w.end()
			}
		}
	}()
	f()
}

func (w *World) end() {
	w.over = true
}

// fail ends the run.
func (w *World) fail(format string, args ...any) {
	if !w.over {
		w.failure = fmt.Sprintf(format, args...)
		w.end()
	}
	panic(stop{})
}

// must fails the run on an error that cannot be.
func (w *World) must(err error) {
	if err != nil {
		w.fail("%v", err)
	}
}

// span draws a duration between two numbers of microseconds.
func (w *World) span(from, to int64) time.Duration {
	return time.Duration(from+w.rng.Int64N(to-from+1)) * time.Microsecond
}

// chance is true in n of 1000 cases, while faults are on.
func (w *World) chance(n int) bool { return w.faulty && w.rng.IntN(1000) < n }

func (w *World) now() wal.Micros { return wal.MicrosOf(time.Now()) }

// cut reports whether two regions cannot reach each other.
func (w *World) cut(a, b int) bool { return a != b && w.links[[2]int{min(a, b), max(a, b)}] }
