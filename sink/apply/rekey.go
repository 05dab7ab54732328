package apply

import (
	"context"
	"errors"
	"slices"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Both regions may give a table another key while changes that name their rows by the old one are
// under way. They are parked, since nothing here is known by that key. When a later change of the
// table comes by the key that the table has here, they go in by it, too: a row says what its new key
// is. A delete does so only with the whole old row; without it see deleteByOldKey.

// otherKey is the SQLSTATE of changes whose key is not that of the table here.
const otherKey = "42P10"

// rekey gives a parked change the key that its table has by now. It returns refused where that cannot
// be done, and what deleteByOldKey says of a delete.
func (r *Retrier) rekey(ctx context.Context, c *parked.Change, refused error) (*target, error) {
	ch := &c.Transaction.Changes[0]
	key, err := r.keyNow(ctx, ch.Relation)
	if err != nil || key == nil {
		return nil, errors.Join(err, refused)
	}
	if t, ok, err := r.retype(ctx, ch, key); ok || err != nil {
		return t, err
	}
	rel := byKey(ch.Relation, key)
	if rel == nil {
		return nil, refused
	}
	rel = r.intern(rel)
	t, err := r.a.target(ctx, rel)
	if err != nil {
		return nil, refused
	}
	// From here on it is about this change; others of its table may go in.
	stays := &stillParked{why: reason{otherKey, refused.Error()}}
	if ch.Op == wal.Delete && !ch.OldFull && ch.Keys == nil && ch.Relation.KeyColumns() != nil {
		return nil, r.deleteByOldKey(ctx, c, t, stays)
	}
	image := ch.New
	if ch.Op == wal.Delete && ch.OldFull {
		image = ch.Old
	}
	if ch.Keys != nil || !names(rel, image) {
		return nil, stays
	}
	if ch.Relation.KeyColumns() == nil {
		if err := r.stampByKey(c.Transaction, rel); err != nil {
			return nil, stays
		}
	} else if other, err := r.otherRow(ctx, t, ch.Relation, image); err != nil || other {
		return nil, stays
	}
	ch.Relation = rel
	return t, nil
}

// keyNow is the key by which the origin of a change names rows of its table by now, as columns of
// such a relation; nil when it is not known.
func (r *Retrier) keyNow(ctx context.Context, rel *wal.Relation) ([]wal.Column, error) {
	var key []wal.Column
	if !r.a.cfg.Self {
		if now := r.a.cfg.Suspects.shapes.of(rel.Ref()); now != nil {
			for _, k := range now.KeyColumns() {
				key = append(key, now.Columns[k])
			}
		}
		return key, nil
	}
	// The table here is that of the origin.
	s, err := loadSchema(ctx, r.a.conn, rel.Ref(), r.a.cfg.Replica)
	if err != nil {
		return nil, err
	}
	for i := range s.key.Columns {
		key = append(key, wal.Column{Name: s.key.Columns[i].Name, OID: s.key.Columns[i].OID, Form: s.key.Columns[i].Form})
	}
	return key, nil
}

// byKey describes a table with another key; nil when it lacks a column of that, or when the server
// would have to be asked for the key's text.
func byKey(rel *wal.Relation, key []wal.Column) *wal.Relation {
	out := *rel
	out.Columns, out.PrimaryKey = slices.Clone(rel.Columns), nil
	for i := range out.Columns {
		out.Columns[i].Form = wal.FormPlain
	}
	for _, k := range key {
		i := out.Column(k.Name)
		if i < 0 || out.Columns[i].OID != k.OID || k.Form.Asked() {
			return nil
		}
		out.Columns[i].Form = k.Form
		out.PrimaryKey = append(out.PrimaryKey, i)
	}
	return &out
}

// names reports whether an image has every value of a relation's key.
func names(rel *wal.Relation, image wal.Tuple) bool {
	return len(image) == len(rel.Columns) && !slices.ContainsFunc(rel.KeyColumns(), func(k int) bool {
		return image[k].Absent() || image[k].Kind == wal.Null
	})
}

// stampByKey stamps the change of a transaction that was made without a key.
func (r *Retrier) stampByKey(tx *wal.Transaction, rel *wal.Relation) error {
	ch := &tx.Changes[0]
	moved := *ch
	moved.Relation = rel
	if _, _, changes := conflict.SplitKeyChange(moved); changes || ch.Op == wal.Update && !ch.OldFull {
		return errors.New("the change has two keys, or may have")
	}
	p := r.a.cfg.Policy.table(rel.Ref())
	if _, err := conflict.StampChange(p.Resolve, conflict.ColumnsOf(rel, p.Version, p.UpdatedAt), &moved, tx.CommitTime, 0); err != nil {
		return err
	}
	if ch.Stamp, ch.Base = moved.Stamp, moved.Base; ch.Op == wal.Update {
		ch.Old, ch.OldFull = nil, false
	}
	return nil
}

// otherRow reports whether a row stands under the old key of a change that is another one by the
// new key: the change may have moved it, or may have nothing to do with it.
func (r *Retrier) otherRow(ctx context.Context, t *target, old *wal.Relation, image wal.Tuple) (bool, error) {
	rows, err := r.byColumns(ctx, t, old.KeyColumns(), image, t.key)
	if err != nil {
		return false, err
	}
	for _, row := range rows {
		for _, c := range t.key {
			is := wal.TextOf(t.rel.Columns[c].OID, image[c])
			if is == nil || row[c].Kind == wal.Null || *is != string(row[c].Bytes) {
				return true, nil
			}
		}
	}
	return false, nil
}
