package sim

import (
	"time"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Tables refuse rows of appliers for a while: a trigger, a constraint, a row that something
// references. Such a change is set aside, alone, and tried again by a session of its own.

// refusal is what a table does not take from appliers now.
type refusal struct {
	rows    int  // rows of this salt and below
	unique  bool // and rows whose salt another row has
	deletes bool // the deletion of them
}

// saltOf reads from a row what refusals go by.
func saltOf(row wal.Tuple) int { return int(row[colVal].Bytes[1] - '0') }

// refuses reports whether the table does not take what a run would do.
func (a *applier) refuses(r *run, e entry) bool {
	d := a.in.s.r.db
	f, ok := d.refuse[r.key.table]
	switch {
	case !ok:
		return false
	case r.row != nil && f.unique:
		for n := range d.tables[r.key.table].conf.Keys {
			k := rowKey{r.key.table, keyText(n)}
			if o := a.tx.get(k); k != r.key && o.row != nil && saltOf(o.row) == saltOf(r.row) {
				return true
			}
		}
		return false
	case r.row != nil:
		return saltOf(r.row) <= f.rows
	}
	return f.deletes && e.row != nil && saltOf(e.row) <= f.rows
}

// planRefusals draws what is refused, and when. It may last until after the other faults.
func (w *World) planRefusals(micros int64) {
	if !w.cfg.Refuse {
		return
	}
	for range 1 + w.rng.IntN(4) {
		d, n := w.regions[w.rng.IntN(len(w.regions))].db, w.rng.IntN(len(w.cfg.Tables))
		f := refusal{rows: w.rng.IntN(10), deletes: w.rng.IntN(3) == 0}
		if w.cfg.Unique && w.rng.IntN(2) == 0 {
			f.unique, f.deletes = true, false
		}
		w.after(w.span(0, micros), func() {
			d.refuse[n] = f
			w.note(d.r.id, "refuses", uint64(n), uint64(f.rows))
			w.after(w.span(1000, 3_000_000), func() {
				delete(d.refuse, n)
				w.note(d.r.id, "takes", uint64(n), 0)
			})
		})
	}
}

// ordered applies transactions one by one, and in halves what fails: what fails by itself is set aside.
func (a *applier) ordered(txs []keyedTx) outcome {
	if a.in.self {
		var whole []*wal.Transaction
		for _, k := range txs {
			whole = append(whole, k.tx)
		}
		a.lasts = batch.LastsOf(whole)
		defer func() { a.lasts = nil }()
	}
	for _, k := range txs {
		if res := a.halves(k); res != done {
			return res
		}
	}
	return done
}

func (a *applier) halves(k keyedTx) outcome {
	n := len(k.tx.Changes)
	if n == 0 {
		return done
	}
	before := a.tx.savepoint()
	res := a.merge([]keyedTx{k})
	if res != refused {
		return res
	}
	a.back(before)
	if n == 1 {
		a.in.s.w.Stats.Refused++
		for _, r := range a.coalesce([]keyedTx{k}) {
			if res := a.park(&r, false); res != done {
				return res
			}
		}
		return done
	}
	if k.places == nil {
		for i := range n {
			k.places = append(k.places, i)
		}
	}
	first, last := *k.tx, *k.tx
	first.Changes, last.Changes = k.tx.Changes[:n/2], k.tx.Changes[n/2:]
	if res := a.halves(keyedTx{&first, k.kind, k.places[:n/2]}); res != done {
		return res
	}
	return a.halves(keyedTx{&last, k.kind, k.places[n/2:]})
}

// back undoes what was done since a savepoint.
func (a *applier) back(p dbtx) {
	a.tx.rollbackTo(p)
	a.in.s.local.Doubt(a.holder())
}

// park sets a change aside. For what it lacks its origin is asked.
func (a *applier) park(r *run, lacks bool) outcome {
	s := a.in.s
	if !a.tx.holdParked(r.key) {
		return locked
	}
	s.w.Stats.Parked++
	e := a.tx.get(r.key)
	came := a.waitingOf(r)
	came.Held = r.kind == conflict.Repair
	next := parked{Waiting: came, origin: a.in.origin, kind: r.kind, tx: r.tx}
	if e.parked != nil {
		merged, ok := s.r.db.tables[r.key.table].pol.Wait(e.parked.Waiting, came, a.follows(r, e.parked))
		if s.w.cfg.Break == ParkedGivesWay {
			merged, ok = came, true
		}
		a.rival(r, came, e.parked, ok)
		if !ok {
			if p := *e.parked; merged.Held != p.Held {
				p.Held = true
				e.parked = &p
				a.tx.put(r.key, e, nil)
			}
			return done
		}
		next.Waiting = merged
	}
	s.w.say(s.r.id, "set aside: %s %s t%d %s of w%d %s", r.kind, r.ev.Op, r.key.table, r.key.key, widOf(r.row), conflict.StampText(r.ev.Stamp))
	e.parked = &next
	a.tx.put(r.key, e, nil)
	if lacks {
		a.in.s.wants(a.tx, r.key, r.ev.Stamp, next.origin, next.Held)
	}
	return done
}

// release takes out what is parked when an event at or above it is merged, or when its origin
// answers that it does not hold it any more.
func (a *applier) release(r *run, came conflict.Waiting, l conflict.Side, dec conflict.Decision) {
	e := a.tx.get(r.key)
	p := e.parked
	if p == nil {
		return
	}
	pol, of := a.in.s.r.db.tables[r.key.table].pol, a.waitingOf(r)
	other := p.origin != a.in.origin && p.origin != a.in.s.r.id
	switch {
	case a.follows(r, p) || dec.Verdict != conflict.Keep && pol.Releases(of, &p.Waiting, other):
		if !a.passedOver(r, came, l, p) {
			a.rival(r, came, p, true)
		}
		if a.in.self && !a.retries && p.origin != a.in.origin && dec.Verdict != conflict.Keep && pol.Undoes(of, &p.Waiting) {
			a.tx.repair(r.key)
		}
	case r.kind != conflict.Repair || !r.answer || p.Op == wal.Delete || p.Image.Complete() || !pol.Gone(&of, &p.Waiting):
		return
	case p.Held && p.origin != a.in.s.r.id:
		if r.asked != p.Stamp || a.in.self {
			return
		}
		if !a.denied(&e) {
			a.tx.put(r.key, e, nil)
			return
		}
	case p.origin == a.in.origin && (r.ev.Op != wal.Delete || !p.Born || r.asked == p.Stamp):
	case p.origin == a.in.s.r.id && p.origin != a.in.origin && r.asked == p.Stamp:
		if !a.denied(&e) {
			a.tx.put(r.key, e, nil)
			return
		}
	default:
		return
	}
	e.parked = nil
	a.tx.put(r.key, e, nil)
}

// denied notes that the peer at hand does not hold what an own change lacks, and reports whether all of
// them have said so.
func (a *applier) denied(e *entry) bool {
	p := *e.parked
	e.parked = &p
	p.denied |= 1 << a.in.origin
	for _, o := range a.in.s.w.regions {
		if o != a.in.s.r && p.denied&(1<<o.id) == 0 {
			return false
		}
	}
	return true
}

// strays notes that the origin has begun anew, and may not hold any more what waits here: it is held here.
func (a *applier) strays() outcome {
	d := a.in.s.r.db
	for i, tab := range d.tables {
		for n := range tab.conf.Keys {
			k := rowKey{i, keyText(n)}
			e := a.tx.get(k)
			if e.parked == nil || e.parked.origin != a.in.origin || e.parked.Held {
				continue
			}
			if !a.tx.holdParked(k) {
				return locked
			}
			p := *e.parked
			p.Held = true
			e.parked = &p
			a.tx.put(k, e, nil)
		}
	}
	return done
}

// follows reports whether a run is a later one of the origin of what waits.
func (a *applier) follows(r *run, old *parked) bool {
	return old.origin == a.in.origin && !a.retries && old.Ends(old.kind, r.kind)
}

// rival records the conflict of a run with what waits under its key.
func (a *applier) rival(r *run, came conflict.Waiting, old *parked, wins bool) {
	s := a.in.s
	t := s.r.db.tables[r.key.table]
	switch {
	case a.retries, a.in.self && (!wins || old.origin == a.in.origin):
		return
	case a.in.self:
		came.Base = wal.Base{}
	case old.origin == a.in.origin && wins && !old.Bypassed(&came, r.kind), old.origin == a.in.origin && !wins && !old.Held:
		return
	}
	waiting, remote, ok := t.pol.Rivals(&old.Waiting, &came)
	if !ok {
		return
	}
	lost := widOf(came.Image)
	if wins {
		lost = widOf(old.Image)
	}
	id := conflict.EventID(t.rel.Ref(), r.key.key, remote, waiting)
	a.lost(t, id, lost)
}

// passedOver records the conflict of what waits with the row that a later change of its origin was made over.
func (a *applier) passedOver(r *run, came conflict.Waiting, l conflict.Side, old *parked) bool {
	s := a.in.s
	t := s.r.db.tables[r.key.table]
	if a.in.self || a.retries || old.origin != a.in.origin || !old.Bypassed(&came, r.kind) || !r.ev.Overwrote(l) {
		return false
	}
	waiting, _, _ := t.pol.Rivals(&old.Waiting, &came)
	a.lost(t, conflict.EventID(t.rel.Ref(), r.key.key, waiting, l), widOf(old.Image))
	return true
}

// lost makes a record of what is lost beside the table, and the notices of it.
func (a *applier) lost(t *table, id [16]byte, lost int) {
	s := a.in.s
	a.tx.audit = append(a.tx.audit, record{id: id, lost: lost, self: a.in.self})
	for _, o := range s.w.regions {
		if o != s.r && (a.in.self || o.id == a.in.origin) {
			a.tx.notices = append(a.tx.notices, wal.Notice{Relation: t.rel, ID: id, To: o.name, Type: "parked"})
		}
	}
}

// retrier tries again what was set aside of one origin.
type retrier struct {
	a    applier
	life int // counts transactions
}

func newRetrier(in *inbound) *retrier {
	t := &retrier{a: applier{in: in, retries: true}}
	t.turn()
	return t
}

// turn looks now and then.
func (t *retrier) turn() {
	s := t.a.in.s
	s.after(s.w.span(200_000, 1_500_000), func() {
		t.turn()
		if t.a.tx != nil {
			return
		}
		var waits []rowKey
		for i, tab := range s.r.db.tables {
			for n := range tab.conf.Keys {
				k := rowKey{i, keyText(n)}
				if p := s.r.db.keys[k].parked; p != nil && p.origin == t.a.in.origin {
					waits = append(waits, k)
				}
			}
		}
		if len(waits) > 0 {
			t.try(waits[s.w.rng.IntN(len(waits))], false)
		}
	})
}

// end gives up the transaction at hand.
func (t *retrier) end() {
	t.life++
	if t.a.tx != nil && !t.a.tx.over() {
		t.a.tx.rollback()
	}
	t.a.tx = nil
	t.a.in.s.local.Settle(t.a.holder(), false)
}

// try applies one change in a transaction of its own. barrier says that own changes are known.
func (t *retrier) try(k rowKey, barrier bool) {
	a, s := &t.a, t.a.in.s
	w, d := s.w, s.r.db
	a.barrier = barrier
	a.tx = d.begin(true)
	e := a.tx.get(k)
	p := e.parked
	if p == nil || p.origin != a.in.origin || !a.tx.holdParked(k) {
		t.end()
		return
	}
	a.held = p.Held
	e.parked = nil // it must not count as waiting while it is being decided
	a.tx.put(k, e, nil)
	tab := d.tables[k.table]
	c := wal.Change{Op: p.Op, Relation: tab.rel, Stamp: p.Stamp, Base: p.Base, New: p.Image}
	switch {
	case p.Op == wal.Delete:
		c.New, c.Old, c.Brief = nil, tab.keyRow(k), p.Born
	case p.Born:
		c.Op = wal.Insert
	}
	one := *p.tx
	one.Changes, one.Notices, one.Part, one.More = []wal.Change{c}, nil, 0, false
	switch res := a.merge([]keyedTx{{&one, p.kind, nil}}); res {
	case done:
	case needOwn, needLater:
		t.end()
		t.await(k, res, d.insert, time.Now())
		return
	default:
		t.end()
		return
	}
	if !a.in.self && a.disturbed() {
		t.end()
		return
	}
	w.Stats.Retried++
	n, tx := t.life, a.tx
	s.after(w.span(20, 1500), func() { // the commit is on its way to the server
		if t.life != n || tx.over() {
			return
		}
		tx.commit(!w.cfg.Async).life = s.life
		s.local.Settle(a.holder(), true)
		a.tx = nil
		w.note(s.r.id, "retried", uint64(a.in.origin), 0)
		s.probe("retried", d.confirmed)
	})
}

// await waits for own changes.
func (t *retrier) await(k rowKey, res outcome, at wal.LSN, began time.Time) {
	s := t.a.in.s
	n := t.life
	s.after(s.w.span(3000, 12_000), func() {
		known := res == needOwn && s.local.MergedPast(at) || res == needLater && s.local.Done() >= at
		switch {
		case t.life != n || t.a.tx != nil:
		case known:
			t.try(k, res == needOwn)
		case time.Since(began) < barrierLimit:
			t.await(k, res, at, began)
		}
	})
}
