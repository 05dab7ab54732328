package sim

import (
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Large values that an update did not touch are not in the WAL. The pipe names them by their
// digests, as the tables are when it comes to them; a receiver whose row has other values sets
// the change aside and asks.

// colBig is the large value of tables that have one.
const colBig = 2

// values is what source/complete does behind the stamper.
func (o *outbound) values(tx *wal.Transaction) {
	s := o.s
	d, w := s.r.db, s.w
	var out []wal.Change
	for _, c := range tx.Changes {
		if c.New == nil || c.New.Complete() {
			out = append(out, c)
			continue
		}
		k := s.keyOf(&c)
		if t := d.late[k]; t != nil {
			t.reveal() // it is waited for
		}
		e := d.keys[k]
		row := e.row
		if row == nil {
			// Its delete follows, or a higher one comes from another region; unless something lower
			// was written over it before it was known.
			// A time, or a generation, that was lifted has to be written down: later ones are lifted above it.
			t := d.tables[k.table]
			if w.cfg.Break != RowsGone && t.pol.Outlives(&c, tx.CommitTime, d.side(k, e)) || c.Raised || t.conf.stampless() && c.Stamp.UpdatedAt != tx.CommitTime {
				out = append(out, c)
			}
			continue
		}
		image := append(wal.Tuple(nil), c.New...)
		switch {
		case w.chance(20): // it could not be read
		case c.Op == wal.Insert && !w.chance(200):
			image[colBig] = row[colBig]
		default:
			image[colBig] = wal.Digested(row[colBig].Bytes)
		}
		c.New = image
		out = append(out, c)
	}
	tx.Changes = out
}

// complete fills an image from the row that is here, where its digest names the value.
func (a *applier) complete(r *run, e entry) {
	if r.row == nil {
		return
	}
	if a.in.s.w.cfg.Break == NoDigests && e.row != nil {
		r.row = r.row.Filled(e.row)
	}
	if r.sent == nil {
		r.sent = r.row
	}
	r.row = r.sent
	r.ev.Complete = r.row.CompleteOver(e.row)
	r.ev.Filled = r.ev.Complete && !r.row.Complete()
	if r.ev.Complete && e.row != nil {
		r.row = r.row.Filled(e.row)
	}
	r.ev.Content = nil
	image := r.row
	if a.in.self && e.row != nil {
		image = r.row.Filled(e.row)
	}
	if content, ok := conflict.Content(a.in.s.r.db.tables[r.key.table].rel, image); ok {
		r.ev.Content = content
	}
}

func (a *applier) waitingOf(r *run) conflict.Waiting {
	w := conflict.Waiting{Relation: a.in.s.r.db.tables[r.key.table].rel, Op: r.ev.Op, Born: r.ev.Born, Base: r.ev.Base, Stamp: r.ev.Stamp, Image: r.sent}
	if w.Image == nil {
		w.Image = r.row
	}
	return w
}

// want asks a region for what it holds.
func (t *dbtx) want(k rowKey, at wal.Stamp, of int) {
	tab := t.d.tables[k.table]
	t.notices = append(t.notices, wal.Notice{Relation: tab.rel, To: t.d.w.regions[of].name, Outcome: wal.Wanted,
		Yours: wal.Entry{Known: true, Alive: true, Stamp: at, Row: tab.keyRow(k)}})
}

// wants asks for what is held under the key of a change that is set aside: its origin, or the peers if
// that is this region or the change is held here.
func (s *sidecar) wants(t *dbtx, k rowKey, at wal.Stamp, origin int, held bool) {
	if origin != s.r.id && !held {
		t.want(k, at, origin)
		return
	}
	for _, o := range s.w.regions {
		if o != s.r {
			t.want(k, at, o.id)
		}
	}
}

// answer tells those that ask, and hears from those who know nothing.
func (a *applier) answer(txs []keyedTx) outcome {
	s := a.in.s
	if a.in.self {
		return done
	}
	for _, t := range txs {
		for i := range t.tx.Notices {
			n := &t.tx.Notices[i]
			if n.To != s.r.name || n.Outcome != wal.Wanted && n.Outcome != wal.Absent {
				continue
			}
			tab := tableOf(n.Relation.Ref())
			k := rowKey{tab, s.r.db.tables[tab].keyText(n.Yours.Row)}
			if n.Outcome == wal.Absent {
				if res := a.absent(k, n.Yours.Stamp); res != done {
					return res
				}
				continue
			}
			if !a.tx.lock(k) {
				return locked
			}
			if !a.barrier {
				return needOwn
			}
			if a.tx.get(k).parked != nil && !a.tx.holdParked(k) {
				return locked
			}
			unseen := s.local.Unseen(s.r.db.unseen())
			c := a.tx.held(k)
			switch e := a.tx.get(k); {
			case c != nil && !a.overdue && (c.Op != wal.Delete || !unseen):
				c.Answer, c.Asked = true, n.Yours.Stamp
			case c == nil && e.row == nil && !e.entry() && e.parked == nil && !a.overdue && !unseen:
				a.tx.notices = append(a.tx.notices, wal.Notice{Relation: n.Relation, To: a.name(), Outcome: wal.Absent, Yours: n.Yours})
			}
		}
	}
	return done
}

// absent ends the waiting of a change that lacks values, where who might have them knows nothing of its key.
func (a *applier) absent(k rowKey, asked wal.Stamp) outcome {
	e := a.tx.get(k)
	p := e.parked
	if p == nil || p.Op == wal.Delete || p.Image.Complete() || p.Stamp != asked || !p.Held && p.origin != a.in.origin && p.origin != a.in.s.r.id {
		return done
	}
	if !a.tx.holdParked(k) {
		return locked
	}
	if !p.Held && p.origin == a.in.origin || a.denied(&e) {
		e.parked = nil
	}
	a.tx.put(k, e, nil)
	return done
}

// held is what a region holds under a key: what it shows, or what it has set aside above that.
func (t *dbtx) held(k rowKey) *wal.Change {
	tab, e := t.d.tables[k.table], t.get(k)
	l, p := t.d.side(k, e), e.parked
	if p == nil || l.Known && tab.pol.Compare(p.Stamp, l.Stamp) < 0 || l.Known && p.Stamp == l.Stamp && (!l.Alive || p.Op == wal.Delete) {
		return t.repair(k)
	}
	c := wal.Change{Op: wal.Delete, Relation: tab.rel, Old: tab.keyRow(k), Stamp: p.Stamp, Repair: true}
	if p.Op != wal.Delete {
		whole := p.Image.CompleteOver(e.row)
		if l.Known && p.Stamp == l.Stamp { // the contents decide which of the two will be shown
			if !p.Image.Complete() && (!whole || p.kind != conflict.Self) {
				return t.repair(k) // it waits itself for its origin to say that the row here completes it
			}
			waiting := conflict.Side{Known: true, Alive: true, Stamp: p.Stamp}
			waiting.Content, _ = conflict.Content(tab.rel, p.Image.Filled(e.row))
			if tab.pol.CompareSides(waiting, l) <= 0 {
				return t.repair(k)
			}
		}
		if !whole {
			if p.Image.Complete() {
				return nil
			}
			return t.repair(k)
		}
		c.Op, c.Old, c.New = wal.Update, nil, p.Image
		if e.row != nil {
			c.New = p.Image.Filled(e.row)
		}
	}
	told := *p // it has to stay what it is told to be
	told.Held = true
	if p.Op != wal.Delete {
		told.Image = c.New
	}
	e.parked = &told
	t.put(k, e, nil)
	t.d.w.Stats.Pushbacks++
	t.repairs = append(t.repairs, c)
	return &t.repairs[len(t.repairs)-1]
}

// asks reports whether changes may have to be asked for.
func (w *World) asks() bool {
	for _, t := range w.cfg.Tables {
		if t.Toast && (!t.Full || t.Mixed) {
			return true
		}
	}
	return false
}

// askAgain is what the retrier does for changes that wait for long.
func (s *sidecar) askAgain() {
	s.after(s.w.span(3_000_000, 8_000_000), func() {
		d := s.r.db
		t := d.begin(true)
		for i, tab := range d.tables {
			for n := range tab.conf.Keys {
				k := rowKey{i, keyText(n)}
				if p := d.keys[k].parked; p != nil && p.Op != wal.Delete && !p.Image.Complete() {
					s.wants(t, k, p.Stamp, p.origin, p.Held)
				}
			}
		}
		if len(t.notices) > 0 {
			t.commit(true).life = s.life
		} else {
			t.rollback()
		}
		s.askAgain()
	})
}
