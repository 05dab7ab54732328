package apply

import (
	"context"
	"errors"
	"slices"
	"strconv"

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
