package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// giants writes giant transactions into the bulk table until ctx ends.
func (w *writer) giants(ctx context.Context, t *table, every time.Duration) {
	defer w.drop()
	for {
		w.giant(ctx, t)
		if harness.Pause(ctx, every/2+time.Duration(w.rnd.Int64N(int64(every)))) != nil {
			return
		}
	}
}

// giant is one transaction over most rows of the table: it fills what is missing, changes
// what is there, or deletes half of it.
func (w *writer) giant(parent context.Context, t *table) outcome {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(parent), 2*time.Minute)
	defer cancel()
	if err := w.connect(ctx); err != nil {
		w.drop()
		return refused
	}
	tx, err := w.conn.Begin(ctx)
	if err != nil {
		w.drop()
		return refused
	}
	start := w.j.ids(t.keys+1) - 1
	lo := 1 + w.rnd.IntN(t.keys/2+1)
	var kind op
	var sql string
	switch x := w.rnd.IntN(10); {
	case x < 3:
		kind = opInsert
		sql = fmt.Sprintf("insert into %s(k, wid, v) select k, %d + k, 'giant' from generate_series(1, %d) k on conflict (k) do nothing returning k, 0::bigint, wid", t.name, start, t.keys)
	case x < 5:
		kind = opDelete
		sql = fmt.Sprintf("delete from %s where k between %d and %d returning k, wid, %d + k", t.name, lo, lo+t.keys/2, start)
	default:
		kind = opUpdate
		sql = fmt.Sprintf(`with old as (select k, wid from %[1]s order by k for update)
update %[1]s b set wid = %[2]d + b.k, v = 'giant' from old where b.k = old.k returning b.k, old.wid, b.wid`, t.name, start)
	}
	rows, err := tx.Query(ctx, sql)
	var done []write
	if err == nil {
		var k int32
		var base, id int64
		_, err = pgx.ForEachRow(rows, []any{&k, &base, &id}, func() error {
			done = append(done, w.write(t, k, kind, id, base))
			return nil
		})
	}
	if err != nil {
		w.noteError(err)
		w.drop()
		w.j.note(done, refused)
		return refused
	}
	out := acked
	if err := tx.Commit(ctx); err != nil {
		w.noteError(err)
		w.drop()
		out = unknown
	}
	w.j.note(done, out)
	return out
}
