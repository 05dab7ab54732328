package apply

import (
	"context"
	"maps"

	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// target returns the mapping of a relation onto the local table.
func (a *Applier) target(ctx context.Context, rel *wal.Relation) (*target, error) {
	if t := a.targets[rel]; t != nil {
		same, err := t.schema.current(ctx, a.conn)
		if err != nil {
			return nil, err
		}
		if same {
			a.touch(t)
			return t, nil
		}
		delete(a.tables, rel.Ref())
		maps.DeleteFunc(a.targets, func(_ *wal.Relation, x *target) bool { return x.schema == t.schema })
	}
	s := a.tables[rel.Ref()]
	if s == nil || s.rel != rel {
		// Another description of the table: it was changed there, and perhaps here too.
		var err error
		if s, err = loadSchema(ctx, a.conn, rel.Ref(), a.cfg.Replica); err != nil {
			delete(a.oids, rel.Ref())
			return nil, err
		}
		if a.cfg.Named != nil {
			if err := a.cfg.Named(ctx, s.oid, rel.Ref()); err != nil {
				return nil, side(err)
			}
		}
		a.oids[rel.Ref()] = s.oid
		if !a.cfg.Replica && a.cfg.Ordinary != nil {
			if s.references, err = a.loadReferences(ctx, a.conn, rel.Ref()); err != nil {
				return nil, err
			}
		}
		s.rel = rel
		a.tables[rel.Ref()] = s
	}
	var t *target
	err := a.elsewhere(ctx, rel, s)
	if err == nil {
		t, err = newTarget(s, rel, a.cfg.Policy)
	}
	if err == nil {
		t.matched, err = a.match(rel, s)
	}
	if err != nil {
		delete(a.tables, rel.Ref())
		return nil, err
	}
	if len(a.targets) > 4096 {
		clear(a.targets)
	}
	a.targets[rel] = t
	a.touch(t)
	return t, nil
}

// touch notes that the attempt in hand relies on the definition.
func (a *Applier) touch(t *target) {
	s := t.schema
	a.named[s] = struct{}{}
	if t.matched != nil {
		a.matching[t] = struct{}{}
	}
	a.settings.on = a.settings.on || s.disturbs
	if s.immediate {
		a.touched[s.oid] = struct{}{}
	}
}

// forgetSchemas makes the next attempt read the catalog again.
func (a *Applier) forgetSchemas() {
	clear(a.tables)
	clear(a.targets)
}

// array hands out a parameter buffer for a column; it stays in use until the pipeline it is
// in was sent.
func (a *Applier) array(p statement.Param, t *target, c int) *array {
	oid := uint32(wal.OIDText)
	if p.Digest {
		oid = wal.OIDBytea
	} else if p.Binary {
		oid = t.rel.Columns[c].OID
	}
	return a.scratch(oid)
}

func (a *Applier) scratch(oid uint32) *array {
	if a.used == len(a.arrays) {
		a.arrays = append(a.arrays, make([]array, 64)...)
	}
	arr := &a.arrays[a.used]
	a.used++
	if cap(arr.buf) > 4<<20 {
		arr.buf = nil // a giant row must not keep its memory
	}
	arr.reset(oid)
	return arr
}
