package conflict

import (
	"github.com/pgwaltz/pgwaltz/wal"
)

// publish reads one change from the WAL and stamps it.
func (m *model) publish(r *modelRegion) {
	if r.read == len(r.log) {
		return
	}
	l := r.log[r.read]
	r.read++
	if del, ins, ok := SplitKeyChange(l.ch); ok {
		m.stamp(r, del, l, l.wids[0])
		m.stamp(r, ins, l, l.wids[1])
		return
	}
	m.stamp(r, l.ch, l, l.wids[0])
}

func (m *model) stamp(r *modelRegion, ch wal.Change, l logged, wid int) {
	row := ch.New
	if ch.Op == wal.Delete {
		row = ch.Old
	}
	key := string(row[0].Bytes)
	at := l.commit
	if m.cols.Stampless() {
		r.hlc = max(r.hlc+1, l.commit)
		at = r.hlc
	}
	st, err := StampChange(m.pol, m.cols, &ch, at, r.generationBefore(key, l.lsn))
	if err != nil {
		panic(err)
	}
	if m.cfg.breakage == noGenerations || (m.cfg.breakage == noLift && st.Lifted) {
		ch.Stamp.Generation, ch.Base.Stamp.Generation = 0, 0
		st.Next = NextGeneration(ch.Stamp, ch.Op != wal.Delete)
	}
	if st.Next > 0 {
		r.note(key, st.Next-1, l.lsn)
	}
	e := modelEvent{
		ev:  Event{Op: ch.Op, Stamp: ch.Stamp, Base: ch.Base, Complete: true, CommitTime: l.commit},
		key: key, wid: wid, from: r.id, lsn: l.lsn,
	}
	if ch.Op != wal.Delete {
		e.row = ch.New
		e.ev.Content = m.content(ch.New)
	}
	if m.trace != nil {
		m.trace("%d stamps w%d %s %s %s base %v %s", r.id, wid, ch.Op, key, StampText(ch.Stamp), ch.Base.Known, StampText(ch.Base.Stamp))
	}
	r.out = append(r.out, e)
	if st.SelfMerge && m.cfg.breakage != noSelfMerge {
		r.self = append(r.self, e)
	}
}

// generationBefore is what the publisher's index says of the time before a change.
func (r *modelRegion) generationBefore(key string, lsn int) uint32 {
	x, ok := r.index[key]
	switch {
	case !ok:
		return 0
	case x.lsn >= lsn:
		return x.gen
	}
	return x.gen + 1
}

func (r *modelRegion) note(key string, gen uint32, lsn int) {
	old, ok := r.index[key]
	if ok && old.gen == gen {
		lsn = min(lsn, old.lsn) // the tombstone is as old as its first mention
	}
	if !ok || old.gen <= gen {
		r.index[key] = indexed{gen, lsn}
	}
}

func (m *model) content(row wal.Tuple) []byte {
	c, ok := Content(m.rel, row)
	if !ok {
		panic("content of a text row")
	}
	return c
}

// side reads the local entry the way an applier does: from the row and its tombstone.
func (m *model) side(r *modelRegion, key string) Side {
	row, alive := r.rows[key]
	g, tombstone := r.tombstones[key]
	if !alive {
		if !tombstone {
			return Side{}
		}
		return Side{Known: true, Stamp: g.stamp, DeletedAt: g.deleted}
	}
	fallback := wal.MinMicros
	if at, ok := r.stamps[key]; ok {
		fallback = at
	}
	s, err := StampOf(m.cols, m.rel, row, fallback)
	if err != nil {
		panic(err)
	}
	if tombstone {
		s.Generation = g.stamp.Generation + 1
	}
	return Side{Known: true, Alive: true, Stamp: s, Content: m.content(row)}
}

// apply merges one event, or the net effect of several, into a region.
func (m *model) apply(r *modelRegion, e modelEvent) {
	l := m.side(r, e.key)
	d := Resolve(m.pol, e.ev, l)
	if m.trace != nil {
		m.trace("%d applies %s w%d from %d %s %s %s base %v %s over known=%v alive=%v %s (w%d): %s %s %s pushback=%v", r.id, e.ev.Kind, e.wid, e.from, e.key, e.ev.Op, StampText(e.ev.Stamp), e.ev.Base.Known, StampText(e.ev.Base.Stamp), l.Known, l.Alive, StampText(l.Stamp), r.last[e.key], d.Verdict, d.Type, d.Reason, d.Pushback)
	}
	if m.cfg.breakage == arrivalWins && d.Verdict == Keep {
		d.Verdict = Apply
	}
	before := r.last[e.key]
	if d.Conflict() && m.cfg.breakage != dropsAudit {
		m.audited++
		lost := m.lost[e.key]
		if lost == nil {
			lost = map[int]bool{}
			m.lost[e.key] = lost
		}
		if d.Verdict == Apply {
			lost[before] = true
		} else {
			lost[e.wid] = true
		}
	}
	if d.Pushback && m.cfg.breakage != noPushback && m.cfg.breakage != noLift {
		back := modelEvent{ev: e.ev, key: e.key, row: e.row, wid: e.wid, from: r.id}
		if d.Verdict == Keep {
			back.ev = Event{Op: wal.Update, Stamp: l.Stamp, Content: l.Content, CommitTime: e.ev.CommitTime}
			if !l.Alive {
				back.ev.Op = wal.Delete
			}
			back.row, back.wid = r.rows[e.key], before
		}
		back.ev.Kind, back.ev.Base, back.ev.Born, back.ev.Complete = Repair, wal.Base{}, false, true
		if back.ev.Op == wal.Insert {
			back.ev.Op = wal.Update
		}
		r.out = append(r.out, back)
	}
	switch d.Verdict {
	case Apply:
		m.carryOut(r, e)
	case Same:
		m.mark(r, e, r.lsn) // the tombstone under a living row is not for collection any more
	}
}

func (m *model) carryOut(r *modelRegion, e modelEvent) {
	alive := e.ev.Op != wal.Delete
	r.lsn++
	lsn := r.lsn
	if alive {
		r.rows[e.key] = e.row
		if m.cols.Stampless() {
			r.stamps[e.key] = e.ev.Stamp.UpdatedAt
		}
	} else {
		delete(r.rows, e.key)
	}
	r.last[e.key] = e.wid
	if e.ev.Stamp.UpdatedAt != wal.MaxMicros {
		r.hlc = max(r.hlc, e.ev.Stamp.UpdatedAt)
	}
	next := NextGeneration(e.ev.Stamp, alive)
	if next == 0 {
		delete(r.tombstones, e.key) // not from the index: own stamps of a key must never fall
		return
	}
	m.mark(r, e, lsn)
}

// mark writes the tombstone of an entry, unless a higher one is there.
func (m *model) mark(r *modelRegion, e modelEvent, lsn int) {
	if m.cfg.breakage == noTombstones {
		return
	}
	alive := e.ev.Op != wal.Delete
	next := NextGeneration(e.ev.Stamp, alive)
	if next == 0 {
		return
	}
	s := e.ev.Stamp
	if alive {
		s = wal.Stamp{Generation: next - 1, Version: wal.NullVersion, UpdatedAt: wal.MinMicros}
	}
	r.tombstones[e.key] = modelTombstone{stamp: s, live: alive, deleted: e.ev.CommitTime, wid: e.wid}
	r.note(e.key, next-1, lsn)
}

// deliver hands up to n events of one region to another, some of them again.
func (m *model) deliver(to, from *modelRegion, n int) {
	p := to.pos[from.id]
	if m.cfg.redeliver && m.rng.IntN(6) == 0 {
		p = max(p-m.rng.IntN(4), to.floor[from.id])
	}
	end := min(p+n, len(from.out))
	if p >= end {
		return
	}
	batch := from.out[p:end]
	if m.cfg.breakage == dropsEvents && m.rng.IntN(10) == 0 {
		batch = batch[1:]
	}
	if m.rng.IntN(2) == 0 {
		batch = m.coalesce(batch)
	}
	for _, e := range batch {
		if m.cfg.window == barrier {
			for to.read < len(to.log) {
				m.publish(to)
			}
			for len(to.self) > 0 {
				m.selfMerge(to)
			}
		}
		m.apply(to, e)
	}
	to.pos[from.id] = max(to.pos[from.id], end)
}

// coalesce reduces a batch to the net effect for each key, as the applier does.
func (m *model) coalesce(batch []modelEvent) []modelEvent {
	var out []modelEvent
	at := map[string]int{}
	for _, e := range batch {
		i, seen := at[e.key]
		if !seen || e.ev.Kind != Live || out[i].ev.Kind != Live || !m.supersedes(e, out[i]) {
			at[e.key] = len(out)
			e.ev.Born = e.ev.Op == wal.Insert
			out = append(out, e)
			continue
		}
		first := out[i].ev
		e.ev.Base, e.ev.Born = first.Base, first.Born
		switch {
		case e.ev.Op == wal.Delete:
		case first.Born:
			e.ev.Op = wal.Insert
		default:
			e.ev.Op = wal.Update
		}
		// What the run itself superseded is an ancestor or was recorded at its origin.
		out[i] = e
	}
	return out
}

// supersedes: a run goes on only while it rises.
func (m *model) supersedes(e, run modelEvent) bool {
	if m.cfg.breakage == runsFall {
		return true
	}
	return m.pol.CompareSides(e.ev.Side(), run.ev.Side()) > 0
}

func (m *model) selfMerge(r *modelRegion) {
	if len(r.self) == 0 {
		return
	}
	e := r.self[0]
	r.self = r.self[1:]
	e.ev.Kind = Self
	if m.cfg.window != open && m.superseded(r, e) {
		return
	}
	m.apply(r, e)
}

// superseded reports whether the WAL holds a later change of the key: what the table shows
// may be that one, whose turn comes.
func (m *model) superseded(r *modelRegion, e modelEvent) bool {
	for i := len(r.log) - 1; i >= 0 && r.log[i].lsn > e.lsn; i-- {
		for _, t := range [...]wal.Tuple{r.log[i].ch.Old, r.log[i].ch.New} {
			if t != nil && string(t[0].Bytes) == e.key {
				return true
			}
		}
	}
	return false
}
