package apply

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A small batch of which nothing needs a decision goes out at once, in one round trip: checkpoint, rows and commit. There is no BEGIN:
// the server takes all statements up to the end of the flush for one transaction, and rolls it back where one of them fails. What is looked at
// before the commit otherwise, each statement looks at itself, behind its write, and fails:
//
//   - the checkpoint stood where it was expected (pgstore.ErrFenced);
//   - every row was written: no other row was there, or it still was what the event overwrote (the guards of the fast path);
//   - the stored stamps are the event's. Tables that may store something else than what comes do not go this way (plainly);
//   - the table has the name that it had, and the columns and triggers, when it was read, and no constraint is deferrable (guardDefinitions, guardDeferred). A
//     statement has its table locked before it takes the snapshot that it runs with, so it sees every change of the definition that
//     was committed by then, and no other can come before the commit.
//
// If anything of it fails, nothing was written, and the batch is applied as any other one. A single row fails silently: its statement writes
// the checkpoint only where it has written the row, so that one which meets another row leaves no error in the server's log.
//
// What is written beside rows (entries, audit rows, notices) needs a position that is read behind the rows, or a decision. So only
// inserts and updates of tables with stamp columns go this way, by the fast path's own plan, and nothing is known of their keys.
//
// A row that is put where none was must not miss the tombstone of one who does not see it (undisturbed). Elsewhere the commit is announced, and the
// index asked, when the rows are written. Here both are done before they are sent: who announces a key or an own change later than that waits
// for the end of this transaction before it looks, and sees the row; who has announced it before is seen by the question. One who has the
// row of the key, and takes it away or puts it into a later generation, announces nothing. The statement waits for that one then, so the table
// is asked for the entries of all keys behind the writes (queueNone).
//
// So an announced commit may wait for locks, one row after the other, each as long as Config.LockWait says. Who waits for it holds nothing, or gives up sooner (commitsIn).

const (
	// maxAtOnce is how many rows go out at once.
	maxAtOnce = 64
	// maxAtOnceBytes is how large they may be in all.
	maxAtOnceBytes = 256 << 10
	// maxWrites is by how many statements. Each may wait for a lock, and hold those that it has meanwhile (hasten).
	maxWrites = 4
	// maxPassed is how many batches are applied in the other way, at most, before this one is tried again.
	maxPassed = 64
)

// rest counts batches that are not sent at once, because those before them failed: each has cost a round trip, and leaves an error in the server's
// log, or, where a single row was not written, nothing but a commit, which says something only with Config.Marker.
type rest struct {
	left int // so many are not sent
	next int // behind the next one that fails
	went int // in a row
	vain int // single rows in a row that were not written
}

func (r *rest) failed() {
	r.next = min(maxPassed, max(1, 2*r.next))
	r.left, r.went = r.next, 0
}

// unwritten counts half of what failed does: one row now and then that loses is no reason to send others in more round trips.
func (r *rest) unwritten() {
	if r.vain++; r.vain == 2 {
		r.vain = 0
		r.failed()
	}
}

// succeeded forgets slowly: of batches that fail now and then, too, few are to be tried.
func (r *rest) succeeded() {
	r.vain = 0
	if r.went++; r.went%8 == 0 {
		r.next /= 2
	}
}

// applyAtOnce applies whole transactions in one round trip, where that can be done. Where it cannot, nothing is written, and done is false.
func (a *Applier) applyAtOnce(ctx context.Context, txs []keyedTx, next checkpoint.Checkpoint) (done bool, err error) {
	if !a.atOnce(txs, next) {
		return false, nil
	}
	if a.rest.left > 0 {
		a.rest.left--
		return false, nil
	}
	defer func() {
		clear(a.touched)
		a.forgetNames()
		a.used = 0
	}()
	if err := a.takeTurn(ctx, taker{}); err != nil {
		return false, err
	}
	defer a.cfg.Batches.end(a.holder())
	a.forgetNames()
	b, runs, ok := a.queueAtOnce(ctx, txs, next)
	if !ok {
		return false, nil
	}
	a.cfg.Index.Committing(a.holder())
	if !a.alone(runs) {
		a.cfg.Index.Settle(a.holder(), false)
		return false, nil
	}
	if err := failpoint.Hit("apply_before_commit"); err != nil {
		a.cfg.Index.Settle(a.holder(), false)
		return false, err
	}
	a.committing = true
	written, err := a.sendAtOnce(ctx, b)
	switch {
	case err != nil && (a.conn.IsClosed() || ctx.Err() != nil):
		// Close says that nobody knows how it ended.
		return false, fmt.Errorf("commit: %w", err)
	case err != nil || !written:
		// The server has rolled it back; or there was nothing to commit.
		a.committing = false
		a.cfg.Index.Settle(a.holder(), false)
		if err != nil {
			a.rest.failed()
		} else {
			a.rest.unwritten()
		}
		return false, nil
	}
	a.committing = false
	a.rest.succeeded()
	a.cfg.Index.Settle(a.holder(), true)
	if err := failpoint.Hit("apply_after_commit"); err != nil {
		return false, err
	}
	a.committed(txs, next, &effects{rows: uint64(len(runs))})
	return true, nil
}

// atOnce reports whether a batch may be one that goes out at once, by what is known without looking at its tables.
func (a *Applier) atOnce(txs []keyedTx, next checkpoint.Checkpoint) bool {
	if !a.cfg.Replica || a.cfg.Self || a.retrying || a.open || a.resync || a.anew || a.plain || a.together != nil || a.settings.on {
		return false
	}
	if was := a.cp.Epoch.SystemID; was != 0 && was != next.Epoch.SystemID {
		return false
	}
	if a.cfg.LockWait > 0 && a.cfg.Giants.others(a.holder()) || failpoint.Armed("apply_after_first_dml") || failpoint.Armed("apply_after_dml") {
		return false
	}
	changes, size := 0, 0
	for _, k := range txs {
		if k.kind != conflict.Live || len(k.tx.Notices) > 0 || a.heldHere[k.tx] {
			return false
		}
		for i := range k.tx.Changes {
			ch := &k.tx.Changes[i]
			if ch.Op != wal.Insert && ch.Op != wal.Update || ch.Repair {
				return false
			}
			size += ch.New.Size() + ch.Old.Size()
		}
		changes += len(k.tx.Changes)
	}
	return changes > 0 && changes <= maxAtOnce && size <= maxAtOnceBytes
}

// plainly reports whether a table stores what comes and nothing else, and nothing else comes of a write.
func (t *target) plainly() bool {
	s := t.schema
	return !t.keyless() && !t.stampless() && !t.unlike && len(t.check) == 0 && t.matched == nil && !t.shape.VersionText && !t.shape.TimeText && !t.shape.Plain &&
		s.immediate && len(s.deferred) == 0 && len(s.late) == 0 && !s.fires && !s.disturbs && !s.after && !s.rewrites && !s.moves() && s.attributes != ""
}

// putRun is a run that goes out at once.
type putRun struct {
	g *batch.Group
	i int
}

// queueAtOnce makes the statements of a batch; ok is false where something of it has to go the other way. All that is asked of the server is asked
// outside of a transaction.
func (a *Applier) queueAtOnce(ctx context.Context, txs []keyedTx, next checkpoint.Checkpoint) (b *pipeline, runs []putRun, ok bool) {
	if a.askKeys(ctx, txs) != nil {
		return nil, nil, false // said by the other way
	}
	a.batch.Reset()
	for _, k := range txs {
		a.batch.Expect(k.tx)
	}
	for _, k := range txs {
		a.batch.AddPicked(k.tx, k.kind, k.places)
	}
	groups := a.batch.Groups
	if waveLen(groups) != len(groups) {
		return nil, nil, false
	}
	targets, plans, writes := make([]*target, len(groups)), make([]plan, len(groups)), 0
	for n, g := range groups {
		a.cfg.Suspects.shapes.see(g.Rel)
		a.cfg.Suspects.columns.See(g.Rel)
		t, err := a.target(ctx, g.Rel)
		if err == nil {
			err = a.unnumbered(g.Rel, t)
		}
		if err != nil || !t.plainly() || a.settings.on {
			return nil, nil, false
		}
		p := a.plan(g, t)
		if len(p.slow)+len(p.record)+len(p.deletes)+len(g.Exact)+len(g.Truncs) > 0 {
			return nil, nil, false
		}
		for i := range g.Runs {
			if s := g.Runs[i].Stamp; t.shape.UpdatedAt != "" && !ordinary(s.UpdatedAt) {
				return nil, nil, false
			}
			runs = append(runs, putRun{g, i})
		}
		if writes += len(p.update) + min(1, len(p.insert)); writes > maxWrites {
			return nil, nil, false
		}
		targets[n], plans[n] = t, p
	}
	if len(a.matching) > 0 || len(a.cfg.Suspects.columns.Unstored()) > 0 {
		return nil, nil, false // written beside the rows
	}
	b = &pipeline{fence: -1}
	if a.cfg.Marker != nil {
		if a.exec(ctx, b, "select pg_catalog.pg_logical_emit_message(true, 'pgwaltz.apply', $1::bytea)", [][]byte{a.cfg.Marker}, []int16{0}) != nil {
			return nil, nil, false
		}
	}
	if len(runs) == 1 {
		return b, runs, a.queueRow(ctx, b, groups[0], targets[0], plans[0], next) == nil && a.queueNone(ctx, b, groups[0]) == nil
	}
	// First, so that a second applier waits at once and is found out before it has written anything.
	if a.execText(ctx, b, "with s as ("+pgstore.SaveSQL+" returning 1) select 1 / (count(*) = 1)::int from s", a.saveArgs(next)) != nil {
		return nil, nil, false
	}
	for n, g := range groups {
		if a.queueRows(ctx, b, g, targets[n], plans[n]) != nil {
			return nil, nil, false
		}
	}
	for _, g := range groups {
		if a.queueNone(ctx, b, g) != nil {
			return nil, nil, false
		}
	}
	return b, runs, true
}

// sure is the condition that the table is what it was when it was read, and is called as it was. It has the parameters of sureArgs, behind the first skip: what a
// table was is no part of the text, or each ALTER TABLE would leave a prepared statement behind in the session.
func sure(skip int) string {
	oid, attributes, triggers, schema, name := "$"+strconv.Itoa(skip+1)+"::int8::pg_catalog.oid", "$"+strconv.Itoa(skip+2)+"::text", "$"+strconv.Itoa(skip+3)+"::text", "$"+strconv.Itoa(skip+4)+"::text", "$"+strconv.Itoa(skip+5)+"::text"
	return "(" + attributesOf(oid) + ") = " + attributes + "::pg_catalog.xid[] and " + triggersOf(oid) + " = " + triggers +
		" and exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace m on m.oid = c.relnamespace where c.oid = " + oid +
		" and c.relname = " + name + " and m.nspname = " + schema + ")" +
		" and not exists (select from pg_catalog.pg_index i where i.indrelid = " + oid + " and not i.indimmediate and (i.indisunique or i.indisexclusion))"
}

// sureArgs are the parameters of sure, in binary form.
func (t *target) sureArgs() [][]byte {
	s := t.schema
	return [][]byte{binary.BigEndian.AppendUint64(nil, uint64(s.oid)), []byte(s.attributes), []byte(s.triggers), []byte(s.name.Schema), []byte(s.name.Name)}
}

// sureParams is how many these are.
const sureParams = 5

// parameters are those of a statement, in the form in which they travel.
type parameters struct {
	args    [][]byte
	formats []int16
}

// value adds a value of a row.
func (p *parameters) value(v wal.Value) {
	switch v.Kind {
	case wal.Text:
		p.args, p.formats = append(p.args, textArg(v)), append(p.formats, 0)
	case wal.Binary, wal.Digest:
		p.binary(textArg(v))
	default:
		p.binary(nil)
	}
}

// binary adds a value in binary form; nil is NULL.
func (p *parameters) binary(v []byte) { p.args, p.formats = append(p.args, v), append(p.formats, 1) }

func (p *parameters) version(v int64) {
	if v == wal.NullVersion {
		p.binary(nil)
		return
	}
	p.binary(binary.BigEndian.AppendUint64(nil, uint64(v)))
}

// micros adds an ordinary time.
func (p *parameters) micros(m wal.Micros) {
	p.binary(binary.BigEndian.AppendUint64(nil, uint64(int64(m)-pgEpoch)))
}

// stamp adds the columns of a stamp that the table has.
func (p *parameters) stamp(s statement.Shape, st wal.Stamp) {
	if s.Version != "" {
		p.version(st.Version)
	}
	if s.UpdatedAt != "" {
		p.micros(st.UpdatedAt)
	}
}

// guard adds what the guard of an update compares with.
func (p *parameters) guard(s statement.Shape, gd statement.Guard, r *batch.Run) {
	switch gd {
	case statement.GuardBase:
		p.stamp(s, r.Base.Stamp)
	case statement.GuardVersion:
		p.version(r.Stamp.Version)
	case statement.GuardTime:
		p.micros(r.Stamp.UpdatedAt)
	}
}

// queueRow queues the statement that writes the only row of a batch, and the checkpoint with it.
func (a *Applier) queueRow(ctx context.Context, b *pipeline, g *batch.Group, t *target, plan plan, next checkpoint.Checkpoint) error {
	p := parameters{args: a.saveArgs(next)}
	p.formats = make([]int16, len(p.args))
	r, shape := &g.Runs[0], rowShape{insert: len(plan.insert) > 0}
	inBinary := binaryColumn(g, []int{0})
	cols := t.insert
	if !shape.insert {
		for shape.updateKey = range plan.update { // there is one
		}
		cols = t.assigned(shape.updateKey)
		same, _ := t.held(shape.updateKey, inBinary)
		for _, v := range r.Key {
			p.value(v)
		}
		for _, c := range same {
			p.value(r.Image[c])
		}
	}
	for _, c := range cols {
		p.value(r.Image[c])
	}
	p.guard(t.shape, shape.guard, r)
	sql, ok := t.rows[shape]
	if !ok || g.Binary {
		sql = a.rowSQL(g, t, shape, cols, inBinary, len(p.args))
		if t.rows == nil {
			t.rows = map[rowShape]string{}
		}
		if !g.Binary {
			t.rows[shape] = sql
		}
	}
	for _, v := range t.sureArgs() {
		p.binary(v)
	}
	p.stamp(t.shape, r.Stamp)
	name, err := a.prepare(ctx, sql)
	if err != nil {
		return err
	}
	b.batch.ExecPrepared(name, p.args, p.formats, []int16{1})
	b.n++
	b.row = b.n
	return nil
}

// rowShape is what distinguishes the statements that write a single row of a table, whose values are texts.
type rowShape struct {
	insert bool
	updateKey
}

// rowSQL makes the statement of queueRow, which has so many parameters in front of those of sure and the stamp.
func (a *Applier) rowSQL(g *batch.Group, t *target, shape rowShape, cols []int, inBinary func(int) bool, params int) string {
	skip := len(a.saveArgs(a.cp))
	if shape.insert {
		s := t.shape
		s.Values = t.paramsOf(cols, inBinary)
		return statement.RowOrFails(s, statement.InsertRow(s, skip), pgstore.SaveSQL, params+sureParams, sure(params))
	}
	s := a.keyShape(g, t)
	_, held := t.held(shape.updateKey, inBinary)
	s.Key, s.Values = append(s.Key, held...), t.paramsOf(cols, inBinary)
	return statement.RowOrFails(s, statement.UpdateRow(s, shape.guard, skip), pgstore.SaveSQL, params+sureParams, sure(params))
}

// queueRows queues the statements that write the rows of a group.
func (a *Applier) queueRows(ctx context.Context, b *pipeline, g *batch.Group, t *target, plan plan) error {
	behind := func(args [][]byte, runs []int) [][]byte {
		args = append(args, t.sureArgs()...)
		versions, times := a.scratch(wal.OIDInt8), a.scratch(wal.OIDTimestamptz)
		for _, i := range runs {
			if v := g.Runs[i].Stamp.Version; v == wal.NullVersion {
				versions.null()
			} else {
				versions.int8(v)
			}
			times.micros(g.Runs[i].Stamp.UpdatedAt)
		}
		if t.shape.Version != "" {
			args = append(args, versions.param())
		}
		if t.shape.UpdatedAt != "" {
			args = append(args, times.param())
		}
		return args
	}
	for k, runs := range plan.update {
		s, args := a.updateRows(g, t, runs, k)
		sql := statement.WrittenOrFails(s, statement.Update(s, k.guard), true, len(args)+sureParams, sure(len(args)))
		if err := a.exec(ctx, b, sql, behind(args, runs), []int16{1}); err != nil {
			return err
		}
	}
	if len(plan.insert) == 0 {
		return nil
	}
	s, args := a.insertRows(g, t, plan.insert)
	sql := statement.WrittenOrFails(s, statement.Insert(s), false, len(args)+sureParams, sure(len(args)))
	return a.exec(ctx, b, sql, behind(args, plan.insert), []int16{1})
}

// queueNone queues the question whether the keys of a group have entries by now. It has to be a statement of its own, behind the one that wrote
// the rows: that may have waited for who took a row away, or put it into a later generation (unlifted).
func (a *Applier) queueNone(ctx context.Context, b *pipeline, g *batch.Group) error {
	keys := a.scratch(wal.OIDText)
	for i := range g.Runs {
		keys.bytes([]byte(g.KeyText(&g.Runs[i])))
	}
	return a.exec(ctx, b, tombstone.NoneSQL, [][]byte{[]byte(tombstone.RelationText(a.ledger(g.Rel))), keys.param()}, []int16{1})
}

// alone reports whether nothing is known of the keys, and no row that is put can meet what another one decides about its key. The commit is announced.
func (a *Applier) alone(runs []putRun) bool {
	x := a.cfg.Index
	for _, p := range runs {
		rel, r := a.ledger(p.g.Rel), &p.g.Runs[p.i]
		some := x.Any(rel)
		if (some || a.cfg.Parked.Any(p.g.Rel.Ref())) && a.mayMatter(p.g, r) || some && r.Op == wal.Insert && x.Meets(a.holder(), rel, p.g.KeyText(r)) != tombstone.Alone {
			return false
		}
	}
	return true
}

// sendAtOnce sends the statements and waits until they are committed. written is false where the only row was not.
func (a *Applier) sendAtOnce(ctx context.Context, b *pipeline) (written bool, err error) {
	a.cfg.Batches.moved(a.holder())
	mrr := a.conn.PgConn().ExecBatch(ctx, &b.batch)
	written = true
	for n := 1; mrr.NextResult(); n++ {
		rr := mrr.ResultReader()
		for rr.NextRow() {
			if n == b.row {
				written = int8Of(rr.Values()[0]) == 1
			}
		}
		if _, err := rr.Close(); err != nil {
			break // Close has it as well
		}
	}
	return written, mrr.Close()
}
