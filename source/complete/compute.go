package complete

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// compute fills in the generated columns that the log does not hold, in new images and in full
// old ones.
func compute(ctx context.Context, conn *pgx.Conn, t *table, rel *wal.Relation, changes []*wal.Change) error {
	var rows []wal.Tuple
	for _, ch := range changes {
		if ch.New != nil {
			rows = append(rows, ch.New)
		}
		if ch.Old != nil {
			if !ch.OldFull {
				return fmt.Errorf("its key is generated, and the log does not hold the old row: run `alter table ... replica identity full`")
			}
			rows = append(rows, ch.Old)
		}
	}
	exprs := make([]string, len(t.computed))
	for i := range exprs {
		exprs[i] = t.computed[i].Generated
	}
	images := make([]string, len(rows))
	for i, row := range rows {
		var err error
		if images[i], err = asJSON(rel, row); err != nil {
			return err
		}
	}
	found, err := conn.Query(ctx, statement.Compute(statement.Table(rel.Schema, rel.Name), exprs), images)
	if err != nil {
		return fmt.Errorf("compute generated columns: %w", err)
	}
	defer found.Close()
	n, first := 0, rel.Sent()
	for found.Next() {
		for i, v := range found.RawValues() {
			if v != nil {
				rows[n][first+i] = wal.Value{Kind: wal.Text, Bytes: append([]byte{}, v...)}
			}
		}
		n++
	}
	if err := found.Err(); err != nil {
		return fmt.Errorf("compute generated columns: %w", err)
	}
	if n != len(rows) {
		return fmt.Errorf("compute generated columns: %d answers to %d questions", n, len(rows))
	}
	return nil
}

// asJSON is a row as an object whose values are strings, which the server turns into a row by
// the input functions of its types.
func asJSON(rel *wal.Relation, row wal.Tuple) (string, error) {
	o := make(map[string]*string, len(row))
	for i := range rel.Columns[:rel.Sent()] {
		if row[i].Kind != wal.Text {
			if row[i].Kind != wal.Null {
				return "", fmt.Errorf("compute generated columns: column %s is not there as text", rel.Columns[i].Name)
			}
			continue
		}
		s := string(row[i].Bytes)
		o[rel.Columns[i].Name] = &s
	}
	b, err := json.Marshal(o)
	return string(b), err
}
