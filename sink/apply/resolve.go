package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

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
	wrote wal.Micros
	known bool // the index knew of something beside the row before the look
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
	side  conflict.Side
	event conflict.Event
	known *known
	undo  bool // the row here is the change's own, and a tombstone beat it
}

// resolve decides and writes the given runs of a group.
func (a *Applier) resolve(ctx context.Context, g *batch.Group, t *target, runs []int, fx *effects) error {
	return a.inChunks(g, t, runs, func(chunk []int) (int, error) { return a.resolveChunk(ctx, g, t, chunk, fx) })
}

// resolveChunk returns the size of the rows that it has read.
func (a *Applier) resolveChunk(ctx context.Context, g *batch.Group, t *target, runs []int, fx *effects) (int, error) {
	states, err := a.look(ctx, g, t, runs)
	if err != nil {
		return 0, err
	}
	if err := a.settle(ctx, g, t, runs, states, fx); err != nil {
		return 0, err
	}
	return sizeOf(states), a.spillLarge(ctx, fx)
}

// settle decides about runs whose rows are locked, and writes what was decided.
func (a *Applier) settle(ctx context.Context, g *batch.Group, t *target, runs []int, states []known, fx *effects) error {
	var inserts, deletes, lacking []int
	updates := map[string][]int{}
	for n, i := range runs {
		r, st := &g.Runs[i], &states[n]
		came := waitingOf(g, r)
		if w := st.waiting(); w != nil && w.Precedes(r.Base) {
			// What the event overwrote is known here, only not shown: the two are one run.
			whole := w.Then(waitingOf(g, r))
			r.Image, r.Base, r.Born = whole.Image, whole.Base, whole.Born
		}
		v, err := a.decide(ctx, g, t, i, st)
		if err != nil {
			return err
		}
		entries := len(fx.entries)
		if err := a.note(ctx, g, t, &v, fx); err != nil {
			return err
		}
		if v.Verdict == conflict.Park {
			want := wantOf(a.cfg.Origin, g, r)
			if a.retrying {
				return &stillParked{lacks, &want}
			}
			lacking = append(lacking, i)
			if a.cfg.Tell {
				fx.tell.notice(want)
			}
			continue
		}
		if a.cfg.Self && v.Reason == conflict.Incomplete && a.cfg.Tell {
			// Something lower stands over an own change, and with it went the rest of the change.
			// Whoever had the row before has it still.
			for _, p := range a.cfg.Peers {
				fx.tell.notice(wantOf(p, g, r))
			}
		}
		if w := st.waiting(); w != nil && v.Verdict != conflict.Keep && a.cfg.Policy.table(g.Rel.Ref()).Resolve.Releases(waitingOf(g, r), w) {
			fx.unpark = append(fx.unpark, st.parked.ID)
			a.rivalOf(g, r, came, st.parked, true, fx)
		} else if a.answers(g, r, st.parked) {
			fx.unpark = append(fx.unpark, st.parked.ID)
		}
		if v.undo {
			deletes = append(deletes, i)
		}
		if v.Verdict != conflict.Apply {
			continue
		}
		switch {
		case r.Op == wal.Delete:
			if st.row != nil {
				deletes = append(deletes, i)
				a.removes(g, t, i, fx)
			}
		case st.row == nil:
			inserts = append(inserts, i)
			if !st.noted {
				fx.put = append(fx.put, putRow{g, i, st.entry != nil, st.entry != nil || st.known, len(fx.entries) > entries})
			}
		case t.replaces(r.Image, st.row):
			if !a.cfg.Replica {
				return &schemaError{name: g.Rel.Ref(), code: "428C9", what: "an identity column that is GENERATED ALWAYS has another value here, and only a session with session_replication_role = replica may put the row in again"}
			}
			if r.Image, err = a.textImage(ctx, g, t, i); err != nil {
				return err
			}
			r.Image = batch.Fill(r.Image, st.row)
			deletes, inserts = append(deletes, i), append(inserts, i)
		case t.writes(r.Image):
			m := maskOf(r.Image)
			updates[m] = append(updates[m], i)
		}
	}
	if len(lacking) > 0 {
		if err := a.parkRuns(ctx, g, lacking, lacks, fx); err != nil {
			return err
		}
	}
	return a.write(ctx, g, t, inserts, updates, deletes, fx)
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

// look locks and reads the rows of the runs and collects what else is known of their keys.
func (a *Applier) look(ctx context.Context, g *batch.Group, t *target, runs []int) ([]known, error) {
	states := make([]known, len(runs))
	keys := make([]string, len(runs))
	byKey := make(map[string]int, len(runs))
	some := a.cfg.Index.Any(g.Rel.Ref()) || t.stampless()
	var deleted []string
	for n, i := range runs {
		keys[n] = g.KeyText(&g.Runs[i])
		states[n].key = keys[n]
		states[n].noted = a.cfg.Index.Noted(g.Rel.Ref(), keys[n])
		states[n].known = some && a.cfg.Index.May(g.Rel.Ref(), []byte(keys[n]))
		byKey[keys[n]] = n
		some = some || g.Runs[i].Stamp.Generation > 0
		if g.Runs[i].Op == wal.Delete {
			deleted = append(deleted, keys[n])
		}
	}
	// Before the look: a local insert that the look misses must lie behind the tombstone.
	announced, err := a.blind(ctx, g.Rel.Ref(), deleted)
	if err != nil {
		return nil, err
	}
	if err := a.lockRows(ctx, g, t, runs, states); err != nil {
		return nil, err
	}
	if err := a.seen(ctx, g, runs, states, announced); err != nil {
		return nil, err
	}
	// After the locks: what was decided about these keys before is visible now.
	if some {
		found, err := tombstone.Find(ctx, a.conn, g.Rel.Ref(), keys)
		if err != nil {
			return nil, side(err)
		}
		for k, e := range found {
			states[byKey[k]].entry = &entry{e}
		}
		if err := a.lookAgain(ctx, g, t, runs, states); err != nil {
			return nil, err
		}
	}
	if err := a.lookParked(ctx, g, runs, states); err != nil {
		return nil, err
	}
	return states, nil
}

// lookParked finds what waits under the keys of the runs.
func (a *Applier) lookParked(ctx context.Context, g *batch.Group, runs []int, states []known) error {
	if !a.cfg.Parked.Any(g.Rel.Ref()) {
		return nil
	}
	var keys []string
	at := map[string]int{}
	for n, i := range runs {
		if k := a.parkedKey(g, &g.Runs[i]); a.cfg.Parked.Has(g.Rel.Ref(), k) {
			keys = append(keys, k)
			at[k] = n
		}
	}
	if len(keys) == 0 {
		return nil
	}
	found, err := parked.Find(ctx, a.conn, g.Rel.Ref(), keys)
	if err != nil {
		return side(err)
	}
	for k, c := range found {
		states[at[k]].parked = c
	}
	return nil
}

// waiting is what is parked under the key; nil for nothing.
func (st *known) waiting() *conflict.Waiting {
	if st.parked == nil {
		return nil
	}
	return &st.parked.Waiting
}

// lookAgain is for rows that another applier has put there while this one waited for their
// entries: then what was read does not fit together.
func (a *Applier) lookAgain(ctx context.Context, g *batch.Group, t *target, runs []int, states []known) error {
	var missing []int
	for n, i := range runs {
		if states[n].row == nil {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	again := make([]known, len(missing))
	if err := a.lockRows(ctx, g, t, missing, again); err != nil {
		return err
	}
	for n := range again {
		if again[n].row != nil {
			return errRace
		}
	}
	return nil
}

func (a *Applier) lockRows(ctx context.Context, g *batch.Group, t *target, runs []int, states []known) error {
	s := a.keyShape(g, t)
	cols := make([]string, len(t.image))
	for n, c := range t.image {
		cols[n] = t.params[c].Name
	}
	formats := make([]int16, 1+len(cols))
	formats[0] = 1
	if t.stampless() {
		s.Time = a.cfg.Tracked.SQL()
	}
	if s.Time != "" {
		formats = append(formats, 0)
	}
	err := a.query(ctx, statement.Lock(s, cols), a.keyArrays(g, t, runs, nil), formats, func(v [][]byte) {
		row := make(wal.Tuple, len(g.Rel.Columns))
		for c := range row {
			row[c].Kind = wal.Null
		}
		for n, c := range t.image {
			row[c] = clone(v[n+1])
		}
		st := &states[int8Of(v[0])-1]
		st.row, st.wrote = row, wal.MinMicros
		if s.Time != "" && v[1+len(t.image)] != nil {
			n, _ := strconv.ParseInt(string(v[1+len(t.image)]), 10, 64)
			st.wrote = wal.Micros(n)
		}
	})
	if err != nil {
		return fmt.Errorf("lock rows of %s: %w", g.Rel, err)
	}
	return nil
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
		Op: r.Op, Stamp: r.Stamp, Base: r.Base, Kind: g.Kind, Born: r.Born,
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
		// An own row is known by what the change says of it: nobody else has written that.
		if content, ok := conflict.Content(g.Rel, batch.Fill(text, st.row)); ok && (e.Complete || a.cfg.Self) {
			e.Content = content
		}
	}
	if w := st.waiting(); w != nil && st.parked.Origin == a.cfg.Origin && st.parked.Kind == conflict.Live {
		e = w.Fulfilled(e, side)
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
	return verdict{i: i, Decision: d, side: against, event: e, known: st, undo: against.Known && !against.Alive && st.row != nil && d.Verdict == conflict.Keep}, nil
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

// write executes what was decided for one chunk.
func (a *Applier) write(ctx context.Context, g *batch.Group, t *target, inserts []int, updates map[string][]int, deletes []int, fx *effects) error {
	if len(inserts)+len(updates)+len(deletes) == 0 {
		return nil
	}
	if err := a.uncascaded(ctx, g, t, deletes); err != nil {
		return err
	}
	b := pipeline{fence: -1}
	var stmts []fastStmt
	a.gathering = a.together != nil
	defer func() { a.gathering = false }()
	if len(deletes) > 0 {
		s := a.keyShape(g, t)
		if err := a.exec(ctx, &b, statement.Delete(s, statement.GuardNone), a.keyArrays(g, t, deletes, nil), []int16{1}); err != nil {
			return err
		}
		stmts = append(stmts, fastStmt{op: wal.Delete, group: g, t: t, runs: deletes})
	}
	for m, runs := range updates {
		st, err := a.queueUpdate(ctx, &b, g, t, runs, updateKey{m, statement.GuardNone})
		if err != nil {
			return err
		}
		stmts = append(stmts, st)
	}
	if len(inserts) > 0 {
		st, err := a.queueInsert(ctx, &b, g, t, inserts, a.plain)
		if err != nil {
			return err
		}
		stmts = append(stmts, st)
	}
	if a.gathering {
		a.together.of = append(a.together.of, stmts...)
		return nil
	}
	return a.run(ctx, &b, stmts, func(st fastStmt, left []int) error {
		if len(left) > 0 {
			return errRace
		}
		return nil
	}, func(fastStmt, int) {})
}
