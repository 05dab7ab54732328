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

// wants asks for what is held under the key of a parked change: its origin, or the peers if that is
// this region or the change is held here. A change that lacks nothing asks for nothing, unless now tells how the origin describes
// the table since columns of the change are gone there, or have other types, or other values.
func (a *Applier) wants(c *parked.Change, now *wal.Relation) []wal.Notice {
	w := &c.Waiting
	if w.Op == wal.Delete || now == nil && w.Image.Complete() || parked.IsKeyless(c.Key) {
		return nil
	}
	rel := w.Relation
	if now != nil {
		if rel = now; !sameKeyColumns(w.Relation, now) || !w.Unread && !altered(w.Relation, now) {
			return nil
		}
	}
	key := make(wal.Tuple, len(rel.Columns))
	for i := range key {
		key[i].Kind = wal.Null
	}
	from := w.Relation.KeyColumns()
	for n, i := range rel.KeyColumns() {
		key[i] = w.Image[from[n]]
	}
	n := wal.Notice{Relation: rel, Outcome: wal.Wanted, Yours: wal.Entry{Known: true, Alive: true, Stamp: w.Stamp, Row: key}}
	var out []wal.Notice
	for _, n.To = range a.holders(c.Origin, w.Held) {
		out = append(out, n)
	}
	return out
}

// altered reports whether columns of a description are gone in a newer one, or have other types there.
func altered(was, now *wal.Relation) bool {
	return slices.ContainsFunc(was.Columns, func(c wal.Column) bool {
		i := now.Column(c.Name)
		return i < 0 || now.Columns[i].OID != c.OID || c.ID == 0 && now.Numbered()
	})
}

// holders are the regions that may hold what a change lacks. The origin of a change does; where
// something lower was written over an own change before it was known, the others may; so may they
// where the change is held here (conflict.Waiting.Held), and they say what gave way to it.
func (a *Applier) holders(origin string, held bool) []string {
	if held || origin == a.cfg.Region {
		return a.cfg.Peers
	}
	return []string{origin}
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
		unseen, err := a.unseenCommits(ctx)
		if err != nil {
			return 0, err
		}
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
			e, ok, told := a.held(g, &g.Runs[i], st, side)
			if err := a.keep(ctx, st.parked, told); err != nil {
				return 0, err
			}
			if !ok {
				if st.row == nil && st.entry == nil && st.parked == nil && !a.overdue && !unseen {
					fx.tell.notice(wal.Notice{Relation: g.Rel, To: a.cfg.Origin, Outcome: wal.Absent,
						Yours: wal.Entry{Known: true, Alive: true, Stamp: g.Runs[i].Stamp, Row: keyImage(g, &g.Runs[i])}})
				}
				continue
			}
			c := repairOf(g.Rel, e)
			// Else the stamp may be too low, or the row is committed and not visible yet: it asks again.
			if !a.overdue && (e.Alive || !unseen) {
				c.Answer, c.Asked = true, g.Runs[i].Stamp
			}
			fx.tell.repair(c)
		}
		return sizeOf(states), a.spillLarge(ctx, fx)
	})
}

// held is what this region holds under the key of a run: what it shows, or what is parked above
// that, because it will be shown. A parked change that lacks values itself is not held. It reports
// false if there is nothing to be said.
//
// A parked change that is told has to stay what it is told to be: another region may take that for its entry. It is held from
// then on (conflict.Waiting.Held), and what was completed from the row beside it is written, since the row here will not be the
// same for ever. So it is returned as it has to be written.
func (a *Applier) held(g *batch.Group, r *batch.Run, st *known, side conflict.Side) (wal.Entry, bool, *parked.Change) {
	e := wal.Entry{Known: side.Known, Alive: side.Alive, Stamp: side.Stamp, Row: st.row}
	if !side.Alive {
		e.Row = keyImage(g, r)
	}
	w, policy := st.waiting(), a.cfg.Policy.table(g.Rel.Ref()).Resolve
	switch {
	case w == nil:
		return e, e.Known, nil
	case side.Known && policy.Compare(w.Stamp, side.Stamp) < 0, side.Known && w.Stamp == side.Stamp && (!side.Alive || w.Op == wal.Delete):
		return e, true, nil
	case w.Op == wal.Delete:
		return wal.Entry{Known: true, Stamp: w.Stamp, Row: keyImage(g, r)}, true, a.toldOf(g.Rel, st.parked, nil)
	}
	if st.parked.State == stateSwapped {
		return e, false, nil // its values are not those of the columns that have these names here
	}
	row := make(wal.Tuple, len(g.Rel.Columns))
	for i := range row {
		row[i].Kind = wal.Unchanged
	}
	row = w.Fill(g.Rel, row)
	whole := row.CompleteOver(st.row)
	if side.Known && w.Stamp == side.Stamp {
		// The contents decide which of the two will be shown. What the row here would complete waits itself for
		// its origin to say so (conflict.Event.Filled), unless it is an own change.
		if !row.Complete() && (!whole || st.parked.Kind != conflict.Self) {
			return e, true, nil
		}
		waiting, shown := conflict.Side{Known: true, Alive: true, Stamp: w.Stamp}, side
		waiting.Content, _ = conflict.Content(g.Rel, batch.Fill(row, st.row))
		shown.Content, _ = conflict.Content(g.Rel, st.row)
		if policy.CompareSides(waiting, shown) <= 0 {
			return e, true, nil
		}
	}
	if !whole {
		return e, e.Known && !w.Image.Complete(), nil
	}
	row = batch.Fill(row, st.row)
	return wal.Entry{Known: true, Alive: true, Stamp: w.Stamp, Row: row}, true, a.toldOf(g.Rel, st.parked, row)
}

// keep writes a parked change as it was told; nil is none.
func (a *Applier) keep(ctx context.Context, was, told *parked.Change) error {
	switch {
	case told == nil:
		return nil
	case was.Waiting.Op == wal.Delete || was.Waiting.Image.Complete(): // nothing else is new
		return side(parked.Hold(ctx, a.conn, []int64{told.ID}))
	}
	return side(parked.Complete(ctx, a.conn, told))
}

// toldOf is a parked change that another region is told of: held, and with the values of a row of rel in place of those that it
// lacks. It is nil where that is what stands there.
func (a *Applier) toldOf(rel *wal.Relation, c *parked.Change, row wal.Tuple) *parked.Change {
	w := c.Waiting
	complete := w.Op == wal.Delete || w.Image.Complete()
	if complete && w.Held {
		return nil
	}
	out := *c
	if w.Held = true; !complete {
		whole := conflict.Waiting{Relation: rel, Op: wal.Update, Image: row}
		w.Image = whole.Fill(w.Relation, w.Image)
		out.Row = a.json(w.Relation, w.Image)
	}
	out.Waiting = w
	return &out
}

// answers reports whether a repair is an answer (wal.Change.Answer) that ends the waiting of a parked
// change which lacks values, or has some that nobody here can read: who might have them does not hold it. Something lower was written over it
// before it was known.
//
// A tombstone says nothing of a row that was put in later than what was asked for: no lock held that
// back while the answer was made. Nor does any answer of a peer say something of an own change that
// it did not know when it was asked. Where there are several peers, all of them have to say so. The same goes for a
// change that is held here: the answer brings what gave way to it.
func (a *Applier) answers(g *batch.Group, r *batch.Run, w *parked.Change, fx *effects) bool {
	if w == nil || g.Kind != conflict.Repair || !r.Answer || w.Waiting.Op == wal.Delete || w.Waiting.Image.Complete() && !w.Waiting.Unread {
		return false
	}
	if came := waitingOf(g, r); !a.cfg.Policy.table(g.Rel.Ref()).Resolve.Gone(&came, &w.Waiting) {
		return false
	}
	switch {
	case w.Origin == a.cfg.Region || w.Waiting.Held:
		return r.Asked == w.Waiting.Stamp && a.denied(w, fx)
	case w.Origin == a.cfg.Origin:
		return r.Op != wal.Delete || !w.Waiting.Born || r.Asked == w.Waiting.Stamp
	}
	return false
}

// denied notes that the peer at hand does not hold what an own change lacks, and reports whether all
// of them have said so.
func (a *Applier) denied(w *parked.Change, fx *effects) bool {
	for _, p := range a.cfg.Peers {
		if p != a.cfg.Origin && !slices.Contains(w.Denied, p) && !a.silent(p) {
			if !slices.Contains(w.Denied, a.cfg.Origin) {
				fx.denied = append(fx.denied, w.ID)
			}
			return false
		}
	}
	return true // also when the last of those who had not said so is no peer any more
}

// silent reports whether a peer publishes nothing: it can neither hold what nobody else has, nor answer.
func (a *Applier) silent(peer string) bool { return a.cfg.Silent != nil && a.cfg.Silent(peer) }

// absent ends the waiting of parked changes that lack values, where who might have them knows nothing of
// their keys: of tables that were truncated there, or rows that were removed past the slot.
func (a *Applier) absent(ctx context.Context, notices []*wal.Notice, fx *effects) error {
	tx := &wal.Transaction{}
	for _, n := range notices {
		if a.cfg.Parked.Any(n.Relation.Ref()) {
			tx.Changes = append(tx.Changes, wal.Change{Op: wal.Update, Relation: n.Relation, New: n.Yours.Row, Stamp: n.Yours.Stamp})
		}
	}
	if len(tx.Changes) == 0 {
		return nil
	}
	if err := a.askKeys(ctx, []keyedTx{{tx: tx, kind: conflict.Repair}}); err != nil {
		return err
	}
	b := batch.New()
	b.Add(tx, conflict.Repair)
	for _, g := range b.Groups {
		runs := make([]int, len(g.Runs))
		for i := range runs {
			runs[i] = i
		}
		states := make([]known, len(runs))
		if err := a.lookParked(ctx, g, runs, states); err != nil {
			return err
		}
		for i := range states {
			w := states[i].parked
			if w == nil || w.Waiting.Op == wal.Delete || w.Waiting.Image.Complete() && !w.Waiting.Unread || w.Waiting.Stamp != g.Runs[i].Stamp {
				continue
			}
			all := w.Waiting.Held || w.Origin == a.cfg.Region
			if all && a.denied(w, fx) || !all && w.Origin == a.cfg.Origin {
				fx.unpark = append(fx.unpark, w.ID)
			}
		}
	}
	return nil
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
