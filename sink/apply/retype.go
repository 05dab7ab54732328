package apply

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/wal"
)

// retype gives a parked change whose key has the same columns, of other types, the types that they have
// by now: the region here and the origin have altered them, one after the other. It reports false where
// that is something else, or where a value of the key may be written otherwise in the new type.
func (r *Retrier) retype(ctx context.Context, ch *wal.Change, key []wal.Column) (*target, bool, error) {
	was := ch.Relation.KeyColumns()
	if len(was) != len(key) || len(key) == 0 || ch.Keys != nil {
		return nil, false, nil
	}
	rel := *ch.Relation
	rel.Columns = slices.Clone(rel.Columns)
	images := []*wal.Tuple{&ch.New, &ch.Old}
	fresh := []wal.Tuple{slices.Clone(ch.New), slices.Clone(ch.Old)}
	for n, i := range was {
		c, k := &rel.Columns[i], key[n]
		if c.Name != k.Name || c.Form != wal.FormPlain || k.Form != wal.FormPlain {
			return nil, false, nil
		}
		if c.OID == k.OID {
			continue
		}
		for _, image := range fresh {
			if image == nil || image[i].Absent() || image[i].Kind == wal.Null {
				continue
			}
			text := wal.TextOf(c.OID, image[i])
			if text == nil || !printsAlike(c.OID, k.OID, *text) {
				return nil, false, nil
			}
			image[i] = wal.Value{Kind: wal.Text, Bytes: []byte(*text)}
		}
		c.OID, c.Type, c.TypeMod = k.OID, k.Type, k.TypeMod
	}
	t, err := r.a.target(ctx, r.intern(&rel))
	if errors.As(err, new(*schemaError)) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	for n := range images {
		if *images[n] != nil {
			*images[n] = fresh[n]
		}
	}
	ch.Relation = r.intern(&rel)
	return t, true, nil
}

// printsAlike reports whether a value that prints as text in one type prints so in another one too, once
// it was converted.
func printsAlike(from, to uint32, text string) bool {
	number := func(oid uint32) bool { return integer(oid) || oid == wal.OIDNumeric }
	words := func(oid uint32) bool { return oid == wal.OIDText || oid == oidVarchar }
	n, err := strconv.ParseInt(text, 10, 64)
	whole := err == nil && strconv.FormatInt(n, 10) == text
	switch {
	case integer(from) && words(to), words(from) && words(to):
		return true
	case number(from) && number(to), words(from) && number(to), number(from) && words(to):
		return whole
	case from == wal.OIDUUID && words(to):
		return true
	}
	return false
}

// A column may get a type in its region and then another one before the other region follows: what was written between is
// no value of the new type, or not the one that the origin has made of it. So the origin is asked for its rows, as for
// columns that are gone. A label of an enum that is renamed, or an attribute of a composite type that is dropped, changes no description of a
// table. So where such a value is none here (conflict.Waiting.Unread), the origin is asked as well, ever more seldom, until it has followed; or this region does.

// retyped returns how the origin of a parked change describes its table by now, where the change does not go in for its
// values (state), and columns of it have other types there since, or may have other values; else nil.
func (r *Retrier) retyped(ctx context.Context, id int64, state string) (*wal.Relation, error) {
	if r.a.cfg.Self || !ofValues(state) {
		return nil, nil
	}
	changes, err := parked.Read(ctx, r.a.conn, []int64{id})
	if err != nil || len(changes) == 0 {
		return nil, err
	}
	was := changes[0].Waiting.Relation
	changes[0].State = state
	unread, now := changes[0].Unread(), r.a.cfg.Suspects.shapes.of(was.Ref())
	if now == nil && unread {
		now = was
	}
	if now == nil || !sameKeyColumns(was, now) || !unread && !altered(was, now) {
		return nil, nil
	}
	if _, err := r.a.target(ctx, r.intern(now)); err != nil {
		if errors.As(err, new(*schemaError)) {
			return nil, nil // an answer would not go in either
		}
		return nil, err
	}
	return now, nil
}

// ofValues reports whether an SQLSTATE says that a column does not take a value, or stores another one.
func ofValues(state string) bool {
	return len(state) == 5 && (state[:2] == "22" || state == stateOtherValue || state == "42804" || state == "42846")
}
