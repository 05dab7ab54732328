package poll

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/rowkey"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Changes makes changes of rows as they are in the source: an update where the destination has the key, an
// insert where not. The generation is the one that the destination knows of the key, so that a row that came back
// stands above its tombstone. at is the source's clock at the reading. A writer in between changes only what a conflict is called.
//
// A row that differs under the stamp that it had, because whoever changed it raised neither its version nor its time, goes into the next generation: a copy
// follows its source. Where the version alone says what is newer, the destination may have counted to the same number by itself; then it is a conflict that is recorded.
func (t *Table) Changes(ctx context.Context, destination *pgx.Conn, rows []wal.Tuple, at wal.Micros) ([]wal.Change, error) {
	changes := make([]wal.Change, len(rows))
	asked := make([][]string, len(rows))
	for i, row := range rows {
		st, err := conflict.StampOf(t.Cols, t.Rel, row, at)
		if err != nil {
			return nil, err
		}
		changes[i] = wal.Change{Op: wal.Insert, Relation: t.Rel, New: row, Stamp: st}
		asked[i] = t.keyOf(row)
	}
	entries, keys, err := t.entries(ctx, destination, changes)
	if err != nil {
		return nil, err
	}
	there, err := t.rowsOf(ctx, destination, t.to, asked)
	if err != nil {
		return nil, err
	}
	for i := range changes {
		if e, ok := entries[keys[i]]; ok {
			changes[i].Stamp.Generation = e.Next
		}
		if there[i] == nil {
			continue
		}
		changes[i].Op = wal.Update
		tied, err := t.tied(changes[i].Stamp, rows[i], there[i])
		if err != nil {
			return nil, err
		}
		if tied && changes[i].Stamp.Generation != math.MaxUint32 {
			changes[i].Stamp.Generation++
			if t.Cols.UpdatedAt < 0 {
				changes[i].Base = wal.Base{Known: true, HasDigest: true} // of no row
			}
		}
	}
	return changes, nil
}

// tied reports whether a row of the source and one of the destination differ under one stamp, in columns that have one type on both sides:
// of others the same value may look otherwise there.
func (t *Table) tied(st wal.Stamp, from, to wal.Tuple) (bool, error) {
	if t.Cols.Stampless() {
		return false, nil
	}
	other, err := conflict.StampOf(t.Cols, t.Rel, to, wal.MinMicros)
	if err != nil {
		return false, err
	}
	if other.Version != st.Version || t.Cols.UpdatedAt >= 0 && other.UpdatedAt != st.UpdatedAt {
		return false, nil
	}
	return slices.ContainsFunc(conflict.Differing(t.Rel, from, to), func(i int) bool { return !t.unlike[t.Rel.Columns[i].Name] }), nil
}

// Vanished reads a page of the destination's rows behind a key and makes deletes of those that the source does not
// have. The source is asked after the destination was read. last nil: the table is at its end.
func (p *Pager) Vanished(ctx context.Context, source, destination *pgx.Conn, after []string, at wal.Micros) (deletes []wal.Change, last []string, err error) {
	t := p.table
	rows, last, err := p.read(ctx, destination, t.to, after)
	if err != nil || len(rows) == 0 {
		return nil, nil, err
	}
	there, err := t.present(ctx, source, t.from, rows)
	if err != nil {
		return nil, nil, err
	}
	var gone []wal.Tuple
	for i, row := range rows {
		if !there[i] {
			gone = append(gone, row)
		}
	}
	deletes, err = t.deletes(ctx, destination, gone, at)
	return deletes, last, err
}

// deletes makes deletes of rows as the destination has them.
func (t *Table) deletes(ctx context.Context, destination *pgx.Conn, rows []wal.Tuple, at wal.Micros) (deletes []wal.Change, err error) {
	for _, row := range rows {
		deletes = append(deletes, wal.Change{Op: wal.Delete, Relation: t.Rel, Old: row, OldFull: true})
	}
	entries, keys, err := t.entries(ctx, destination, deletes)
	if err != nil {
		return nil, err
	}
	for i := range deletes {
		if _, err := conflict.StampChange(conflict.Policy{}, t.Cols, &deletes[i], at, entries[keys[i]].Next); err != nil {
			return nil, err
		}
	}
	return deletes, nil
}

// entries reads what the destination keeps beside the rows of the changes.
func (t *Table) entries(ctx context.Context, destination *pgx.Conn, changes []wal.Change) (map[string]tombstone.Entry, []string, error) {
	if t.Rel.Asks() {
		ask := make([]*wal.Change, len(changes))
		for i := range changes {
			ask[i] = &changes[i]
		}
		if err := rowkey.Fill(ctx, destination, t.there, t.Rel, ask); err != nil {
			return nil, nil, err
		}
	}
	keys := make([]string, len(changes))
	for i := range changes {
		keys[i] = string(changes[i].AppendKey(nil))
	}
	if len(keys) == 0 {
		return nil, nil, nil
	}
	ledger, err := tombstone.LedgerOf(ctx, destination, t.Rel.Ref())
	if err != nil {
		return nil, nil, err
	}
	found, err := tombstone.Read(ctx, destination, ledger, keys)
	return found, keys, err
}

// present says which of the rows' keys a table has.
func (t *Table) present(ctx context.Context, conn *pgx.Conn, shape statement.Shape, rows []wal.Tuple) ([]bool, error) {
	there := make([]bool, len(rows))
	args := make([]any, len(t.Rel.PrimaryKey))
	for n, k := range t.Rel.PrimaryKey {
		column := make([]string, len(rows))
		for i := range rows {
			column[i] = string(rows[i][k].Bytes)
		}
		args[n] = column
	}
	found, err := conn.Query(ctx, statement.Read(shape, nil), args...)
	if err != nil {
		return nil, fmt.Errorf("look up keys of %s: %w", t.Rel, err)
	}
	ords, err := pgx.CollectRows(found, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("look up keys of %s: %w", t.Rel, err)
	}
	for _, n := range ords {
		if n < 1 || n > int64(len(there)) {
			return nil, fmt.Errorf("look up keys of %s: row %s is none of those asked for", t.Rel, strconv.FormatInt(n, 10))
		}
		there[n-1] = true
	}
	return there, nil
}
