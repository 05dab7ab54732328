package sim

import (
	"maps"
	"slices"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// dbtx is an open transaction. What it writes is visible to itself until it commits; the
// rows that it looked at are locked. Where there is no row nothing is locked: an applier that
// looked there, and wrote beside the table only, does not keep an application from inserting.
type dbtx struct {
	d       *database
	writes  map[rowKey]entry
	touched map[rowKey]bool // rows that it wrote
	marked  map[rowKey]bool // entries beside the table that it wrote
	parks   map[rowKey]bool // what is set aside under these keys it has locked or written
	order   []rowKey        // of writes
	locked  []rowKey
	changes []walChange
	cp      checkpoint.Checkpoint
	hasCP   bool
	rows    int // changes of the origin that it applied
	audit   []record
	repairs []wal.Change // for the other regions
	notices []wal.Notice
	applied bool
	xid     uint32
	puts    []rowKey // where it put a row and found nothing
	sync    bool     // its commit waits for the disk, whoever asks
}

func (d *database) begin(applied bool) *dbtx {
	t := &dbtx{d: d, applied: applied, writes: map[rowKey]entry{}, touched: map[rowKey]bool{}, marked: map[rowKey]bool{}, parks: map[rowKey]bool{}}
	d.open = append(d.open, t)
	return t
}

// lock takes what there is of a key for this transaction, row or tombstone, or reports that
// another has it. Where there is nothing, nothing is locked: two appliers may look there at once.
func (t *dbtx) lock(k rowKey) bool {
	if e := t.d.keys[k]; t.applied && e.row == nil && e.tomb == nil && t.d.locks[k] != t {
		return t.d.late[k] == nil || t.race()
	}
	if t.d.late[k] != nil {
		if !t.applied || t.d.keys[k].row != nil {
			return false
		}
		t.race()
	}
	switch h := t.d.locks[k]; {
	case !t.applied && !t.claim(k, true):
		return false // an insert waits for another one
	case h == nil:
		t.d.locks[k] = t
		t.locked = append(t.locked, k)
	case h == t:
	case !t.applied && h.blind(k):
		t.race()
	default:
		return false
	}
	return true
}

func (t *dbtx) race() bool {
	t.d.w.Stats.Races++
	return true
}

// claim is what a write of a row, or of a tombstone, waits for: another transaction that has
// written one under the same key.
func (t *dbtx) claim(k rowKey, row bool) bool {
	for _, o := range t.d.open {
		if o == t {
			continue
		}
		if row && o.touched[k] || !row && o.marked[k] {
			return false
		}
	}
	return true
}

// blind reports whether the transaction of an applier found no row under a key and put none.
func (t *dbtx) blind(k rowKey) bool {
	return t.d.w.cfg.Blind && t.applied && !t.touched[k] && t.d.keys[k].row == nil
}

// get is what the transaction sees of a key.
func (t *dbtx) get(k rowKey) entry {
	e, ok := t.writes[k]
	now := t.d.keys[k]
	if !ok {
		return now
	}
	if t.applied && !t.touched[k] {
		e.row, e.wid, e.local = now.row, now.wid, now.local // somebody may have put a row there
	}
	if !t.marked[k] {
		e.tomb, e.stamp, e.stampd = now.tomb, now.stamp, now.stampd
	}
	if !t.parks[k] {
		e.parked = now.parked
	}
	e.items = union(e.items, now.items)
	return e
}

// put replaces an entry; c is what the WAL says of it, nil for side tables only.
func (t *dbtx) put(k rowKey, e entry, c *walChange) {
	if _, ok := t.writes[k]; !ok {
		t.order = append(t.order, k)
	}
	if now := t.get(k); e.tomb != now.tomb || e.stamp != now.stamp || e.stampd != now.stampd {
		t.marked[k] = true
	}
	if !t.applied {
		e.local = true
	}
	t.writes[k] = e
	if c != nil {
		t.touched[k] = true
		t.changes = append(t.changes, *c)
	}
}

// holdParked locks what is set aside under a key, or the place of it, until the transaction ends.
func (t *dbtx) holdParked(k rowKey) bool {
	for _, o := range t.d.open {
		if o != t && o.parks[k] {
			return false
		}
	}
	if e, ok := t.writes[k]; ok && !t.parks[k] {
		e.parked = t.d.keys[k].parked
		t.writes[k] = e
	}
	t.parks[k] = true
	return true
}

func (t *dbtx) close() {
	for _, k := range t.locked {
		delete(t.d.locks, k)
	}
	if i := slices.Index(t.d.open, t); i >= 0 {
		t.d.open = slices.Delete(t.d.open, i, i+1)
	}
}

// savepoint is what rollbackTo goes back to. Locks stay.
func (t *dbtx) savepoint() dbtx {
	return dbtx{
		writes: maps.Clone(t.writes), touched: maps.Clone(t.touched), marked: maps.Clone(t.marked), order: slices.Clone(t.order), changes: slices.Clone(t.changes),
		audit: slices.Clone(t.audit), repairs: slices.Clone(t.repairs), notices: slices.Clone(t.notices), puts: slices.Clone(t.puts),
	}
}

func (t *dbtx) rollbackTo(p dbtx) {
	t.writes, t.touched, t.marked, t.order, t.changes = p.writes, p.touched, p.marked, p.order, p.changes
	t.audit, t.repairs, t.notices, t.puts = p.audit, p.repairs, p.notices, p.puts
}

func (t *dbtx) rollback() { t.close() }

func (t *dbtx) over() bool { return !slices.Contains(t.d.open, t) }

// commit makes it visible and appends it to the WAL.
func (t *dbtx) commit(sync bool) *walTx {
	d := t.d
	d.xid++
	t.xid = d.xid
	l := &walTx{xid: d.xid, at: d.now(), applied: t.applied, changes: t.changes, cp: t.cp, hasCP: t.hasCP, rows: t.rows, audits: len(t.audit), repairs: t.repairs, notices: t.notices}
	l.commit = d.insert + wal.LSN(1+8*len(t.changes)+d.w.rng.IntN(30))
	l.end = l.commit + 48
	d.insert = l.end
	late := !t.applied && d.w.cfg.Blind && d.w.chance(300)
	for _, k := range t.order {
		if late {
			d.late[k] = t
			continue
		}
		e := t.get(k)
		l.undo = append(l.undo, undo{k, d.keys[k]})
		d.keys[k] = e
	}
	if late {
		d.w.after(d.w.span(50, 20_000), t.reveal)
	}
	if t.hasCP {
		l.old = d.cps[t.cp.Origin]
		l.old.Origin = t.cp.Origin
		d.cps[t.cp.Origin] = t.cp
		d.rows[t.cp.Origin] += t.rows
	}
	d.audit = append(d.audit, t.audit...)
	d.wal = append(d.wal, l)
	t.close()
	if sync || t.sync {
		d.flush()
	} else {
		n := d.lifetime
		d.w.after(d.w.span(1000, 200_000), func() {
			if n == d.lifetime {
				d.flush()
			}
		})
	}
	return l
}

// reveal makes a transaction of an application visible that is on disk, and may be decoded,
// for a while: the server waits for a standby, or is just slow.
func (t *dbtx) reveal() {
	d := t.d
	for _, k := range t.order {
		if d.late[k] != t {
			continue // a restart was faster
		}
		delete(d.late, k)
		put := func(e entry) entry {
			e.row, e.wid, e.local = t.writes[k].row, t.writes[k].wid, true
			return e
		}
		d.keys[k] = put(d.keys[k])
		for _, l := range d.wal[d.flushed:] {
			for i := range l.undo {
				if l.undo[i].key == k {
					l.undo[i].old = put(l.undo[i].old)
				}
			}
		}
	}
}

// unseen are the transactions that are committed and not visible.
func (d *database) unseen() (ids []uint32) {
	for _, t := range d.late {
		ids = append(ids, t.xid)
	}
	return ids
}

// revealAll is what a restart does.
func (d *database) revealAll() {
	for len(d.late) > 0 {
		for _, t := range d.late {
			t.reveal()
			break
		}
	}
}

// union joins two lists of items, by position.
func union(a, b []conflict.Item) []conflict.Item {
	out := slices.Clone(a)
	for _, it := range b {
		if i := slices.IndexFunc(out, func(o conflict.Item) bool { return o.LSN == it.LSN }); i >= 0 {
			out[i] = out[i].Join(it)
		} else {
			out = append(out, it)
		}
	}
	return out
}
