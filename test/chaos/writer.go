package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// writer is one client of one region. It is used by one goroutine.
type writer struct {
	region *harness.Region
	side   uint8
	j      *journal
	tables []*table
	rnd    *rand.Rand
	conn   *pgx.Conn
	errs   map[string]int // SQLSTATE of refused transactions -> how often
}

// run writes until ctx ends, with a mean pause of gap between two transactions.
func (w *writer) run(ctx context.Context, gap time.Duration) {
	defer w.drop()
	for harness.Pause(ctx, time.Duration(w.rnd.Int64N(int64(2*gap)+1))) == nil {
		w.transaction(ctx, w.draw(), w.drawEnd())
	}
}

// step is one operation of a transaction.
type step struct {
	t    *table
	key  int32
	back bool // inside a savepoint that is rolled back
}

func (w *writer) draw() []step {
	n := 1
	if w.rnd.IntN(10) < 3 {
		n = 2 + w.rnd.IntN(3)
	}
	total := 0
	for _, t := range w.tables {
		total += t.weight
	}
	var out []step
	for range n {
		x := w.rnd.IntN(total)
		for _, t := range w.tables {
			if x -= t.weight; x < 0 {
				out = append(out, step{t: t, key: int32(1 + w.rnd.IntN(t.keys)), back: w.rnd.IntN(40) == 0})
				break
			}
		}
	}
	return out
}

// drawEnd says whether the transaction is to be committed.
func (w *writer) drawEnd() bool { return w.rnd.IntN(30) != 0 }

func (w *writer) drop() {
	if w.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = w.conn.Close(ctx)
		cancel()
		w.conn = nil
	}
}

func (w *writer) connect(ctx context.Context) error {
	if w.conn != nil && !w.conn.IsClosed() {
		return nil
	}
	var err error
	if w.conn, err = w.region.Cluster.Connect(ctx, w.region.Database); err != nil {
		w.conn = nil
		return err
	}
	_, err = w.conn.Exec(ctx, "set application_name = 'chaos writer'; set statement_timeout = '30s'; set lock_timeout = '10s'")
	return err
}

// transaction runs the steps and notes what became of them. What fails before the commit
// is sent is refused; what fails while it is under way is unknown, unless the server said no.
func (w *writer) transaction(parent context.Context, steps []step, commit bool) outcome {
	// The end of the run does not break a transaction off: its outcome would be unknown.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(parent), 60*time.Second)
	defer cancel()
	if err := w.connect(ctx); err != nil {
		w.drop()
		_ = harness.Pause(parent, 200*time.Millisecond)
		return refused
	}
	tx, err := w.conn.Begin(ctx)
	if err != nil {
		w.drop()
		return refused
	}
	var done []write
	for _, s := range steps {
		ws, err := w.step(ctx, tx, s)
		done = append(done, ws...)
		if err != nil {
			w.noteError(err)
			w.j.note(done, refused)
			if tx.Rollback(ctx) != nil {
				w.drop()
			}
			return refused
		}
	}
	if !commit {
		w.j.note(done, refused)
		if tx.Rollback(ctx) != nil {
			w.drop()
		}
		return refused
	}
	out := acked
	if err := tx.Commit(ctx); err != nil {
		w.noteError(err)
		var pe *pgconn.PgError
		switch {
		case errors.As(err, &pe) && pe.Code[:2] != "57" && pe.Code[:2] != "08", errors.Is(err, pgx.ErrTxCommitRollback):
			out = refused
		default:
			out = unknown
		}
		w.drop()
	}
	w.j.note(done, out)
	return out
}

func (w *writer) noteError(err error) {
	var pe *pgconn.PgError
	state := "connection"
	if errors.As(err, &pe) {
		state = pe.Code
	}
	w.errs[state]++
}

// step runs one operation, some of them in a savepoint that is taken back.
func (w *writer) step(ctx context.Context, tx pgx.Tx, s step) ([]write, error) {
	if !s.back {
		return w.operate(ctx, tx, s.t, s.key)
	}
	sub, err := tx.Begin(ctx)
	if err != nil {
		return nil, err
	}
	ws, err := w.operate(ctx, sub, s.t, s.key)
	w.j.note(ws, refused)
	if err != nil {
		return nil, err
	}
	return nil, sub.Rollback(ctx)
}
