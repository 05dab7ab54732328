package sim

import (
	"maps"
	"slices"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/wal"
)

// dbtx is an open transaction. What it writes is visible to itself until it commits; the
// rows that it looked at are locked.
type dbtx struct {
	d       *database
	writes  map[rowKey]entry
	order   []rowKey // of writes
	locked  []rowKey
	changes []logChange
	cp      checkpoint.Checkpoint
	hasCP   bool
	audit   []int
	back    []*answer
	applied bool
}

func (d *database) begin(applied bool) *dbtx {
	t := &dbtx{d: d, applied: applied, writes: map[rowKey]entry{}}
	d.open = append(d.open, t)
	return t
}

// lock takes a row for this transaction, or reports that another has it.
func (t *dbtx) lock(k rowKey) bool {
	switch t.d.locks[k] {
	case nil:
		t.d.locks[k] = t
		t.locked = append(t.locked, k)
	case t:
	default:
		return false
	}
	return true
}

func (t *dbtx) get(k rowKey) entry {
	if e, ok := t.writes[k]; ok {
		return e
	}
	return t.d.keys[k]
}

// put replaces an entry; c is what the log says of it, nil for side tables only.
func (t *dbtx) put(k rowKey, e entry, c *logChange) {
	if _, ok := t.writes[k]; !ok {
		t.order = append(t.order, k)
	}
	t.writes[k] = e
	if c != nil {
		t.changes = append(t.changes, *c)
	}
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
	return dbtx{writes: maps.Clone(t.writes), order: slices.Clone(t.order), changes: slices.Clone(t.changes), audit: slices.Clone(t.audit), back: slices.Clone(t.back)}
}

func (t *dbtx) rollbackTo(p dbtx) {
	t.writes, t.order, t.changes, t.audit, t.back = p.writes, p.order, p.changes, p.audit, p.back
}

func (t *dbtx) rollback() { t.close() }

func (t *dbtx) over() bool { return !slices.Contains(t.d.open, t) }

// commit makes it visible and appends it to the log.
func (t *dbtx) commit(sync bool) *logTx {
	d := t.d
	d.xid++
	l := &logTx{xid: d.xid, at: d.now(), applied: t.applied, changes: t.changes, cp: t.cp, hasCP: t.hasCP, audits: len(t.audit), back: t.back}
	l.commit = d.insert + wal.LSN(1+8*len(t.changes)+d.w.rng.IntN(30))
	l.end = l.commit + 48
	d.insert = l.end
	for _, k := range t.order {
		l.undo = append(l.undo, undo{k, d.keys[k]})
		d.keys[k] = t.writes[k]
	}
	if t.hasCP {
		l.old = d.cps[t.cp.Origin]
		l.old.Origin = t.cp.Origin
		d.cps[t.cp.Origin] = t.cp
	}
	d.audit = append(d.audit, t.audit...)
	d.back = append(d.back, t.back...)
	d.log = append(d.log, l)
	t.close()
	if sync {
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
