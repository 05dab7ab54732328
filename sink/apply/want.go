package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A change may lack large values that it did not touch: it carries their digests, and a
// receiver whose row has other values, or that has no row, cannot apply it. It sets the change
// aside and asks the origin, by a notice in the same transaction (wal.Wanted). The origin reads
// its row under a lock and answers with a repair. Whatever it committed before that lies in
// front of the answer in its stream, and the answer has seen it; so one question is enough for
// all changes that arrive until the answer does.

// wantOf asks the origin of a run for what it holds under the run's key.
func wantOf(origin string, g *batch.Group, r *batch.Run) wal.Notice {
	return wal.Notice{Relation: g.Rel, To: origin, Outcome: wal.Wanted, Yours: wal.Entry{Known: true, Alive: true, Stamp: r.Stamp, Row: keyImage(g, r)}}
}

// wants asks the origin of a parked change for what it holds under the change's key; false when the
// change lacks nothing.
func wants(c *parked.Change) (wal.Notice, bool) {
	w := &c.Waiting
	if w.Op == wal.Delete || w.Image.Complete() || parked.IsKeyless(c.Key) {
		return wal.Notice{}, false
	}
	key := make(wal.Tuple, len(w.Image))
	for i := range key {
		key[i].Kind = wal.Null
	}
	for _, i := range w.Relation.KeyColumns() {
		key[i] = w.Image[i]
	}
	return wal.Notice{Relation: w.Relation, To: c.Origin, Outcome: wal.Wanted, Yours: wal.Entry{Known: true, Alive: true, Stamp: w.Stamp, Row: key}}, true
}

// answer says what this region holds of the keys that another one asks for.
func (a *Applier) answer(ctx context.Context, wanted []*wal.Notice, fx *effects) error {
	if len(wanted) == 0 || !a.cfg.Tell {
		return nil
	}
	tx := &wal.Transaction{}
	for _, n := range wanted {
		if a.cfg.Publishes != nil && !a.cfg.Publishes(n.Relation.Ref()) {
			a.cfg.Log.Warn("a row of a table was asked for that is not published from here", "origin", a.cfg.Origin, "relation", n.Relation.String())
			continue
		}
		tx.Changes = append(tx.Changes, wal.Change{Op: wal.Update, Relation: n.Relation, New: n.Yours.Row, Stamp: n.Yours.Stamp})
	}
	if len(tx.Changes) > 0 && a.cfg.Barrier != nil && !a.barrier {
		return errBarrier // the life that a row is in is known when own deletes are
	}
	if err := a.askKeys(ctx, []keyedTx{{tx: tx, kind: conflict.Repair}}); err != nil {
		return err
	}
	b := batch.New()
	b.Add(tx, conflict.Repair)
	for _, g := range b.Groups {
		if err := a.answerAside(ctx, g, fx); err != nil {
			return fmt.Errorf("answer what %s asks of %s: %w", a.cfg.Origin, g.Rel, err)
		}
	}
	return nil
}

// How an answer meets rows that somebody holds.
const (
	answerLock  = "500ms" // it waits that long for the first,
	answerAgain = "20ms"  // and that long for the others
	answerHeld  = 10      // so many are left out one by one; then the rest is, too
)

// answerAside answers behind savepoints: what cannot be read now is not answered, and asked for
// again later. It stops nothing. Rows that nobody holds are answered though others are held.
func (a *Applier) answerAside(ctx context.Context, g *batch.Group, fx *effects) error {
	var before string
	if err := a.conn.QueryRow(ctx, "select pg_catalog.current_setting('lock_timeout')").Scan(&before); err != nil {
		return err
	}
	runs := make([]int, len(g.Runs))
	for i := range runs {
		runs[i] = i
	}
	var open [][]int // the next one is the last
	for piece := range slices.Chunk(runs, chunkRows) {
		open = append(open, piece)
	}
	slices.Reverse(open)
	wait, held := answerLock, 0
	for len(open) > 0 && held < answerHeld {
		piece := open[len(open)-1]
		open = open[:len(open)-1]
		if err := a.simple(ctx, "savepoint answer; set local lock_timeout = '"+wait+"'"); err != nil {
			return err
		}
		var answers effects
		err := a.answerRuns(ctx, g, piece, &answers)
		if err == nil {
			fx.add(answers)
			if err := a.simple(ctx, "release savepoint answer; set local lock_timeout = '"+before+"'"); err != nil {
				return err
			}
			continue
		}
		if errors.Is(err, errBarrier) || !parkable(err) || a.conn.IsClosed() {
			return err
		}
		if err := a.simple(ctx, "rollback to savepoint answer; release savepoint answer"); err != nil {
			return err
		}
		var pe *pgconn.PgError
		switch locked := errors.As(err, &pe) && pe.Code == "55P03"; {
		case locked && len(piece) > 1:
			wait = answerAgain
			open = append(open, piece[len(piece)/2:], piece[:len(piece)/2])
			continue
		case locked:
			held++
		default:
			open = nil // it is the table
		}
		if held < 2 {
			a.cfg.Log.Warn("rows that another region asks for cannot be read", "origin", a.cfg.Origin, "relation", g.Rel.String(), "reason", publicError(err))
		}
	}
	return nil
}

func (a *Applier) answerRuns(ctx context.Context, g *batch.Group, runs []int, fx *effects) error {
	t, err := a.target(ctx, g.Rel)
	var misfit *schemaError
	if errors.As(err, &misfit) || (err == nil && t.keyless()) {
		return nil // it asks again
	}
	if err != nil {
		return err
	}
	return a.inChunks(g, t, runs, func(chunk []int) (int, error) {
		l, err := a.lookAt(ctx, g, t, chunk)
		if err != nil {
			return 0, err
		}
		states := l.states
		for n, i := range chunk {
			st := &states[n]
			side, err := a.side(t, g.Rel, st)
			if err != nil {
				return 0, err
			}
			if !side.Known {
				continue
			}
			e := wal.Entry{Known: true, Alive: side.Alive, Stamp: side.Stamp, Row: st.row}
			if !side.Alive {
				e.Row = keyImage(g, &g.Runs[i])
			}
			c := repairOf(g.Rel, e)
			c.Answer = !a.overdue // else the stamp may be too low: it asks again
			fx.tell.repair(c)
		}
		return sizeOf(states), a.spillLarge(ctx, fx)
	})
}

// answers reports whether a repair is the answer (wal.Change.Answer) for a parked change of its sender that its
// sender does not hold itself any more: something lower was written over it before it was known.
// A tombstone says nothing of a row that was put in: no lock held that back while the answer was
// made.
func (a *Applier) answers(g *batch.Group, r *batch.Run, w *parked.Change) bool {
	return w != nil && g.Kind == conflict.Repair && r.Answer && w.Origin == a.cfg.Origin && w.Waiting.Op != wal.Delete && !w.Waiting.Image.Complete() &&
		(r.Op != wal.Delete || !w.Waiting.Born) &&
		a.cfg.Policy.table(g.Rel.Ref()).Resolve.Gone(r.Op, r.Stamp, &w.Waiting)
}

// Bounds of the rows that are held in memory at once.
const (
	firstChunk = 64      // rows, of a table whose rows were not seen yet
	chunkRows  = 1000    // rows
	chunkBytes = 8 << 20 // of rows, about
)

// inChunks works on runs in pieces that keep the rows read for them within bounds. work returns
// the bytes of the rows that it has read.
func (a *Applier) inChunks(g *batch.Group, t *target, runs []int, work func([]int) (int, error)) error {
	for len(runs) > 0 {
		most := min(chunkRows, firstChunk)
		if t.rowBytes > 0 {
			most = min(chunkRows, 1+chunkBytes/t.rowBytes)
		}
		n, size := 0, 0
		for n < len(runs) && n < most && size < chunkBytes {
			size += g.Runs[runs[n]].Image.Size()
			n++
		}
		read, err := work(runs[:n])
		if err != nil {
			return err
		}
		t.learn(read, n)
		runs = runs[n:]
	}
	return nil
}

// learn notes how large rows are that were read.
func (t *target) learn(size, rows int) { t.rowBytes = 1 + max(size/rows, t.rowBytes*7/8) }

// sizeOf is the size of the rows that were read.
func sizeOf(states []known) int {
	n := 0
	for i := range states {
		n += states[i].row.Size()
	}
	return n
}
