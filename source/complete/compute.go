package complete

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// errNoKey says that the WAL lacks what the generated key of a change is computed from: the table
// had not the replica identity FULL.
var errNoKey = errors.New("its key is generated, and the WAL does not hold what it is made of")

// compute fills in the generated columns that the WAL does not hold, in new images and in full
// old ones.
func compute(ctx context.Context, conn *pgx.Conn, t *table, rel *wal.Relation, changes []*wal.Change) error {
	var rows []wal.Tuple
	for _, ch := range changes {
		if ch.New != nil {
			rows = append(rows, ch.New)
		}
		if ch.Old != nil {
			if !ch.OldFull {
				return errNoKey
			}
			rows = append(rows, ch.Old)
		}
	}
	exprs := make([]string, len(t.computed))
	for i := range exprs {
		exprs[i] = t.computed[i].Generated
	}
	columns, err := columnsOf(ctx, conn, rel)
	if err != nil {
		return err
	}
	images := make([]string, len(rows))
	for i, row := range rows {
		if images[i], err = rowText(rel, columns, row); err != nil {
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

// columnsOf lists for each column of the table, in the order of its row type, where rel has it;
// -1 for those that the WAL does not hold.
func columnsOf(ctx context.Context, conn *pgx.Conn, rel *wal.Relation) ([]int, error) {
	rows, err := conn.Query(ctx, `select a.attname::text from pg_catalog.pg_attribute a
join pg_catalog.pg_class c on c.oid = a.attrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relname = $2 and a.attnum > 0 and not a.attisdropped order by a.attnum`, rel.Schema, rel.Name)
	if err != nil {
		return nil, fmt.Errorf("read columns: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read columns: %w", err)
	}
	places := make([]int, len(names))
	for i, name := range names {
		if places[i] = rel.Column(name); places[i] >= rel.Sent() {
			places[i] = -1
		}
	}
	return places, nil
}

// rowText prints a row as the input function of the table's row type reads it. The columns that
// the WAL does not hold are NULL.
func rowText(rel *wal.Relation, columns []int, row wal.Tuple) (string, error) {
	b := []byte{'('}
	for n, i := range columns {
		if n > 0 {
			b = append(b, ',')
		}
		if i < 0 || row[i].Kind == wal.Null {
			continue
		}
		if row[i].Kind != wal.Text {
			return "", errNoKey
		}
		b = append(b, '"')
		for _, c := range row[i].Bytes {
			if c == '"' || c == '\\' {
				b = append(b, c)
			}
			b = append(b, c)
		}
		b = append(b, '"')
	}
	return string(append(b, ')')), nil
}
