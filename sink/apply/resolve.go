package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// The slow path: the rows are locked and read, conflict.Resolve decides, and what it decided
// is written set-based. Everything that is known of a key beside its row (entries, parked changes) is read here, in the same transaction.

var (
	// errBarrier asks for the batch to be tried again once this region's own changes up to
	// now are known: a missing row may have been deleted by a local transaction that was
	// not decoded yet.
	errBarrier = errors.New("own changes have to be known first")
	// errRace: a local writer came between look and write. The batch is tried again.
	errRace = errors.New("a local writer was faster")
)

// known is what the local side holds of one run's key.
type known struct {
	key    string
	row    wal.Tuple // in the columns of the event's relation; nil when there is no row
	entry  *entry
	parked *parked.Change
	blind  wal.LSN // deletes: the position of a tombstone if there is no row
	noted  bool    // an own change of the key is not merged yet
	// wrote is when this region wrote the row, where the server knows that; MinMicros: it does not.
	wrote   wal.Micros
	known   bool   // the index knew of something beside the row before the look
	writer  uint32 // self-merge: the transaction that wrote the row
	guessed bool   // self-merge: whether that is stamped is not known, and is not waited for
}

// entry is what stands beside the row.
type entry struct{ tombstone.Entry }

// side is a tombstone as conflict.Resolve sees it.
func (e *entry) side() conflict.Side {
	return conflict.Side{Known: true, Stamp: e.Stamp, DeletedAt: e.Stamp.UpdatedAt}
}

// verdict is one decision, to be written.
type verdict struct {
	i int
	conflict.Decision
	side   conflict.Side
	event  conflict.Event
	known  *known
	undo   bool // the row here is the change's own, and a tombstone beat it
	moved  bool // an own change whose table has given its name to another one
	behind bool // that was made behind the change
}

// resolve decides and writes the given runs of a group.
func (a *Applier) resolve(ctx context.Context, g *batch.Group, t *target, runs []int, fx *effects) error {
	return a.inChunks(g, t, runs, func(chunk []int) (int, error) {
		l, err := a.lookAt(ctx, g, t, chunk)
		if err != nil {
			return 0, err
		}
		return sizeOf(l.states), a.settle(ctx, []*looking{l}, fx)
	})
}

// settle decides and writes what was looked at. The groups belong to different tables, none of
// which writes rows of another one by itself.
func (a *Applier) settle(ctx context.Context, looks []*looking, fx *effects) error {
	var out []decided
	var barrier error
	for _, l := range looks {
		d, err := a.decideRuns(ctx, l, fx)
		// What needs a barrier is found for all tables at once: one wait for all of them.
		if errors.Is(err, errBarrier) {
			barrier = err
		} else if err != nil {
			return err
		}
		out = append(out, d)
	}
	if barrier != nil {
		return barrier
	}
	if err := a.write(ctx, out, fx); err != nil {
		return err
	}
	return a.spillLarge(ctx, fx)
}

// decided is what is to be written to a table.
type decided struct {
	g                *batch.Group
	t                *target
	inserts, deletes []int
	updates          map[string][]int
	rows             map[int]wal.Tuple // that are updated, as they are; where updates may cascade
}

// decideRuns decides about each run that was looked at, and parks what has to wait.
func (a *Applier) decideRuns(ctx context.Context, l *looking, fx *effects) (decided, error) {
	out := decided{g: l.g, t: l.t, updates: map[string][]int{}}
	waits := map[reason][]int{}
	for n, i := range l.runs {
		why, err := a.decideRun(ctx, l, n, &out, fx)
		if err != nil {
			return out, err
		}
		if why == nil {
			continue
		}
		if a.retrying {
			return out, &stillParked{*why, *why == lacks}
		}
		if *why == lacks && a.cfg.Tell {
			for _, p := range a.holders(a.cfg.Origin, false) {
				fx.tell.notice(wantOf(p, l.g, &l.g.Runs[i]))
			}
		}
		waits[*why] = append(waits[*why], i)
	}
	for _, why := range []reason{lacks, unsure, contested} {
		if runs := waits[why]; len(runs) > 0 {
			if err := a.parkRuns(ctx, l.g, runs, why, fx); err != nil {
				return out, err
			}
		}
	}
	return out, nil
}

// decideRun decides about the n-th run that was looked at: it is written, or left out, or has a
// reason to wait.
func (a *Applier) decideRun(ctx context.Context, l *looking, n int, out *decided, fx *effects) (*reason, error) {
	g, t, i, st := l.g, l.t, l.runs[n], &l.states[n]
	r := &g.Runs[i]
	if a.contests(g, r) {
		return &contested, nil
	}
	came := waitingOf(g, r)
	if w := st.waiting(); w != nil && w.Precedes(r.Base) && !(a.cfg.Self && st.parked.Origin != a.cfg.Region) {
		// What the event overwrote is known here, only not shown: the two are one run.
		whole := w.Then(waitingOf(g, r))
		r.Image, r.Base, r.Born = whole.Image, whole.Base, whole.Born
	}
	v, err := a.decide(ctx, g, t, i, st)
	if err != nil {
		return nil, err
	}
	v.Pushback = v.Pushback || a.sendsBack(g, r, &v) || a.undoes(g, r, st.parked, &v)
	if !a.cfg.Self && t.decidedUnlike(&v) {
		fx.copies(g.Rel.Ref())
	}
	entries := len(fx.entries)
	if err := a.note(ctx, g, t, &v, fx); err != nil {
		return nil, err
	}
	if v.Reason == conflict.Unsure {
		return &unsure, nil
	}
	// Something lower may stand over an own change, and with it went the rest of the change. Whoever
	// had the row before has it still.
	if v.Verdict == conflict.Park || a.cfg.Self && a.cfg.Tell && v.Reason == conflict.Incomplete {
		return &lacks, nil
	}
	if w := st.waiting(); w != nil && (a.follows(g, st.parked) || v.Verdict != conflict.Keep && a.releases(g, r, st.parked)) {
		fx.unpark = append(fx.unpark, st.parked.ID)
		if !a.passedOver(g, r, came, &v, fx) {
			a.rivalOf(g, r, came, st.parked, true, fx)
		}
	} else if a.answers(g, r, st.parked, fx) {
		fx.unpark = append(fx.unpark, st.parked.ID)
	}
	if v.undo {
		out.deletes = append(out.deletes, i)
	}
	if v.Verdict != conflict.Apply {
		return nil, nil
	}
	return nil, a.place(ctx, out, i, st, len(fx.entries) > entries, fx)
}

// place says by which statement a run that is applied gets into the table. An entry of its key may
// have been noted already.
func (a *Applier) place(ctx context.Context, out *decided, i int, st *known, noted bool, fx *effects) error {
	g, t := out.g, out.t
	r := &g.Runs[i]
	switch {
	case r.Op == wal.Delete:
		if st.row != nil {
			out.deletes = append(out.deletes, i)
			a.removes(g, t, i, fx)
		}
	case st.row == nil:
		out.inserts = append(out.inserts, i)
		fx.put = append(fx.put, putRow{g, i, st.entry != nil, st.entry != nil || st.known, noted, st.noted})
	case t.replaces(r.Image, st.row) || a.anew && t.whole():
		if !a.cfg.Replica {
			return &schemaError{name: g.Rel.Ref(), code: "428C9", what: "an identity column that is GENERATED ALWAYS has another value here, and only a session with session_replication_role = replica may put the row in again"}
		}
		image, err := a.textImage(ctx, g, t, i)
		if err != nil {
			return err
		}
		r.Image = batch.Fill(image, st.row)
		out.deletes, out.inserts = append(out.deletes, i), append(out.inserts, i)
	case t.writes(r.Image):
		m := maskOf(r.Image)
		out.updates[m] = append(out.updates[m], i)
		if t.schema.moves() {
			if out.rows == nil {
				out.rows = map[int]wal.Tuple{}
			}
			out.rows[i] = st.row
		}
	}
	return nil
}

// lacks is why a change waits whose values only its origin has.
var lacks = reason{stateLacks, "the change lacks large values that only its origin has; it is asked for them"}

// replaces reports whether a row has to be put in anew because a column differs that no update
// can set.
func (t *target) replaces(image, row wal.Tuple) bool {
	for _, c := range t.always {
		if !image[c].Absent() && !bytes.Equal(image[c].Bytes, row[c].Bytes) {
			return true
		}
	}
	return false
}

// whole reports whether a row that comes says all that a row here has.
func (t *target) whole() bool {
	for i := range t.schema.columns {
		if c := &t.schema.columns[i]; !c.generated && t.rel.Column(c.name) < 0 {
			return false
		}
	}
	return true
}

// decide asks conflict.Resolve about one run.
func (a *Applier) decide(ctx context.Context, g *batch.Group, t *target, i int, st *known) (verdict, error) {
	r := &g.Runs[i]
	pol := a.cfg.Policy.table(g.Rel.Ref())
	side, err := a.side(t, g.Rel, st)
	if err != nil {
		return verdict{}, err
	}
	e := conflict.Event{
		Op: r.Op, Stamp: r.Stamp, Base: t.base(r), Kind: g.Kind, Born: r.Born,
		Complete: r.Image.Complete(), CommitTime: r.Tx.CommitTime,
	}
	if side.Alive {
		side.Content, _ = conflict.Content(g.Rel, st.row)
	}
	if r.Op != wal.Delete && side.Known {
		text, err := a.textImage(ctx, g, t, i)
		if err != nil {
			return verdict{}, err
		}
		e.Complete = r.Image.CompleteOver(st.row)
		e.Filled = e.Complete && !r.Image.Complete()
		// An own row is known by what the change says of it: nobody else has written that.
		if content, ok := conflict.Content(g.Rel, batch.Fill(text, st.row)); ok && (e.Complete || a.cfg.Self) {
			e.Content = content
		}
	}
	if w := st.waiting(); w != nil && st.parked.Origin == a.cfg.Origin && st.parked.Kind == conflict.Live {
		e = w.Fulfilled(e, g.Rel, side)
	}
	against := side
	if a.cfg.Self {
		v, done, other, err := a.decideOwn(ctx, g, t, i, st, side, e)
		if done || err != nil {
			return v, err
		}
		against = other
	} else if a.cfg.Barrier != nil && !a.barrier && conflict.NeedsBarrier(e, st.found(t, side)) {
		return verdict{}, errBarrier
	}
	d := conflict.Resolve(pol.Resolve, e, against)
	if a.cfg.Self && (d.Verdict == conflict.Apply && a.unsure(g, r, st) || d.Verdict == conflict.Keep && st.guessed) {
		d = conflict.Decision{Verdict: conflict.Park, Reason: conflict.Unsure}
	}
	return verdict{i: i, Decision: d, side: against, event: e, known: st, undo: against.Known && !against.Alive && st.row != nil && d.Verdict == conflict.Keep}, nil
}

// base is what the run overwrote at its origin. Where the row may be stored otherwise here, its contents say nothing, and the stamp is all there is
// if there is a time in it, and the run has another one.
func (t *target) base(r *batch.Run) wal.Base {
	b := r.Base
	if same := b.Stamp.Version == r.Stamp.Version && b.Stamp.UpdatedAt == r.Stamp.UpdatedAt; b.HasDigest && len(t.check) > 0 && !t.stampless() && b.Stamp.UpdatedAt != wal.MinMicros && !same {
		b.Digest, b.HasDigest = [16]byte{}, false
	}
	return b
}

// found is what conflict.NeedsBarrier asks for.
func (st *known) found(t *target, side conflict.Side) conflict.Found {
	return conflict.Found{
		Row: st.row != nil, Content: side.Content, Entry: st.entry != nil, Live: st.entry != nil && st.entry.Live,
		Noted: st.noted, Stampless: t.stampless(),
	}
}

// side describes the local entry of a key.
func (a *Applier) side(t *target, rel *wal.Relation, st *known) (conflict.Side, error) {
	gen, fallback := uint32(0), wal.MinMicros
	if st.entry != nil {
		gen = st.entry.Next
	}
	if st.row == nil {
		if st.entry == nil || st.entry.Live {
			return conflict.Side{}, nil
		}
		return st.entry.side(), nil
	}
	switch {
	case st.entry == nil:
		fallback = st.wrote
	case st.entry.Plain:
		fallback = max(st.entry.At, st.wrote)
	case st.entry.Live:
		fallback = st.entry.At
	}
	s, err := conflict.StampOf(t.cols, rel, st.row, fallback)
	if err != nil {
		return conflict.Side{}, fmt.Errorf("read stamp of a row of %s: %w", rel, err)
	}
	s.Generation = gen
	return conflict.Side{Known: true, Alive: true, Stamp: s}, nil
}

// write executes what was decided.
func (a *Applier) write(ctx context.Context, tables []decided, fx *effects) error {
	for _, d := range tables {
		if err := a.uncascaded(ctx, d.g, d.t, d.deletes); err != nil {
			return err
		}
		for mask, runs := range d.updates {
			if err := a.unmoved(ctx, d.g, d.t, mask, runs, d.rows); err != nil {
				return err
			}
		}
	}
	b := pipeline{fence: -1}
	var stmts []fastStmt
	if a.gathering = a.together != nil; !a.gathering {
		a.hasten(&b)
	}
	defer func() { a.gathering = false }()
	for _, d := range tables {
		var err error
		if stmts, err = a.queueDecided(ctx, &b, d, stmts); err != nil {
			return err
		}
	}
	if a.gathering {
		a.together.of = append(a.together.of, stmts...)
		return nil
	}
	if err := a.readPosition(ctx, &b, fx); err != nil {
		return err
	}
	return a.run(ctx, &b, stmts, func(st fastStmt, left []int) error {
		if len(left) > 0 {
			return errRace
		}
		return nil
	}, a.wrote)
}

// queueDecided queues the statements for one table.
func (a *Applier) queueDecided(ctx context.Context, b *pipeline, d decided, stmts []fastStmt) ([]fastStmt, error) {
	g, t := d.g, d.t
	a.lockWritten(b, d)
	if len(d.deletes) > 0 {
		s := a.keyShape(g, t)
		if err := a.exec(ctx, b, statement.Delete(s, statement.GuardNone), a.keyArrays(g, t, d.deletes, nil), []int16{1}); err != nil {
			return nil, err
		}
		stmts = append(stmts, fastStmt{op: wal.Delete, group: g, t: t, runs: d.deletes, at: b.n - 1})
	}
	for m, runs := range d.updates {
		st, err := a.queueUpdate(ctx, b, g, t, runs, updateKey{m, statement.GuardNone})
		if err != nil {
			return nil, err
		}
		stmts = append(stmts, st)
	}
	if len(d.inserts) > 0 {
		st, err := a.queueInsert(ctx, b, g, t, d.inserts, a.plain)
		if err != nil {
			return nil, err
		}
		stmts = append(stmts, st)
	}
	return stmts, a.putBack(ctx, b, t)
}
