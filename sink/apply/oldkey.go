package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Under identity DEFAULT a delete names its row by the key that the table had then, and by nothing else. When
// both regions have replaced that key, the rows here are looked for by its columns. What is found is deleted
// in an ordinary transaction of this region, which is stamped, published and merged by the new key: a tombstone
// by the new key, written here alone, would be unknown to the origin, whose later rows would lose to it.
// A row that was written after the delete stays, as the change that wrote it goes to every region.

// errNoneLeft ends a delete by an old key: no row is left that it means.
var errNoneLeft = errors.New("no row is left that the delete means")

// deleteByOldKey finds the row of a parked delete by the columns of its old key. t is the table by its
// new key. It returns errNoneLeft, or a *cascadeError that asks for the row to be deleted, or stays where
// several rows may be meant.
func (r *Retrier) deleteByOldKey(ctx context.Context, c *parked.Change, t *target, stays error) error {
	if r.a.cfg.Self {
		return errNoneLeft // the row left this database with the transaction that deleted it
	}
	columns := slices.Clone(t.key)
	for _, i := range []int{t.cols.Version, t.cols.UpdatedAt} {
		if i >= 0 && !slices.Contains(columns, i) {
			columns = append(columns, i)
		}
	}
	ch := &c.Transaction.Changes[0]
	rows, err := r.byColumns(ctx, t, ch.Relation.KeyColumns(), ch.Old, columns)
	if err != nil {
		return err
	}
	var due []wal.Tuple
	for _, row := range rows {
		st, err := conflict.StampOf(t.cols, t.rel, row, wal.MinMicros)
		if err != nil {
			return stays
		}
		if st.UpdatedAt <= c.Transaction.CommitTime {
			due = append(due, row)
		}
	}
	switch {
	case len(due) == 0:
		return errNoneLeft
	case len(due) > 1:
		return stays
	}
	s := t.shape
	e := &cascadeError{rel: t.rel.Ref()}
	r.a.used = 0
	for _, i := range columns { // the row is the one that was looked at
		if due[0][i].Kind == wal.Null {
			continue
		}
		p := t.params[i]
		p.Binary, p.Digest = false, false
		s.Key = append(s.Key, p)
		arr := r.a.array(p, t, i)
		arr.value(due[0][i])
		e.args = append(e.args, bytes.Clone(arr.param()))
	}
	r.a.used = 0
	if e.sql = statement.Delete(s, statement.GuardNone); !r.a.mayCascade(e) {
		return stays
	}
	return e
}

// deleteHere carries out what deleteByOldKey asks for in the transaction at hand, in a region that publishes
// nothing: nobody else compares its rows.
func (r *Retrier) deleteHere(ctx context.Context, e *cascadeError) error {
	formats := slices.Repeat([]int16{1}, len(e.args))
	if res := r.a.conn.PgConn().ExecParams(ctx, e.sql, e.args, nil, formats, nil).Read(); res.Err != nil {
		return fmt.Errorf("delete a row of %s by its old key: %w", e.rel, res.Err)
	}
	return nil
}

// byColumns reads some columns of the rows whose columns by have the values of an image.
func (r *Retrier) byColumns(ctx context.Context, t *target, by []int, image wal.Tuple, columns []int) ([]wal.Tuple, error) {
	s := statement.Shape{Table: t.table, Only: t.schema.plain}
	args := []any{pgx.QueryResultFormats{pgx.TextFormatCode}}
	for _, c := range by {
		p := t.params[c]
		p.Binary, p.Digest = false, false
		s.Key = append(s.Key, p)
		args = append(args, []*string{wal.TextOf(t.rel.Columns[c].OID, image[c])})
	}
	names := make([]string, len(columns))
	for n, c := range columns {
		names[n] = t.params[c].Name
	}
	found, err := r.a.conn.Query(ctx, statement.Read(s, names), args...)
	if err != nil {
		return nil, fmt.Errorf("look for rows of %s by other columns: %w", t.rel, err)
	}
	defer found.Close()
	var rows []wal.Tuple
	for found.Next() {
		row := make(wal.Tuple, len(t.rel.Columns))
		for i := range row {
			row[i].Kind = wal.Unchanged
		}
		for n, v := range found.RawValues()[1:] {
			if row[columns[n]] = (wal.Value{Kind: wal.Null}); v != nil {
				row[columns[n]] = wal.Value{Kind: wal.Text, Bytes: bytes.Clone(v)}
			}
		}
		rows = append(rows, row)
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("look for rows of %s by other columns: %w", t.rel, err)
	}
	return rows, nil
}
