package conflict

import (
	"fmt"
	"strconv"
)

// step is one random action.
func (m *model) step() {
	r := m.regions[m.rng.IntN(len(m.regions))]
	switch m.rng.IntN(6) {
	case 0, 1:
		m.local(r)
	case 2, 3:
		for range 1 + m.rng.IntN(3) {
			m.publish(r)
		}
	case 4:
		for range 1 + m.rng.IntN(3) {
			m.selfMerge(r)
		}
	default:
		o := m.regions[m.rng.IntN(len(m.regions))]
		if o != r {
			m.deliver(r, o, 1+m.rng.IntN(4))
		}
	}
}

// drain heals everything. It reports false when the regions go on sending for ever.
func (m *model) drain() bool {
	for range 400 {
		quiet := true
		for _, r := range m.regions {
			for r.read < len(r.log) {
				quiet = false
				m.publish(r)
			}
			for len(r.self) > 0 {
				quiet = false
				m.selfMerge(r)
			}
			for _, o := range m.regions {
				if o != r && r.pos[o.id] < len(o.out) {
					quiet = false
					m.deliver(r, o, 1+m.rng.IntN(8))
				}
			}
		}
		if quiet {
			return true
		}
	}
	return false
}

// collect removes tombstones here and there; every region has seen them all.
func (m *model) collect() {
	for _, r := range m.regions {
		copy(r.floor, r.pos)
		for k, g := range r.tombstones {
			if !g.live && m.rng.IntN(2) == 0 {
				delete(r.tombstones, k)
				delete(r.index, k)
				delete(r.stamps, k)
				_ = g
			}
		}
	}
	m.clock += phaseGap
}

// run plays one schedule and returns what is wrong at its end, "" for nothing.
func (m *model) run() string {
	phases := max(m.cfg.phases, 1)
	for p := range phases {
		for range m.cfg.ops * 4 {
			m.step()
		}
		if !m.drain() {
			return "does not come to rest"
		}
		if bad := m.check(); bad != "" {
			return fmt.Sprintf("phase %d: %s", p, bad)
		}
		if p < phases-1 {
			m.collect()
		}
	}
	return ""
}

// check holds the regions against each other, and the ledger against the end and the audit.
func (m *model) check() string {
	for k := range m.cfg.keys {
		key := "k" + strconv.Itoa(k)
		a := m.side(m.regions[0], key)
		for _, r := range m.regions[1:] {
			b := m.side(r, key)
			if a.Known != b.Known && (a.Known && a.Alive || b.Known && b.Alive) {
				return fmt.Sprintf("diverged: %s is known in one region only", key)
			}
			if !a.Known || !b.Known {
				continue // a tombstone that one region collected already
			}
			if m.pol.CompareSides(a, b) != 0 {
				return fmt.Sprintf("diverged: %s is %v %s here and %v %s there", key, a.Alive, StampText(a.Stamp), b.Alive, StampText(b.Stamp))
			}
		}
	}
	explained := map[int]bool{0: true}
	explain := func(w int) {
		for ; w != 0 && !explained[w]; w = m.writes[w].prev {
			explained[w] = true
		}
	}
	for _, r := range m.regions {
		for _, w := range r.last {
			explain(w)
		}
	}
	for _, lost := range m.lost {
		for w := range lost {
			explain(w)
		}
	}
	if !m.cfg.full {
		return "" // what an update overwrote is not known: only convergence is promised
	}
	// What a delete removed was removed on purpose, and nothing is lost with the delete when
	// a row of a later generation, or one that came in before the delete was known, outlives it.
	for w := range m.writes {
		if !m.writes[w].row {
			explain(w)
		}
	}
	for w := range m.writes {
		if !explained[w] {
			return fmt.Sprintf("lost: write %d of %s vanished without a record", w, m.writes[w].key)
		}
	}
	return ""
}
