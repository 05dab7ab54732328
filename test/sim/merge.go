package sim

import (
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// row decides about one run under the lock of its row, and carries the decision out.
func (a *applier) row(r *run) outcome {
	s := a.in.s
	w, d := s.w, s.r.db
	e := a.tx.get(r.key)
	l := d.side(r.key, e)
	t := d.tables[r.key.table]
	if e.parked != nil && !a.tx.holdParked(r.key) {
		return locked
	}
	came := a.waitingOf(r)
	if p := e.parked; p != nil && p.Precedes(r.ev.Base) && !(a.in.self && p.origin != a.in.origin) { // what it overwrote is known here, only not shown
		whole := p.Then(came)
		r.row, r.ev.Base, r.ev.Born = whole.Image, whole.Base, whole.Born
	}
	a.complete(r, e)
	if e.parked != nil && e.parked.origin == a.in.origin && e.parked.kind == conflict.Live {
		r.ev = e.parked.Fulfilled(r.ev, e.parked.Relation, l)
	}
	if a.in.self {
		same, wait, against := a.decideOwn(r, e, l)
		l = against
		if wait {
			return needLater
		}
		if same {
			if !r.skip {
				if !a.tx.claim(r.key, false) {
					return locked
				}
				a.mark(r, e, true)
			}
			a.release(r, came, l, conflict.Decision{Verdict: map[bool]conflict.Verdict{false: conflict.Same, true: conflict.Keep}[r.skip]})
			return done
		}
	} else if !a.barrier && conflict.NeedsBarrier(r.ev, conflict.Found{
		Row: e.row != nil, Content: l.Content, Entry: e.entry(), Live: e.live(), Noted: s.noted(r.key), Stampless: t.conf.stampless(),
	}) {
		return needOwn
	}
	dec := conflict.Resolve(t.pol, r.ev, l)
	if w.trace.print != nil {
		w.say(s.r.id, "%s %s t%d %s of w%d %s over known=%t alive=%t w%d %s: %s %s %s pushback=%t", r.kind, r.ev.Op, r.key.table, r.key.key, widOf(r.row),
			conflict.StampText(r.ev.Stamp), l.Known, l.Alive, e.wid, conflict.StampText(l.Stamp), dec.Verdict, dec.Type, dec.Reason, dec.Pushback)
	}
	if a.in.self && dec.Reason == conflict.Incomplete { // whoever had the row before has the rest of it
		if a.retries {
			return refused
		}
		return a.park(r, true)
	}
	if guessed := a.stamped && s.local.Done() < d.insert; a.in.self && (dec.Verdict == conflict.Apply && (a.stamped || s.local.Perhaps(t.rel.Ref(), []byte(r.key.key), place(r.tx))) || dec.Verdict == conflict.Keep && guessed) {
		if a.retries {
			return refused
		}
		return a.park(r, false)
	}
	if w.cfg.Break == ArrivalWins && dec.Verdict == conflict.Keep {
		dec.Verdict, dec.Pushback = conflict.Apply, false
	}
	if dec.Verdict == conflict.Apply && r.row != nil && e.row == nil && d.late[r.key] != nil {
		return locked // the insert waits for the one that is not visible yet
	}
	if dec.Conflict() && w.cfg.Break != NoAudit {
		w.Stats.Conflicts++
		lost := e.wid
		if dec.Verdict == conflict.Keep {
			lost = widOf(r.row)
		}
		a.tx.audit = append(a.tx.audit, a.conflict(r, l, dec, lost))
	}
	repair := dec.Pushback || a.retries && dec.Verdict == conflict.Apply && (&conflict.Waiting{Held: a.held}).SendsBack(r.kind, l.Known, dec.Reason)
	if a.in.self && (w.cfg.Break == SelfSilent || w.cfg.Break == RunsFall) { // what the one breaks, the other heals
		repair = false
	}
	switch dec.Verdict {
	case conflict.Apply:
		at := d.insert
		if r.row == nil && e.row == nil && !a.in.self {
			var res outcome
			if at, res = a.blind(r.key); res != done {
				return res
			}
		}
		if c := r.row != nil || e.row != nil; c && !a.tx.claim(r.key, true) || !a.tx.claim(r.key, false) {
			return locked
		}
		if a.refuses(r, e) {
			return refused
		}
		a.carryOut(r, e, at)
	case conflict.Same:
		if !a.in.self {
			break // the entry that stands there says it
		}
		if !a.tx.claim(r.key, false) {
			return locked
		}
		a.mark(r, e, false)
	case conflict.Park:
		if a.retries {
			return refused
		}
		return a.park(r, true)
	}
	a.release(r, came, l, dec)
	if repair {
		a.tx.repair(r.key)
	}
	return done
}

// conflict makes the record of a conflict, and the notice that tells the other region of it.
func (a *applier) conflict(r *run, l conflict.Side, dec conflict.Decision, lost int) record {
	s := a.in.s
	t := s.r.db.tables[r.key.table]
	n := wal.Notice{Relation: t.rel, ID: conflict.EventID(t.rel.Ref(), r.key.key, r.ev.Side(), l), To: a.name(), Type: string(dec.Type)}
	to := []string{a.name()}
	if a.in.self { // nobody knows here who wrote the row
		to = nil
		for _, o := range s.w.regions {
			if o != s.r && (len(to) == 0 || s.w.cfg.Break != ToldOne) {
				to = append(to, o.name)
			}
		}
	}
	for _, n.To = range to {
		a.tx.notices = append(a.tx.notices, n)
		s.w.Stats.Notices++
	}
	return record{n.ID, lost, a.in.self}
}

// heard records the notices that are for this region.
func (a *applier) heard(txs []keyedTx) {
	for _, k := range txs {
		for _, n := range k.tx.Notices {
			if n.To == a.in.s.r.name && !a.in.self && n.Outcome != wal.Wanted && n.Outcome != wal.Absent {
				a.tx.audit = append(a.tx.audit, record{id: n.ID})
			}
		}
	}
}

// decideOwn: an own change that is in the table already, or that a later own one replaced. It
// returns what the change has to be compared with otherwise.
func (a *applier) decideOwn(r *run, e entry, l conflict.Side) (same, wait bool, against conflict.Side) {
	s := a.in.s
	t := s.r.db.tables[r.key.table]
	now := place(r.tx)
	if s.w.cfg.Break == PartsUnordered {
		now.Part = 1 << 30
	}
	o := conflict.Own{Event: r.ev, Local: l, Told: a.retries && a.held, Later: r.followed || s.local.Later(t.rel.Ref(), []byte(r.key.key), now), Stamped: a.stamped || s.local.Done() >= s.r.db.insert}
	if e.row != nil {
		o.Holds = r.ev.Op != wal.Delete && string(l.Content) == string(r.ev.Content)
		if s.w.cfg.Break == HoldsByStamp && !t.conf.stampless() {
			o.Holds = r.ev.Op != wal.Delete && l.Stamp.Version == r.ev.Stamp.Version && l.Stamp.UpdatedAt == r.ev.Stamp.UpdatedAt
		}
		o.Carried = !t.conf.stampless()
		o.Mine = t.conf.stampless() && e.tomb == nil && (e.plain || !e.stampd)
		if e.tomb != nil && !e.tomb.live {
			o.Tombstone = conflict.Side{Known: true, Stamp: e.tomb.stamp, DeletedAt: e.tomb.deleted}
		}
	}
	pol := t.pol
	if s.w.cfg.Break == SelfVersionFirst {
		pol.Order = conflict.VersionFirst
	}
	step, against := conflict.DecideOwn(pol, o)
	switch step {
	case conflict.OwnRecord:
		return true, false, against
	case conflict.OwnSkip:
		// The later one says what there is to say. The row may be of another region, and a
		// tombstone under it would make it a row of a later generation than it is.
		r.skip = s.w.cfg.Break != MarkSuperseded
		return true, false, against
	case conflict.OwnWait:
		return false, true, against
	}
	return false, false, against
}

// carryOut makes the event the entry of its key.
func (a *applier) carryOut(r *run, e entry, at wal.LSN) {
	t := a.in.s.r.db.tables[r.key.table]
	c := &walChange{table: r.key.table}
	switch {
	case r.row == nil && e.row == nil:
		c = nil
	case r.row == nil:
		c.op = wal.Delete
		c.old, c.full = t.old(e.row)
	case e.row == nil:
		c.op, c.new = wal.Insert, r.row
		if e.tomb == nil && !a.in.s.noted(r.key) {
			a.tx.puts = append(a.tx.puts, r.key)
		}
	default:
		c.op, c.new = wal.Update, r.row
		if t.conf.Full {
			c.old, c.full = e.row, true
		}
	}
	known := e.entry()
	if w := a.in.s.w; a.in.self && !(a.retries && a.held) && c != nil && e.local && !w.cfg.Restore {
		w.fail("the self-merge of %s writes %s of t%d %s over w%d, which an application wrote", a.in.s.r.name, r.ev.Op, r.key.table, r.key.key, e.wid)
	}
	e.row, e.wid, e.local = r.row, widOf(r.row), false
	next := conflict.NextGeneration(r.ev.Stamp, r.row != nil)
	if next == 0 && a.in.s.w.cfg.Break != OldGraves {
		e.tomb = nil // its items stay: own stamps of a key must never fall
	}
	if (c != nil || r.row == nil) && (known || next > 0 || t.conf.stampless()) {
		it := conflict.Item{LSN: at, Next: next, Live: r.row != nil}
		if t.conf.stampless() {
			it.At = r.ev.Stamp.UpdatedAt
		}
		if a.in.self && c == nil {
			it.LSN = r.tx.CommitLSN
		}
		e = e.with(it, a.in.s.horizon())
		switch x := a.in.s.local; {
		case c != nil: // of the row, or of another one than the own change put there
			x.Suspect(a.holder(), t.rel.Ref(), r.key.key, it)
		case a.in.self:
			x.Put(t.rel.Ref(), []byte(r.key.key), it)
		default:
			x.Hold(a.holder(), t.rel.Ref(), r.key.key, it)
		}
	}
	a.tx.put(r.key, e, c)
	a.mark(r, e, a.in.s.w.cfg.Break == OldGraves)
}

// mark writes what stands beside the row: its tombstone, its stamp. Where the entry of the key is
// another one than the event, a tombstone may only rise.
func (a *applier) mark(r *run, e entry, rise bool) {
	s := a.in.s
	d := s.r.db
	t := d.tables[r.key.table]
	alive := r.ev.Op != wal.Delete
	if alive && t.conf.stampless() && (!e.stampd || e.stamp < r.ev.Stamp.UpdatedAt || e.row != nil && e.wid == widOf(r.row)) {
		// An entry that was decided about, or is of an applied row, is no plain one any more.
		e.plain = r.plain && (e.plain || !e.stampd) && e.tomb == nil
		e.stamp, e.stampd = r.ev.Stamp.UpdatedAt, true
		a.tx.put(r.key, e, nil)
	}
	next := conflict.NextGeneration(r.ev.Stamp, alive)
	if next == 0 || s.w.cfg.Break == NoTombstones {
		return
	}
	stamp := r.ev.Stamp
	if alive {
		stamp = wal.Stamp{Generation: next - 1, Version: wal.NullVersion, UpdatedAt: wal.MinMicros}
	}
	if rise && e.tomb != nil && (t.pol.Compare(stamp, e.tomb.stamp) < 0 || stamp == e.tomb.stamp && alive == e.tomb.live) &&
		!(stamp.Generation == e.tomb.stamp.Generation && alive != e.tomb.live) {
		return // a tombstone only ever rises
	}
	if rise && e.tomb != nil && alive && stamp.Generation == e.tomb.stamp.Generation {
		stamp = e.tomb.stamp // what is known of the tombstone under a living row stays known
	}
	lsn := d.insert
	if a.in.self {
		lsn = r.tx.CommitLSN
	}
	e.tomb = &tomb{stamp: stamp, live: alive, deleted: r.ev.CommitTime, lsn: lsn}
	a.tx.put(r.key, e, nil)
}
