package apply

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// The fast path writes what needs no decision: rows that are not there yet, and rows whose
// local stamp is the one that the event overwrote at its origin. Both conditions are part of
// the statement, so a racing local writer makes a row fall out of the result instead of
// being overwritten; what falls out is locked, read and resolved (resolve.go).

// fastStmt is one set-based statement in flight and the runs that its ordinals mean.
type fastStmt struct {
	op    wal.Op
	group *batch.Group
	t     *target
	runs  []int
	check []int // columns whose stored values come back, behind the stamp
	at    int   // its place in the pipeline
	put   int   // an insert that left some of its runs alone: how many it has put in
}

// plan sorts the runs of a group by the statement that may write them; the rest needs a
// decision.
type plan struct {
	insert  []int
	update  map[updateKey][]int
	deletes map[statement.Guard][]int
	record  []int // own rows of which only the time is written down
	slow    []int
}

// updateKey is what distinguishes the UPDATE statements of one table: which columns are left
// as they are, which of these have to have a certain digest, and how the overwrite is guarded.
type updateKey struct {
	mask  string
	guard statement.Guard
}

func (a *Applier) plan(g *batch.Group, t *target) plan {
	p := plan{}
	if a.cfg.Self || a.together != nil || a.anew {
		for i := range g.Runs {
			if a.cfg.Self && a.isPlain(g, &g.Runs[i]) {
				p.record = append(p.record, i)
			} else {
				p.slow = append(p.slow, i)
			}
		}
		return p
	}
	some := a.cfg.Index.Any(a.ledger(g.Rel))
	parked := a.cfg.Parked.Any(g.Rel.Ref())
	pol := a.cfg.Policy.table(g.Rel.Ref()).Resolve
	order := pol.Order
	for i := range g.Runs {
		r := &g.Runs[i]
		if r.Stamp.Generation > 0 || r.Base.Stamp.Generation > 0 || r.Base.HasDigest || pol.Skewed(r.Stamp, r.Tx.CommitTime) ||
			((some || parked) && a.mayMatter(g, r)) || t.unlike && r.Op != wal.Insert || g.Kind == conflict.Repair || a.heldHere[r.Tx] || a.contests(g, r) {
			p.slow = append(p.slow, i)
			continue
		}
		switch {
		case r.Op == wal.Insert && r.Image.Complete() && len(t.schema.deferred) == 0:
			p.insert = append(p.insert, i)
		case t.stampless():
			p.slow = append(p.slow, i) // what the local row is has to be seen
		case r.Op == wal.Update && g.Kind == conflict.Live && !t.schema.moves():
			gd, ok := a.guardOf(r, t, order)
			if !ok || !t.writes(r.Image) || (!r.Base.Known && unknown(r.Image)) {
				p.slow = append(p.slow, i)
				continue
			}
			if p.update == nil {
				p.update = map[updateKey][]int{}
			}
			k := updateKey{maskOf(r.Image), gd}
			p.update[k] = append(p.update[k], i)
		case r.Op == wal.Delete && g.Kind == conflict.Live && !r.Born && len(t.schema.references) == 0:
			gd, ok := a.deleteGuardOf(r, t)
			if !ok {
				p.slow = append(p.slow, i)
				continue
			}
			if p.deletes == nil {
				p.deletes = map[statement.Guard][]int{}
			}
			p.deletes[gd] = append(p.deletes[gd], i)
		default:
			p.slow = append(p.slow, i)
		}
	}
	return p
}

// What a mask says of a column.
const (
	maskWrite  = '1'
	maskLeave  = '0'
	maskDigest = 'd' // left as it is, which has to have the digest
)

func maskOf(t wal.Tuple) string {
	if t.Complete() {
		return ""
	}
	m := make([]byte, len(t))
	for i := range t {
		switch t[i].Kind {
		case wal.Unchanged:
			m[i] = maskLeave
		case wal.Digest:
			m[i] = maskDigest
		default:
			m[i] = maskWrite
		}
	}
	return string(m)
}

// writes reports whether an update to the image has a column to set.
func (t *target) writes(image wal.Tuple) bool {
	for _, c := range t.update {
		if !image[c].Absent() {
			return true
		}
	}
	return false
}

// unknown reports whether an image has values of which nothing is known.
func unknown(t wal.Tuple) bool {
	for i := range t {
		if t[i].Kind == wal.Unchanged {
			return true
		}
	}
	return false
}

// queue adds the statements of a plan to a pipeline and returns them in order.
func (a *Applier) queue(ctx context.Context, b *pipeline, g *batch.Group, t *target, p plan) ([]fastStmt, error) {
	var out []fastStmt
	for gd, runs := range p.deletes {
		s := a.keyShape(g, t)
		if err := a.exec(ctx, b, statement.Delete(s, gd), a.keyArrays(g, t, runs, guardArgs(gd, t, true)), []int16{1}); err != nil {
			return nil, err
		}
		out = append(out, fastStmt{op: wal.Delete, group: g, t: t, runs: runs, at: b.n - 1})
	}
	for k, runs := range p.update {
		st, err := a.queueUpdate(ctx, b, g, t, runs, k)
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	if len(p.insert) > 0 {
		st, err := a.queueInsert(ctx, b, g, t, p.insert, false)
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, a.putBack(ctx, b, t)
}

func (a *Applier) queueInsert(ctx context.Context, b *pipeline, g *batch.Group, t *target, runs []int, plain bool) (fastStmt, error) {
	s, args := a.insertRows(g, t, runs)
	s.Plain = s.Plain || plain
	s.Check = t.names(t.check)
	formats := append(stampFormats(s), checkFormats(t.check, binaryColumn(g, runs))...)
	if formats == nil {
		formats = []int16{1} // returning 1
	}
	err := a.exec(ctx, b, statement.Insert(s), args, formats)
	return fastStmt{op: wal.Insert, group: g, t: t, runs: runs, check: t.check, at: b.n - 1}, err
}

// insertRows makes what puts rows in, and its parameters.
func (a *Applier) insertRows(g *batch.Group, t *target, runs []int) (s statement.Shape, args [][]byte) {
	s = t.shape
	s.Values = t.paramsOf(t.insert, binaryColumn(g, runs))
	for n, c := range t.insert {
		args = append(args, a.column(s.Values[n], g, t, c, runs))
	}
	return s, args
}

func (a *Applier) queueUpdate(ctx context.Context, b *pipeline, g *batch.Group, t *target, runs []int, k updateKey) (fastStmt, error) {
	s, args := a.updateRows(g, t, runs, k)
	if len(s.Values) == 0 {
		return fastStmt{}, fmt.Errorf("apply update of %s: no column to write", g.Rel)
	}
	cols := t.assigned(k)
	check := slices.DeleteFunc(slices.Clone(t.check), func(c int) bool {
		return !slices.Contains(cols, c) && (!slices.Contains(t.made, c) || k.mask != "" && k.mask[c] != maskWrite)
	})
	s.Check = t.names(check)
	err := a.exec(ctx, b, statement.Update(s, k.guard), args, slices.Concat([]int16{1}, stampFormats(s), checkFormats(check, binaryColumn(g, runs))))
	return fastStmt{op: wal.Update, group: g, t: t, runs: runs, check: check, at: b.n - 1}, err
}

// updateRows makes what updates rows, and its parameters.
func (a *Applier) updateRows(g *batch.Group, t *target, runs []int, k updateKey) (s statement.Shape, args [][]byte) {
	s = a.keyShape(g, t)
	cols, binary := t.assigned(k), binaryColumn(g, runs)
	same, held := t.held(k, binary)
	s.Key, s.Values = append(s.Key, held...), t.paramsOf(cols, binary)
	args = a.keyArrays(g, t, runs, nil)
	for n, c := range same {
		args = append(args, a.column(held[n], g, t, c, runs))
	}
	for n, c := range cols {
		args = append(args, a.column(s.Values[n], g, t, c, runs))
	}
	if guard := guardArgs(k.guard, t, false); guard != nil {
		args = append(args, guard(a, g, runs)...)
	}
	return s, args
}

// column is the parameter with the values of a column in some runs.
func (a *Applier) column(p statement.Param, g *batch.Group, t *target, c int, runs []int) []byte {
	arr, size := a.array(p, t, c), 0
	for _, i := range runs {
		size += len(g.Runs[i].Image[c].Bytes)
	}
	arr.room(len(runs), size)
	for _, i := range runs {
		arr.value(g.Runs[i].Image[c])
	}
	return arr.param()
}

// assigned are the columns that an update sets.
func (t *target) assigned(k updateKey) []int {
	var cols []int
	for _, c := range t.update {
		if k.mask == "" || k.mask[c] == maskWrite {
			cols = append(cols, c)
		}
	}
	return cols
}

// held are the columns beside the key that have to be as the image says, or the row needs a look: those that cannot be updated, and large values
// of which the event has the digest.
func (t *target) held(k updateKey, binary func(int) bool) (cols []int, params []statement.Param) {
	if k.guard == statement.GuardNone {
		return nil, nil
	}
	cols, params = t.always, t.paramsOf(t.always, binary)
	for c := range k.mask {
		// Over its base, an event leaves what was there, whatever it was.
		if k.guard != statement.GuardBase && k.mask[c] == maskDigest && t.params[c].Name != "" {
			cols = append(cols[:len(cols):len(cols)], c)
			params = append(params, statement.Param{Name: t.params[c].Name, Type: t.params[c].Type, Digest: true})
		}
	}
	return cols, params
}

// keyShape is the table's shape with its key parameters.
func (a *Applier) keyShape(g *batch.Group, t *target) statement.Shape {
	s := t.shape
	s.Key = t.paramsOf(t.key, func(int) bool { return g.Binary })
	return s
}

// keyArrays makes the key parameters, followed by what more adds.
func (a *Applier) keyArrays(g *batch.Group, t *target, runs []int, more func(*Applier, *batch.Group, []int) [][]byte) [][]byte {
	var args [][]byte
	for n, c := range t.key {
		arr := a.array(statement.Param{Binary: g.Binary}, t, c)
		for _, i := range runs {
			arr.value(g.Runs[i].Key[n])
		}
		args = append(args, arr.param())
	}
	if more != nil {
		args = append(args, more(a, g, runs)...)
	}
	return args
}

// names are the columns' names.
func (t *target) names(cols []int) []string {
	out := make([]string, len(cols))
	for n, c := range cols {
		out[n] = t.params[c].Name
	}
	return out
}

// binaryColumn tells whether a column's values travel in binary in these runs. Types without
// a send function stay text within a binary stream.
func binaryColumn(g *batch.Group, runs []int) func(int) bool {
	return func(c int) bool {
		if !g.Binary {
			return false
		}
		for _, i := range runs {
			switch g.Runs[i].Image[c].Kind {
			case wal.Binary:
				return true
			case wal.Text:
				return false
			}
		}
		return false
	}
}

// collect reads the result of one fast statement. It returns the runs that the statement
// left alone, and how many it has put in where that does not say which (partly). Stamps that differ from the event's are an error:
// something rewrites them.
func (a *Applier) collect(rr *pgconn.ResultReader, st fastStmt, done func(i int)) (left []int, put int, err error) {
	if st.op == wal.Insert {
		n := 0
		var bad error
		for rr.NextRow() {
			if n < len(st.runs) && bad == nil {
				bad = a.verify(st, st.runs[n], rr.Values())
			}
			n++
		}
		if _, err := rr.Close(); err != nil {
			return nil, 0, err
		}
		if n == len(st.runs) {
			if bad != nil {
				return nil, 0, bad
			}
			for _, i := range st.runs {
				done(i)
			}
			return nil, 0, nil
		}
		return st.runs, n, nil
	}
	hit := make([]bool, len(st.runs))
	for rr.NextRow() {
		v := rr.Values()
		ord := int(int8Of(v[0])) - 1
		hit[ord] = true
		if st.op == wal.Update && err == nil {
			err = a.verify(st, st.runs[ord], v[1:])
		}
	}
	if _, cerr := rr.Close(); cerr != nil {
		return nil, 0, cerr
	}
	if err != nil {
		return nil, 0, err
	}
	for n, i := range st.runs {
		if hit[n] {
			done(i)
		} else {
			left = append(left, i)
		}
	}
	return left, 0, nil
}
