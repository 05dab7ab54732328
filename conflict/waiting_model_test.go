package conflict

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// A model of one key in regions that cannot show rows now and then. The WAL does not say what an update
// overwrote, so a change of one region may come below its earlier one. Streams arrive in order, each
// at its own pace; what cannot be shown waits, as appliers and retriers do it.

type waitMsg struct {
	Waiting
	kind EventKind
	from int
}

type waitRegion struct {
	id      int
	row     wal.Tuple // what is shown
	stamp   wal.Stamp // its version and time
	entry   Side      // what stands beside it
	item    Item      // what own changes are stamped from
	lsn     wal.LSN
	blocked bool
	waiting *waitMsg
	log     []waitMsg // own changes
	read    int       // so many are published
	self    int       // so many are merged
	out     []waitMsg
	pos     []int
}

type waitModel struct {
	rng     *rand.Rand
	pol     Policy
	rel     *wal.Relation
	regions []*waitRegion
	n       int
	late    bool // own changes may be published late, and others come over them meanwhile
	hard    bool // nobody shows anything of others before the end
	sent    int
	trace   func(string, ...any)
}

func (m *waitModel) say(format string, args ...any) {
	if m.trace != nil {
		m.trace(format, args...)
	}
}

func newWaitModel(seed uint64) *waitModel {
	rng := rand.New(rand.NewPCG(seed, 11))
	m := &waitModel{rng: rng, pol: Policy{Order: Order(rng.IntN(2))}, rel: waitRelation, late: rng.IntN(3) == 0}
	m.hard = rng.IntN(2) == 0
	for i := range 2 + rng.IntN(2) {
		m.regions = append(m.regions, &waitRegion{id: i, blocked: m.hard || rng.IntN(3) > 0})
	}
	for _, r := range m.regions {
		r.pos = make([]int, len(m.regions))
	}
	return m
}

// write is a statement of an application.
func (m *waitModel) write(r *waitRegion) {
	m.writeVersion(r, int64(m.rng.IntN(4)), m.rng.IntN(4) == 0)
}

func (m *waitModel) writeVersion(r *waitRegion, version int64, remove bool) {
	m.n++
	w := waitMsg{from: r.id, Waiting: Waiting{Relation: m.rel, Op: wal.Update, Stamp: wal.Stamp{Version: version, UpdatedAt: wal.Micros(m.rng.IntN(4))}}}
	_, w.Stamp.Generation = r.item.Over()
	switch {
	case r.row == nil:
		w.Op, w.Born = wal.Insert, true
		w.Stamp.Generation = r.item.Born()
	case remove:
		w.Op, w.Stamp.Version, w.Stamp.UpdatedAt = wal.Delete, wal.MaxVersion, wal.Micros(m.n)
	}
	if w.Op != wal.Delete {
		w.Image = waitRow(fmt.Sprint(m.n), "x")
	}
	r.row, r.stamp = w.Image, w.Stamp
	r.note(w.Stamp, w.Op)
	r.log = append(r.log, w)
	m.say("%d writes %s %s %d", r.id, w.Op, StampText(w.Stamp), m.n)
}

// note keeps what own changes are stamped from.
func (r *waitRegion) note(s wal.Stamp, op wal.Op) {
	r.lsn++
	r.item = r.item.Join(Item{LSN: r.lsn, Next: NextGeneration(s, op != wal.Delete), Live: op != wal.Delete})
}

// side is the entry as the applier reads it: of own changes that are not merged yet the generation is
// not known.
func (r *waitRegion) side() Side {
	if r.row == nil {
		if r.entry.Known && !r.entry.Alive {
			return r.entry
		}
		return Side{}
	}
	w := Waiting{Relation: waitRelation, Op: wal.Update, Stamp: r.stamp, Image: r.row}
	if w.Stamp.Generation = 0; r.entry.Known {
		w.Stamp.Generation = NextGeneration(r.entry.Stamp, r.entry.Alive)
	}
	return w.side()
}

var waitRelation = waitRel()

// put writes a decided entry.
func (r *waitRegion) put(w *waitMsg) {
	r.row, r.stamp = w.Image, w.Stamp
	r.entry = Side{Known: true, Alive: w.Op != wal.Delete, Stamp: w.Stamp}
	r.note(w.Stamp, w.Op)
}

// record writes the entry of an own change that the table says already; it only rises.
func (m *waitModel) record(r *waitRegion, w *waitMsg) {
	s := Side{Known: true, Alive: w.Op != wal.Delete, Stamp: w.Stamp}
	if !r.entry.Known || NextGeneration(s.Stamp, s.Alive) > NextGeneration(r.entry.Stamp, r.entry.Alive) || !s.Alive && !r.entry.Alive && m.pol.Compare(s.Stamp, r.entry.Stamp) > 0 {
		r.entry = s
	}
}

func (m *waitModel) publish(r *waitRegion) {
	if r.read < len(r.log) {
		r.out = append(r.out, r.log[r.read])
		r.read++
	}
}

func (m *waitModel) merge(r *waitRegion) {
	if r.self < r.read {
		w := r.log[r.self]
		r.self++
		w.kind = Self
		m.take(r, w, false)
	}
}

// tell publishes what a region shows.
func (m *waitModel) tell(r *waitRegion, kind EventKind) {
	w := waitMsg{from: r.id, kind: kind, Waiting: Waiting{Relation: m.rel, Op: wal.Update}}
	l := r.side()
	if w.Stamp = l.Stamp; kind == Copy {
		w.Op, w.Born = wal.Insert, true
	}
	if w.Image = r.row; !l.Alive {
		w.Op = wal.Delete
	}
	for r.read < len(r.log) { // it stands in the log behind them
		m.publish(r)
	}
	r.out = append(r.out, w)
	m.sent++
	m.say("%d tells %s %s %s", r.id, kind, w.Op, StampText(w.Stamp))
}

func imageText(row wal.Tuple) string {
	if row == nil {
		return "-"
	}
	return string(row[1].Bytes)
}

func (m *waitModel) take(r *waitRegion, w waitMsg, retried bool) {
	e := Event{Kind: w.kind, Op: w.Op, Stamp: w.Stamp, Base: w.Base, Born: w.Born, Complete: true}
	e.Content = w.side().Content
	local := r.side()
	old, against := r.waiting, local
	follows := old != nil && old.from == w.from && !retried && old.Ends(old.kind, w.kind)
	if w.kind == Self {
		o := Own{Event: e, Local: local, Stamped: true, Carried: true, Holds: w.Op != wal.Delete && local.Alive && string(local.Content) == string(e.Content)}
		if local.Alive && r.entry.Known && !r.entry.Alive {
			o.Tombstone = r.entry
		}
		o.Later = r.self < len(r.log) // the index knows of all own changes that are not merged
		step, side := DecideOwn(m.pol, o)
		if step == OwnRecord {
			m.record(r, &w)
		}
		if step == OwnRecord || step == OwnSkip {
			if follows || old != nil && step == OwnRecord && m.pol.Releases(w.Waiting, &old.Waiting, old.from != w.from && old.from != r.id) {
				r.waiting = nil
				if old.from != w.from && m.pol.Undoes(w.Waiting, &old.Waiting) {
					m.tell(r, Repair)
				}
			}
			return
		}
		against = side
	}
	d := Resolve(m.pol, e, against)
	back := d.Pushback || retried && d.Verdict == Apply && w.SendsBack(w.kind, local.Known, d.Reason)
	m.say("%d takes %s of %d %s %s %s: %s back=%v blocked=%v follows=%v", r.id, w.kind, w.from, w.Op, StampText(w.Stamp), imageText(w.Image), d.Verdict, back, r.blocked, follows)
	if d.Verdict == Apply && r.blocked && (w.Op != wal.Delete || r.row != nil) {
		if retried {
			r.waiting = &w
			return
		}
		if old == nil {
			w.Held = w.kind == Repair
			r.waiting = &w
			return
		}
		w.Held = w.kind == Repair
		merged, ok := m.pol.Wait(old.Waiting, w.Waiting, follows)
		if !ok {
			old.Waiting = merged
			return
		}
		w.Waiting = merged
		r.waiting = &w
		return
	}
	if d.Verdict == Apply {
		r.put(&w)
	}
	if old != nil && (follows || d.Verdict != Keep && m.pol.Releases(w.Waiting, &old.Waiting, old.from != w.from && old.from != r.id)) {
		r.waiting = nil
		back = back || w.kind == Self && old.from != w.from && m.pol.Undoes(w.Waiting, &old.Waiting)
	}
	if back {
		m.tell(r, Repair)
	}
}

func (m *waitModel) known(r *waitRegion) {
	for r.self < len(r.log) {
		m.publish(r)
		m.merge(r)
	}
}

func (m *waitModel) deliver(r *waitRegion) bool {
	return m.deliverFrom(r, m.regions[m.rng.IntN(len(m.regions))])
}

func (m *waitModel) deliverFrom(r, o *waitRegion) bool {
	if o == r || r.pos[o.id] == len(o.out) {
		return false
	}
	if !m.late || m.rng.IntN(3) == 0 {
		m.known(r)
	}
	w := o.out[r.pos[o.id]]
	r.pos[o.id]++
	m.take(r, w, false)
	return true
}

func (m *waitModel) retry(r *waitRegion) {
	if w := r.waiting; w != nil {
		if w.kind != Self {
			m.known(r)
			if r.waiting != w {
				return
			}
		}
		r.waiting = nil
		m.take(r, *w, true)
	}
}

func (m *waitModel) run() string {
	writes := 1 + m.rng.IntN(6)
	for range 10 + m.rng.IntN(30) {
		r := m.regions[m.rng.IntN(len(m.regions))]
		switch m.rng.IntN(10) {
		case 0:
			if !m.hard && m.rng.IntN(8) == 0 {
				r.blocked = !r.blocked
			}
		case 1, 2:
			if writes--; writes >= 0 {
				m.write(r)
			}
		case 3:
			m.publish(r)
		case 4:
			m.merge(r)
		case 5:
			if !m.hard {
				m.retry(r)
			}
		case 6:
			if m.rng.IntN(4) == 0 && r.side().Known {
				m.known(r)
				m.tell(r, Copy)
			}
		default:
			m.deliver(r)
			m.deliver(r)
		}
	}
	return m.end()
}

// end lets every region show everything, and says what is wrong then.
func (m *waitModel) end() string {
	m.say("the end")
	for quiet := 0; quiet < 60; quiet++ {
		for _, r := range m.regions {
			r.blocked = false
			m.known(r)
			if m.deliver(r) {
				quiet = 0
			}
			m.retry(r)
		}
		if m.sent > 5000 {
			return "does not come to rest"
		}
	}
	for _, r := range m.regions {
		if r.waiting != nil {
			return "something waits for ever"
		}
		a, b := m.regions[0].side(), r.side()
		if a.Known != b.Known || a.Known && m.pol.CompareSides(a, b) != 0 {
			return fmt.Sprintf("%d shows %t %s, %d shows %t %s", 0, a.Alive, StampText(a.Stamp), r.id, b.Alive, StampText(b.Stamp))
		}
	}
	return ""
}

// TestWaitingConverges: whatever cannot be shown where, and whenever, in the end all regions show the same.
func TestWaitingConverges(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20_000) {
		if why := newWaitModel(seed).run(); why != "" {
			m := newWaitModel(seed)
			m.trace = t.Logf
			m.run()
			t.Fatalf("seed %d: %s", seed, why)
		}
	}
}

// TestWaitingStories plays schedules that a random one seldom meets. Nobody shows anything of others before the end.
// 1w2: region 1 writes version 2; 1d: it deletes; 1c: it copies its row; 0<1: region 0 takes what comes next from region 1;
// 0x1: and shows it, before its own changes are known; 0m: its own changes are merged. 0l1 and 0s1 are 0<1 and 0x1 where the own changes
// of neither are merged; 0p: they are published only.
func TestWaitingStories(t *testing.T) {
	t.Parallel()
	for name, story := range map[string]string{
		"a copied row, and a lower change of its region":                      "0w2 1<0 0c 1<0 0w1 1<0",
		"a copied row alone, and a lower change of its region":                "0w2 2<0 0c 0w1 2<0 2<0 1<0 1<0 1<0",
		"a lower one gave way to a change that gives way to a lower one":      "1w2 2w3 2w1 0<2 1<2 0<1 1<2 0<1 0<2",
		"one whose place a change took, that gives way to a lower one":        "1w2 2w3 2w1 1<2 1<2 0<1 0<1 0<2 0<2",
		"the same, where what took its place rises, and is followed by lower": "1w1 2w2 2w3 2w0 1<2 1<2 1<2 0<1 0<2 0<1 0<2 0<2",
		"the same with an own change that something lower was written over":   "0w2 1w3 0d 0w2 0x1 1d 1w3 1w1 0m 0x1 0<1 0<1",
		"one made over an own change of a later life that was not known yet":  "0w3 0d 0w3 0p 1s0 1s0 1s0 1w1 1p 0l1",
	} {
		m := newWaitModel(0)
		m.late, m.pol, m.regions = false, Policy{}, nil
		regions := 2
		if strings.Contains(story, "2<") || strings.Contains(story, "<2") {
			regions = 3
		}
		for i := range regions {
			m.regions = append(m.regions, &waitRegion{id: i, blocked: true, pos: make([]int, 3)})
		}
		var steps []string
		m.trace = func(format string, args ...any) { steps = append(steps, fmt.Sprintf(format, args...)) }
		for _, s := range strings.Fields(story) {
			r := m.regions[s[0]-'0']
			switch s[1] {
			case 'w':
				m.writeVersion(r, int64(s[2]-'0'), false)
			case 'd':
				m.writeVersion(r, 0, true)
			case 'c':
				m.known(r)
				m.tell(r, Copy)
			case 'm':
				r.blocked = true
				m.known(r)
			case 'p':
				for r.read < len(r.log) {
					m.publish(r)
				}
			default:
				o := m.regions[s[2]-'0']
				if s[1] == '<' || s[1] == 'x' {
					m.known(o)
				}
				m.late, r.blocked = s[1] != '<', s[1] == '<' || s[1] == 'l'
				m.rng = rand.New(rand.NewPCG(1, 1)) // of two it takes the late one
				if !m.deliverFrom(r, o) {
					t.Fatalf("%s: nothing comes at %s\n%s", name, s, strings.Join(steps, "\n"))
				}
			}
		}
		if why := m.end(); why != "" {
			t.Errorf("%s: %s\n%s", name, why, strings.Join(steps, "\n"))
		}
	}
}
