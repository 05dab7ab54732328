package sim

import (
	"strconv"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// work starts the applications and the faults, and sees to the end of both.
func (w *World) work() {
	end := w.span(20_000, 1_500_000)
	for range w.cfg.Ops {
		r := w.regions[w.rng.IntN(len(w.regions))]
		w.after(w.span(0, int64(end/time.Microsecond)), func() { w.transaction(r, 0) })
	}
	w.planFaults(end)
	w.after(end+time.Millisecond, w.drain)
}

// transaction is one transaction of an application, committed and acknowledged.
func (w *World) transaction(r *region, attempt int) {
	d := r.db
	n := 1
	switch {
	case w.cfg.Giant && w.rng.IntN(8) == 0:
		n = 15 + w.rng.IntN(30)
	case w.rng.IntN(4) == 0:
		n = 2 + w.rng.IntN(3)
	}
	if w.cfg.Jumps && w.rng.IntN(10) == 0 {
		d.offset = w.rng.Int64N(2*w.cfg.Skew+1) - w.cfg.Skew
	}
	tx := d.begin(false)
	start := int64(d.now()) - w.rng.Int64N(3000) // now() is when the transaction began
	for range n {
		w.statement(tx, start)
	}
	if len(tx.changes) == 0 {
		tx.rollback()
		if len(d.locks) > 0 && attempt < 20 { // it waits for a lock
			w.after(w.span(1000, 20_000), func() { w.transaction(r, attempt+1) })
		}
		return
	}
	d.local++
	for i := range tx.changes {
		d.rows[r.name]++
		c := &tx.changes[i]
		if t := d.tables[c.table]; c.op == wal.Update && c.old != nil && t.keyText(c.old) != t.keyText(c.new) {
			d.rows[r.name]++ // a change of the key is a delete and an insert
		}
	}
	w.Stats.Transactions++
	l := tx.commit(true)
	w.note(r.id, "commit", uint64(l.end), uint64(len(l.changes)))
	for i := range l.changes {
		c := &l.changes[i]
		w.say(r.id, "%s t%d %s", c.op, c.table, show(c.old, c.new))
	}
}

func show(tuples ...wal.Tuple) string {
	var b strings.Builder
	for i, t := range tuples {
		if i > 0 {
			b.WriteString(" -> ")
		}
		for _, v := range t {
			switch v.Kind {
			case wal.Text:
				b.WriteString(string(v.Bytes[:min(len(v.Bytes), 40)]))
			default:
				b.WriteByte(byte(v.Kind))
			}
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// statement changes one row.
func (w *World) statement(tx *dbtx, start int64) {
	d := tx.d
	n := w.rng.IntN(len(d.tables))
	t := d.tables[n]
	pick := func() (string, rowKey) {
		key := strconv.Itoa(w.rng.IntN(t.conf.Keys))
		return w.spelled(t, key), rowKey{n, t.keyText(wal.Tuple{text(key)})}
	}
	key, k := pick()
	if !tx.lock(k) {
		return
	}
	e := tx.get(k)
	salt, roll := w.rng.IntN(10), w.rng.IntN(100)
	c := walChange{table: n}
	big := text(strings.Repeat("toast", 8) + strconv.Itoa(w.rng.IntN(100)))
	switch {
	case e.row == nil:
		v := int64(0)
		if t.conf.Stale && w.rng.IntN(4) == 0 {
			v = w.rng.Int64N(6)
		}
		wid := w.led.add(d.r.id, k, e.wid, true)
		c.op, c.new = wal.Insert, t.image(key, wid, salt, big, &v, &start)
		e.row, e.wid = c.new, wid
		tx.put(k, e, &c)
	case w.cfg.Deletes && roll < 25:
		wid := w.led.add(d.r.id, k, e.wid, false)
		c.op = wal.Delete
		c.old, c.full = t.old(e.row)
		e.row, e.wid = nil, wid
		tx.put(k, e, &c)
	case w.cfg.KeyChange && roll < 33:
		toKey, to := pick()
		if to == k || !tx.lock(to) || tx.get(to).row != nil {
			return
		}
		te := tx.get(to)
		gone, wid := w.led.add(d.r.id, k, e.wid, false), w.led.add(d.r.id, to, te.wid, true)
		v, at := w.rise(t, e.row, start)
		c.op = wal.Update
		c.old, c.full = t.old(e.row)
		whole := t.image(toKey, wid, salt, bigOf(t, e.row), v, at)
		c.new = unchanged(t, whole)
		e.row, e.wid = nil, gone
		tx.put(k, e, &c)
		te.row, te.wid = whole, wid
		tx.put(to, te, nil)
	default:
		wid := w.led.add(d.r.id, k, e.wid, true)
		v, at := w.rise(t, e.row, start)
		c.op = wal.Update
		if now := string(e.row[colKey].Bytes); !t.conf.Spelled || w.rng.IntN(4) > 0 {
			key = now
		} else if key != now {
			c.old, c.full = t.old(e.row) // the server takes it for a change of the key
		}
		if t.conf.Full {
			c.old, c.full = e.row, true
		}
		if w.rng.IntN(3) == 0 {
			c.new = t.image(key, wid, salt, big, v, at)
			e.row = c.new
		} else {
			e.row = t.image(key, wid, salt, bigOf(t, e.row), v, at)
			c.new = unchanged(t, e.row)
		}
		e.wid = wid
		tx.put(k, e, &c)
	}
}

// spelled is one of the texts of a key.
func (w *World) spelled(t *table, key string) string {
	if !t.conf.Spelled {
		return key
	}
	return [...]string{key, key + ".0", key + ".00"}[w.rng.IntN(3)]
}

// rise is what applications or their triggers make of the stamp columns.
func (w *World) rise(t *table, old wal.Tuple, start int64) (*int64, *int64) {
	s, err := conflict.StampOf(t.cols, t.rel, old, 0)
	w.must(err)
	version, at := s.Version, start
	if version == wal.NullVersion {
		version = 0
	}
	if t.conf.Bump {
		version++
	}
	if t.conf.Stale {
		switch w.rng.IntN(6) {
		case 0:
			version = w.rng.Int64N(6)
		case 1:
			at -= w.rng.Int64N(100_000)
		case 2:
			return nil, &at
		case 3:
			return &version, nil
		}
	}
	return &version, &at
}

func bigOf(t *table, row wal.Tuple) wal.Value {
	if !t.conf.Toast {
		return wal.Value{}
	}
	return row[2]
}

// unchanged is the image as the WAL has it when the large value was not touched.
func unchanged(t *table, row wal.Tuple) wal.Tuple {
	if !t.conf.Toast {
		return row
	}
	out := append(wal.Tuple(nil), row...)
	out[2] = wal.Value{Kind: wal.Unchanged}
	return out
}
