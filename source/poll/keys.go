package poll

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Keys gathers which rows of a table the WAL says were written. What they are by now is read from the table: so the
// same WAL may come any number of times, values that it lacks are no matter, and many changes of one row are one.
type Keys struct {
	table *Table
	at    map[*wal.Relation][]int // where the key's columns are
	seen  map[string]struct{}
	list  [][]string
	// Truncated: the table was emptied at once.
	Truncated bool
}

// Keys begins an empty set.
func (t *Table) Keys() *Keys {
	return &Keys{table: t, at: map[*wal.Relation][]int{}, seen: map[string]struct{}{}}
}

// Len is the number of different keys.
func (k *Keys) Len() int { return len(k.list) }

// Clear forgets all of them.
func (k *Keys) Clear() {
	clear(k.seen)
	clear(k.at) // descriptions do not come to an end
	k.list, k.Truncated = nil, false
}

// Add takes a change of the table. An error says that its key cannot be told: a column of the key has another name by now, or
// the table another replica identity. Then what changed has to be found in another way.
func (k *Keys) Add(ch *wal.Change) error {
	if ch.Op == wal.Truncate {
		k.Truncated = true
		return nil
	}
	places, ok := k.at[ch.Relation]
	if !ok {
		for i := range k.table.key.Columns {
			at := ch.Relation.Column(k.table.key.Columns[i].Name)
			if at < 0 {
				return fmt.Errorf("the WAL does not name column %q of the key of %s", k.table.key.Columns[i].Name, k.table.Rel)
			}
			places = append(places, at)
		}
		k.at[ch.Relation] = places
	}
	for _, row := range []wal.Tuple{ch.Old, ch.New} {
		if row == nil {
			continue
		}
		key, text := make([]string, len(places)), []byte(nil)
		for n, i := range places {
			if row[i].Kind != wal.Text {
				return fmt.Errorf("the WAL does not hold column %q of the key of %s", ch.Relation.Columns[i].Name, k.table.Rel)
			}
			key[n] = string(row[i].Bytes)
			text = append(binary.AppendUvarint(text, uint64(len(key[n]))), key[n]...)
		}
		if _, ok := k.seen[string(text)]; !ok {
			k.seen[string(text)] = struct{}{}
			k.list = append(k.list, key)
		}
	}
	return nil
}

// Read reads the rows of the keys from the source, as they are in the snapshot of conn. gone are the keys that have none.
func (k *Keys) Read(ctx context.Context, conn *pgx.Conn) (rows []wal.Tuple, gone [][]string, err error) {
	found, err := k.table.rowsOf(ctx, conn, k.table.from, k.list)
	if err != nil {
		return nil, nil, err
	}
	for i, row := range found {
		if row == nil {
			gone = append(gone, k.list[i])
		} else {
			rows = append(rows, row)
		}
	}
	return rows, gone, nil
}

// Gone makes deletes of those rows of the destination that have these keys. at is the source's clock at the reading.
func (t *Table) Gone(ctx context.Context, destination *pgx.Conn, keys [][]string, at wal.Micros) ([]wal.Change, error) {
	found, err := t.rowsOf(ctx, destination, t.to, keys)
	if err != nil {
		return nil, err
	}
	var rows []wal.Tuple
	for _, row := range found {
		if row != nil {
			rows = append(rows, row)
		}
	}
	return t.deletes(ctx, destination, rows, at)
}

// rowsOf reads the rows of some keys, nil where there is none.
func (t *Table) rowsOf(ctx context.Context, conn *pgx.Conn, shape statement.Shape, keys [][]string) ([]wal.Tuple, error) {
	out := make([]wal.Tuple, len(keys))
	if len(keys) == 0 {
		return out, nil
	}
	args := make([][]byte, len(t.Rel.PrimaryKey))
	for n := range args {
		column := make([]string, len(keys))
		for i := range keys {
			column[i] = keys[i][n]
		}
		text, err := conn.TypeMap().Encode(pgtype.TextArrayOID, pgtype.TextFormatCode, column, nil)
		if err != nil {
			return nil, fmt.Errorf("read rows of %s: %w", t.Rel, err)
		}
		args[n] = text
	}
	rr := conn.PgConn().ExecParams(ctx, statement.Read(shape, t.names), args, nil, nil, nil)
	for rr.NextRow() {
		values := rr.Values()
		n, err := strconv.Atoi(string(values[0]))
		if err != nil || n < 1 || n > len(out) {
			rr.Close()
			return nil, fmt.Errorf("read rows of %s: row %s is none of those asked for", t.Rel, strings.ToValidUTF8(string(values[0]), "?"))
		}
		out[n-1] = tuple(values[1:])
	}
	if _, err := rr.Close(); err != nil {
		return nil, fmt.Errorf("read rows of %s: %w", t.Rel, err)
	}
	return out, nil
}
