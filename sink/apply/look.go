package apply

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// looking is a look at what is known of some runs of a group.
type looking struct {
	g      *batch.Group
	t      *target
	runs   []int
	states []known
	keys   []string
	byKey  map[string]int
	some   bool // entries are asked for
	announced
}

// lookAt locks and reads the rows of some runs and collects what else is known of their keys.
func (a *Applier) lookAt(ctx context.Context, g *batch.Group, t *target, runs []int) (*looking, error) {
	l, err := a.prepareLook(ctx, g, t, runs)
	if err != nil {
		return nil, err
	}
	b := &pipeline{fence: -1}
	a.hasten(b)
	if err := a.queueLook(ctx, b, l); err != nil {
		return nil, err
	}
	if err := a.run(ctx, b, nil, nil, nil); err != nil {
		return nil, err
	}
	return l, a.closeLook(ctx, l)
}

// prepareLook announces a look and collects what the index knows.
func (a *Applier) prepareLook(ctx context.Context, g *batch.Group, t *target, runs []int) (*looking, error) {
	l := &looking{g: g, t: t, runs: runs, states: make([]known, len(runs)), keys: make([]string, len(runs)), byKey: make(map[string]int, len(runs))}
	name := a.ledger(g.Rel)
	l.some = a.cfg.Index.Any(name) || t.stampless()
	var deleted []string
	for n, i := range runs {
		key := g.KeyText(&g.Runs[i])
		l.keys[n], l.byKey[key], l.states[n].key = key, n, key
		l.states[n].noted = a.cfg.Index.Noted(name, key)
		l.states[n].known = l.some && a.knows(name, key, l.states[n].noted)
		l.some = l.some || g.Runs[i].Stamp.Generation > 0
		if g.Runs[i].Op == wal.Delete {
			deleted = append(deleted, key)
		}
	}
	// Before the look: a local insert that the look misses must lie behind the tombstone.
	var err error
	l.announced, err = a.blind(ctx, name, deleted)
	l.some = l.some || a.cfg.Index.Any(name) // what is announced counts as well
	return l, err
}

// knows reports whether the index knows something of a key beside own changes that are noted.
func (a *Applier) knows(rel wal.RelationName, key string, noted bool) bool {
	x := a.cfg.Index
	if noted {
		return x.MeetsOthers(a.holder(), rel, x.Hash(rel, key)) != tombstone.Alone
	}
	return x.May(rel, []byte(key))
}

// queueLook queues the statements that lock and read the rows, and then their entries: behind the
// locks, what was decided about these keys before is visible.
func (a *Applier) queueLook(ctx context.Context, b *pipeline, l *looking) error {
	if err := a.queueLock(ctx, b, l.g, l.t, l.runs, l.states); err != nil || !l.some {
		return err
	}
	keys := a.scratch(wal.OIDText)
	for _, k := range l.keys {
		keys.bytes([]byte(k))
	}
	args := [][]byte{[]byte(tombstone.RelationText(a.ledger(l.g.Rel))), keys.param()}
	if err := a.exec(ctx, b, tombstone.FindSQL, args, []int16{1}); err != nil {
		return side(err)
	}
	b.read(rowsInto(func(v [][]byte) {
		e := tombstone.EntryOf(string(v[0]), int8Of(v[1]), int8Of(v[2]), int8Of(v[3]), v[4][0] != 0, v[5][0] != 0)
		l.states[l.byKey[e.Key]].entry = &entry{e}
	}, func(err error) error {
		return side(fmt.Errorf("find tombstones of %s: %w", l.g.Rel, err))
	}))
	return nil
}

// rowsInto reads all rows of a statement.
func rowsInto(row func(v [][]byte), wrap func(error) error) func(*pgconn.ResultReader) error {
	return func(rr *pgconn.ResultReader) error {
		for rr.NextRow() {
			row(rr.Values())
		}
		if _, err := rr.Close(); err != nil {
			return wrap(err)
		}
		return nil
	}
}

// closeLook is what is left to do when the answers have come.
func (a *Applier) closeLook(ctx context.Context, l *looking) error {
	if err := a.seen(ctx, l.g, l.runs, l.states, l.announced); err != nil {
		return err
	}
	if !l.some && a.cfg.Index.Any(a.ledger(l.g.Rel)) {
		return errRace // the first entry of the table came while a row was waited for
	}
	if l.some {
		if err := a.lookAgain(ctx, l.g, l.t, l.runs, l.states); err != nil {
			return err
		}
	}
	return a.lookParked(ctx, l.g, l.runs, l.states)
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

// lockRows locks and reads rows.
func (a *Applier) lockRows(ctx context.Context, g *batch.Group, t *target, runs []int, states []known) error {
	b := &pipeline{fence: -1}
	if err := a.queueLock(ctx, b, g, t, runs, states); err != nil {
		return err
	}
	return a.run(ctx, b, nil, nil, nil)
}

// queueLock queues the statement that locks and reads rows.
func (a *Applier) queueLock(ctx context.Context, b *pipeline, g *batch.Group, t *target, runs []int, states []known) error {
	s := a.keyShape(g, t)
	cols := make([]string, len(t.image))
	for n, c := range t.image {
		cols[n] = t.params[c].Name
	}
	if a.cfg.Self {
		cols = append(cols, "xmin")
	}
	formats := make([]int16, 1+len(cols))
	formats[0] = 1
	if t.stampless() {
		s.Time = a.cfg.Tracked.SQL()
	}
	if s.Time != "" {
		formats = append(formats, 0)
	}
	a.stamping.now = nil
	wrap := func(err error) error { return fmt.Errorf("lock rows of %s: %w", g.Rel, err) }
	if err := a.exec(ctx, b, statement.Lock(s, cols), a.keyArrays(g, t, runs, nil), formats); err != nil {
		return wrap(err)
	}
	b.read(rowsInto(func(v [][]byte) {
		row := make(wal.Tuple, len(g.Rel.Columns))
		for c := range row {
			row[c].Kind = wal.Null
		}
		for n, c := range t.image {
			row[c] = clone(v[n+1])
		}
		st := &states[int8Of(v[0])-1]
		st.row, st.wrote = row, wal.MinMicros
		more := v[1+len(t.image):]
		if a.cfg.Self {
			writer, _ := strconv.ParseUint(string(more[0]), 10, 32)
			st.writer, more = uint32(writer), more[1:]
		}
		if s.Time != "" && more[0] != nil {
			n, _ := strconv.ParseInt(string(more[0]), 10, 64)
			st.wrote = wal.Micros(n)
		}
	}, wrap))
	return nil
}
