package poll

import (
	"context"
	"encoding/binary"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Written is the keys of the rows that were written since a copy of a table began, but for those that Instead has brought. A key is
// some 40 bytes of memory.
type Written struct {
	table *Table
	keys  map[[16]byte]struct{}
}

// Written reads them, within the open transaction of conn, in which Instead and Changed have to be called as well.
func (t *Table) Written(ctx context.Context, conn *pgx.Conn, s *State, limit int) (*Written, error) {
	w := &Written{t, map[[16]byte]struct{}{}}
	var names []string
	for _, i := range t.Rel.PrimaryKey {
		names = append(names, t.names[i])
	}
	return w, t.changed(ctx, conn, names, s, false, limit, func(rows []wal.Tuple) error {
		for _, row := range rows {
			key := make([]string, len(row))
			for i := range row {
				key[i] = string(row[i].Bytes)
			}
			w.keys[keyDigest(key)] = struct{}{}
		}
		return nil
	})
}

// Instead splits off the staged rows that were written since, and returns them as they are now. The others are as they were read.
func (w *Written) Instead(ctx context.Context, conn *pgx.Conn, staged []wal.Tuple) (same, now []wal.Tuple, err error) {
	if len(w.keys) == 0 {
		return staged, nil, nil
	}
	var keys [][]string
	for _, row := range staged {
		key := w.table.keyOf(row)
		d := keyDigest(key)
		if _, ok := w.keys[d]; !ok {
			same = append(same, row)
			continue
		}
		delete(w.keys, d)
		keys = append(keys, key)
	}
	found, err := w.table.rowsOf(ctx, conn, w.table.from, keys)
	if err != nil {
		return nil, nil, err
	}
	for _, row := range found {
		if row != nil {
			now = append(now, row)
		}
	}
	return same, now, nil
}

// Left returns those of some changed rows that Instead has not brought.
func (w *Written) Left(changed []wal.Tuple) (rows []wal.Tuple) {
	for _, row := range changed {
		if _, ok := w.keys[keyDigest(w.table.keyOf(row))]; ok {
			rows = append(rows, row)
		}
	}
	return rows
}

func keyDigest(key []string) [16]byte {
	var text []byte
	for _, k := range key {
		text = append(binary.AppendUvarint(text, uint64(len(k))), k...)
	}
	return conflict.Digest(text)
}
