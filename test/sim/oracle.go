package sim

import (
	"fmt"
	"time"

	"github.com/pgwaltz/pgwaltz/conflict"
)

// patience is how long everything may take to become quiet after the last fault.
const patience = 150 * time.Second

// drain ends the faults and waits for quiet. Nobody helps.
func (w *World) drain() {
	w.faulty = false
	w.note(0, "faults off", 0, 0)
	for a := range w.regions {
		for b := range a {
			w.heal([2]int{b, a})
		}
	}
	end := time.Now().Add(patience)
	var poll func()
	poll = func() {
		why := w.restless()
		if why == "" {
			w.check()
			w.note(0, "end", 0, 0)
			w.end()
			return
		}
		if time.Now().After(end) {
			w.fail("not at rest after %s: %s", patience, why)
		}
		w.after(70*time.Millisecond, poll)
	}
	w.after(100*time.Millisecond, poll)
}

// restless says what still moves, "" for nothing.
func (w *World) restless() string {
	if w.typing > 0 || w.restored && time.Since(w.restoredAt) < 6*time.Second {
		return "the operator is not done"
	}
	for _, r := range w.regions {
		s := r.side
		if !s.up || s.out == nil {
			return "region " + r.name + " is down"
		}
		if r.db.stored.Gap || r.db.stored.Resync || r.db.copies {
			return "region " + r.name + " has a gap"
		}
		for k, e := range r.db.keys {
			if e.parked != nil {
				return fmt.Sprintf("region %s waits for t%d %s", r.name, k.table, k.key)
			}
		}
		if len(r.db.late) > 0 {
			return "region " + r.name + " has commits that nobody sees"
		}
		if r.db.flushed < len(r.db.wal) {
			return "region " + r.name + " has commits that are not on disk"
		}
		if s.out.next < r.db.flushed || s.out.framer.Gathered() > 0 || s.out.framer.Held() > 0 || len(s.out.queue) > 0 || s.out.inFlight > 0 {
			return "region " + r.name + " publishes"
		}
		last := s.out.framer.Position()
		for _, o := range w.regions {
			in := o.side.in
			if !o.side.up || len(in) == 0 {
				return "region " + o.name + " is down"
			}
			a := &in[r.id].app
			if a.cp.Incarnation != last.Incarnation || a.cp.FrameNo != last.Number || a.cp.Chain != last.Chain || a.busy {
				return fmt.Sprintf("region %s is at %d/%d of %s, which is at %d/%d", o.name, a.cp.Incarnation, a.cp.FrameNo, r.name, last.Incarnation, last.Number)
			}
			if o != r && a.cp.Seen < a.cp.EndLSN {
				return fmt.Sprintf("region %s has not shown %s again what that had applied", r.name, o.name)
			}
		}
	}
	return ""
}

// check is the oracle.
func (w *World) check() {
	var ends, losers []int
	first := w.regions[0].db
	for _, r := range w.regions {
		for _, rec := range r.db.audit {
			losers = append(losers, rec.lost)
		}
		for _, e := range r.db.keys {
			ends = append(ends, e.wid)
		}
		for _, o := range w.regions {
			if o.id == r.id || w.restored {
				continue
			}
			if n := o.db.cps[r.name].Transactions; n != r.db.local {
				w.fail("not exactly once: %s committed %d transactions, %s counts %d", r.name, r.db.local, o.name, n)
			}
			if n, m := r.db.rows[r.name], o.db.rows[r.name]; n != m && (n < m || !w.asks()) { // a change whose row is gone is left out
				w.fail("not exactly once: %s changed %d rows, %s applied %d of them", r.name, n, o.name, m)
			}
		}
	}
	for i, t := range first.tables {
		for n := range t.conf.Keys {
			k := rowKey{i, keyText(n)}
			a := first.side(k, first.keys[k])
			for _, r := range w.regions[1:] {
				b := r.db.side(k, r.db.keys[k])
				if a.Alive != b.Alive || string(a.Content) != string(b.Content) {
					w.fail("diverged: %s %s is %s here and %s in %s", t.rel, k.key, describe(a, first.keys[k]), describe(b, r.db.keys[k]), r.name)
				}
				if a.Known && b.Known && t.pol.CompareSides(a, b) != 0 {
					w.fail("stamps diverged: %s %s is %s here and %s in %s", t.rel, k.key, describe(a, first.keys[k]), describe(b, r.db.keys[k]), r.name)
				}
			}
		}
	}
	if w.restored {
		return // what was committed behind the point of the restore is lost
	}
	w.checkLogs()
	for _, t := range first.tables {
		if !t.conf.Full || t.conf.Mixed {
			return // what an update overwrote is not known: only convergence is promised
		}
	}
	if l := w.led.unexplained(ends, losers); l != 0 {
		w.fail("lost: write w%d of t%d %s vanished without a record", l, w.led.writes[l].key.table, w.led.writes[l].key.key)
	}
}

// checkLogs asks that each conflict is in the logs of both regions that it is of, by its id.
func (w *World) checkLogs() {
	if w.cfg.Break == NoAudit {
		return
	}
	in := map[[16]byte]map[int]bool{}
	for _, r := range w.regions {
		for _, rec := range r.db.audit {
			if in[rec.id] == nil {
				in[rec.id] = map[int]bool{}
			}
			in[rec.id][r.id] = true
		}
	}
	for _, r := range w.regions { // in the order of a log: the answer must be the same each time
		for _, rec := range r.db.audit {
			if l := w.led.writes[rec.lost]; rec.self && rec.lost != 0 && !in[rec.id][l.region] {
				w.fail("untold: the conflict %x that w%d of %s lost is not in the log there", rec.id, rec.lost, w.regions[l.region].name)
			}
			if len(in[rec.id]) < 2 {
				w.fail("unheard: the conflict %x that w%d lost is in the log of %s alone", rec.id, rec.lost, r.name)
			}
		}
	}
}

func describe(s conflict.Side, e entry) string {
	switch {
	case !s.Known:
		return "unknown"
	case !s.Alive:
		return "dead " + conflict.StampText(s.Stamp)
	}
	return fmt.Sprintf("w%d %s", e.wid, conflict.StampText(s.Stamp))
}
