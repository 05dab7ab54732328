package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// operate does one operation on a key, drawn by what is there, and returns what it wrote.
func (w *writer) operate(ctx context.Context, tx pgx.Tx, t *table, key int32) ([]write, error) {
	if t.keyless {
		return w.keyless(ctx, tx, t, key)
	}
	base, found, err := lock(ctx, tx, t, key)
	if err != nil {
		return nil, err
	}
	if !found {
		return w.insert(ctx, tx, t, key)
	}
	switch x := w.rnd.IntN(100); {
	case x < 15:
		return w.delete(ctx, tx, t, key, base)
	case x < 20:
		gone, err := w.delete(ctx, tx, t, key, base)
		if err != nil {
			return gone, err
		}
		born, err := w.insert(ctx, tx, t, key)
		return append(gone, born...), err
	case x < 26:
		return w.move(ctx, tx, t, key, base)
	default:
		return w.update(ctx, tx, t, key, base)
	}
}

// lock finds the row of a key, locks it and returns the id of the write that made it.
func lock(ctx context.Context, tx pgx.Tx, t *table, key int32) (wid int64, found bool, err error) {
	err = tx.QueryRow(ctx, "select wid from "+t.name+" where k = $1 for update", key).Scan(&wid)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, nil
	}
	return wid, err == nil, err
}

func (w *writer) write(t *table, key int32, o op, id, base int64) write {
	return write{id: id, base: base, key: key, table: uint8(t.index), side: w.side, op: o}
}

func (w *writer) insert(ctx context.Context, tx pgx.Tx, t *table, key int32) ([]write, error) {
	id := w.j.ids(1)
	cols, vals := []string{"k", "wid", "v"}, []string{w.spelling(t, key), fmt.Sprint(id), w.value()}
	add := func(col, val string) { cols, vals = append(cols, col), append(vals, val) }
	if t.parent != "" {
		add("pid", fmt.Sprint(1+w.rnd.IntN(t.keys)))
	}
	if t.big {
		add("big", w.bigValue())
	}
	if t.email && w.rnd.IntN(2) == 0 {
		add("email", w.mail())
	}
	if t.falls {
		add("version", fmt.Sprint(w.rnd.IntN(6)))
		add("updated_at", w.someTime())
	}
	sql := fmt.Sprintf("insert into %s(%s) values (%s)", t.name, strings.Join(cols, ", "), strings.Join(vals, ", "))
	_, err := tx.Exec(ctx, sql)
	return []write{w.write(t, key, opInsert, id, 0)}, err
}

func (w *writer) update(ctx context.Context, tx pgx.Tx, t *table, key int32, base int64) ([]write, error) {
	id := w.j.ids(1)
	set := []string{fmt.Sprintf("wid = %d", id)}
	if !t.big || w.rnd.IntN(2) == 0 {
		set = append(set, "v = "+w.value())
	}
	if t.big && w.rnd.IntN(2) == 0 {
		set = append(set, "big = "+w.bigValue())
	}
	if t.email && w.rnd.IntN(5) < 2 {
		set = append(set, "email = "+w.mail())
	}
	if t.numeric && w.rnd.IntN(4) == 0 {
		set = append(set, "k = "+w.spelling(t, key))
	}
	if t.falls {
		switch w.rnd.IntN(6) {
		case 0: // neither column is touched
		case 1:
			set = append(set, "version = greatest(version - 2, 0)")
		case 2:
			set = append(set, "updated_at = "+w.someTime())
		case 3:
			set = append(set, fmt.Sprintf("version = %d", w.rnd.IntN(6)), "updated_at = "+w.someTime())
		default:
			set = append(set, "version = version + 1", "updated_at = clock_timestamp()")
		}
	}
	_, err := tx.Exec(ctx, fmt.Sprintf("update %s set %s where k = %d", t.name, strings.Join(set, ", "), key))
	return []write{w.write(t, key, opUpdate, id, base)}, err
}

// delete notes the children that the database deletes with their parent too. Which they
// are only the server knows: a child of the other region can be applied, unchecked, between
// two statements of ours.
func (w *writer) delete(ctx context.Context, tx pgx.Tx, t *table, key int32, base int64) ([]write, error) {
	sql := fmt.Sprintf("delete from %s where k = %d", t.name, key)
	if t.child == nil {
		_, err := tx.Exec(ctx, sql)
		return []write{w.write(t, key, opDelete, w.j.ids(1), base)}, err
	}
	if _, err := tx.Exec(ctx, "select set_config('chaos.cascaded', '', true)"); err != nil {
		return nil, err
	}
	if _, err := tx.Exec(ctx, sql); err != nil {
		return nil, err
	}
	var cascaded string
	if err := tx.QueryRow(ctx, "select current_setting('chaos.cascaded')").Scan(&cascaded); err != nil {
		return nil, err
	}
	var out []write
	for child := range strings.FieldsSeq(cascaded) {
		var k int32
		var wid int64
		if _, err := fmt.Sscanf(child, "%d:%d", &k, &wid); err != nil {
			return nil, fmt.Errorf("read the deleted child %q: %w", child, err)
		}
		out = append(out, w.write(t.child, k, opDelete, w.j.ids(1), wid))
	}
	return append(out, w.write(t, key, opDelete, w.j.ids(1), base)), nil
}

// move changes the key of a row to a free one: a delete here and an insert there.
func (w *writer) move(ctx context.Context, tx pgx.Tx, t *table, key int32, base int64) ([]write, error) {
	to := key%int32(t.keys) + 1
	if to == key {
		return w.update(ctx, tx, t, key, base)
	}
	if _, taken, err := lock(ctx, tx, t, to); err != nil || taken {
		if err != nil {
			return nil, err
		}
		return w.update(ctx, tx, t, key, base)
	}
	id := w.j.ids(2)
	set := fmt.Sprintf("k = %s, wid = %d, v = %s", w.spelling(t, to), id, w.value())
	_, err := tx.Exec(ctx, fmt.Sprintf("update %s set %s where k = %d", t.name, set, key))
	return []write{w.write(t, key, opDelete, id+1, base), w.write(t, to, opInsert, id, 0)}, err
}

// keyless changes only rows that this region has inserted: a row without a key has no
// identity that two regions could write at once.
func (w *writer) keyless(ctx context.Context, tx pgx.Tx, t *table, key int32) ([]write, error) {
	mine := fmt.Sprintf("side %c", 'A'+w.side)
	var base int64
	err := tx.QueryRow(ctx, "select wid from "+t.name+" where k = $1 and v = $2 order by wid limit 1 for update skip locked", key, mine).Scan(&base)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && w.rnd.IntN(4) == 0 {
		id := w.j.ids(1)
		_, err := tx.Exec(ctx, fmt.Sprintf("insert into %s(k, wid, v) values (%d, %d, '%s')", t.name, key, id, mine))
		return []write{w.write(t, key, opInsert, id, 0)}, err
	}
	if err != nil {
		return nil, err
	}
	id := w.j.ids(1)
	if w.rnd.IntN(3) == 0 {
		_, err = tx.Exec(ctx, fmt.Sprintf("delete from %s where wid = %d", t.name, base))
		return []write{w.write(t, key, opDelete, id, base)}, err
	}
	_, err = tx.Exec(ctx, fmt.Sprintf("update %s set wid = %d where wid = %d", t.name, id, base))
	return []write{w.write(t, key, opUpdate, id, base)}, err
}

func (w *writer) value() string { return fmt.Sprintf("'v%d'", w.rnd.IntN(1000)) }

func (w *writer) bigValue() string {
	return fmt.Sprintf("'%s'", strings.Repeat(fmt.Sprintf("%016x", w.rnd.Uint64()), 200+w.rnd.IntN(600)))
}

func (w *writer) mail() string {
	if w.rnd.IntN(3) == 0 {
		return "null"
	}
	return fmt.Sprintf("'m%d'", w.rnd.IntN(8))
}

func (w *writer) someTime() string {
	return fmt.Sprintf("timestamptz '2026-01-01 00:00+00' + interval '%d seconds'", w.rnd.IntN(20))
}

// spelling prints a key; numeric ones in one of several ways that are equal.
func (w *writer) spelling(t *table, key int32) string {
	if !t.numeric {
		return fmt.Sprint(key)
	}
	return fmt.Sprintf("'%d%s'", key, []string{"", ".0", ".00"}[w.rnd.IntN(3)])
}
