package sim

import (
	"math/rand/v2"
	"time"
)

// planFaults draws what goes wrong, and when. Small faults (lost, doubled, late and damaged
// messages, lost answers, kills between two steps) happen all the time beside them.
func (w *World) planFaults(end time.Duration) {
	micros := int64(end / time.Microsecond)
	for range w.cfg.Faults {
		r := w.regions[w.rng.IntN(len(w.regions))]
		kind := w.rng.IntN(12)
		w.after(w.span(0, micros), func() {
			w.Stats.Faults++
			w.note(r.id, "fault", uint64(kind), 0)
			w.fault(r, kind)
		})
	}
	w.planPowerCuts(micros)
	w.planRestore(micros)
	w.planRefusals(micros)
	if w.cfg.Copies {
		r := w.regions[w.rng.IntN(len(w.regions))]
		w.after(w.span(0, micros), func() { r.side.copyTables() })
	}
}

func (w *World) fault(r *region, kind int) {
	st := r.stream
	if w.cfg.Forgetful && (kind == 9 || kind == 10) { // both die, and the store of the stream is lost
		st.remove()
		r.db.crash()
		r.side.crash()
		return
	}
	switch kind {
	case 0, 1:
		r.side.crash()
	case 2: // the server dies, the sidecar comes back
		r.db.crash()
		r.side.disconnected()
	case 3: // both die
		r.db.crash()
		r.side.crash()
	case 4: // an ordinary restart of the server, with everything on disk
		r.db.flush()
		r.db.restart()
		w.note(r.id, "pg restart", uint64(r.db.confirmed), 0)
		r.side.disconnected()
	case 5, 6: // a link is cut
		o := w.regions[(r.id+1+w.rng.IntN(len(w.regions)-1))%len(w.regions)]
		l := [2]int{min(r.id, o.id), max(r.id, o.id)}
		w.links[l] = true
		w.after(w.span(5000, 800_000), func() { w.heal(l) })
	case 7: // the stream loses its end
		st.truncate(1 + w.rng.IntN(6))
	case 8: // the stream is deleted
		st.remove()
	case 9: // a stored message is damaged
		if len(st.msgs) > 0 {
			m := &st.msgs[w.rng.IntN(len(st.msgs))]
			m.data = append([]byte(nil), m.data...)
			m.data[w.rng.IntN(len(m.data))] ^= 1 << w.rng.IntN(8)
		}
	case 10: // somebody else writes to the subject
		data := []byte("hello, is this the right subject?")
		if w.rng.IntN(2) == 0 && len(st.msgs) > 0 { // a frame of an unknown version
			data = append([]byte(nil), st.msgs[len(st.msgs)-1].data...)
			data[4] = 77
		}
		st.publish(0, "", data)
	case 11: // the stream is full: own changes are stamped, and not merged
		if !st.full {
			st.fill()
		}
	}
}

// planPowerCuts draws when machines of streams stop at once.
func (w *World) planPowerCuts(micros int64) {
	if !w.cfg.Lazy {
		return
	}
	own := rand.New(rand.NewPCG(w.cfg.Seed, 0xc07))
	for range 1 + own.IntN(4) {
		r, both := w.regions[own.IntN(len(w.regions))], own.IntN(2) == 0
		w.after(time.Duration(own.Int64N(micros))*time.Microsecond, func() {
			w.Stats.Faults++
			w.Stats.PowerCuts++
			w.note(r.id, "power cut", r.stream.last, r.stream.disk)
			if both { // the database is on the same machine
				r.db.crash()
			}
			r.side.crash()
			r.stream.powerCut()
		})
	}
}

// heal joins a link again.
func (w *World) heal(l [2]int) {
	if !w.links[l] {
		return
	}
	w.links[l] = false
	w.note(l[0], "heal", uint64(l[1]), 0)
	for _, i := range l {
		s := w.regions[i].side
		if !s.up {
			continue
		}
		for _, in := range s.in {
			if in.origin == l[0] || in.origin == l[1] {
				in.seek()
			}
		}
	}
}
