package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Config says whose changes are applied, and how.
type Config struct {
	Region string // this region
	Origin string // whose changes
	// Self: the changes are this region's own, published ones. They are in the tables
	// already; what is left is to record their graves and stamps, and to put right what a
	// remote change overwrote before the local one was known (self-merge).
	Self bool
	// Peer names the other region in audit rows of the self-merge.
	Peer string
	// Connect opens the apply session: settings pinned, ordinary triggers switched off or
	// the restorer told to work, replication origin set up where granted.
	Connect func(ctx context.Context) (*pgx.Conn, error)
	// Replica: ordinary triggers do not fire in the apply session.
	Replica bool
	// Marker is the content of the logical message that marks every transaction as applied;
	// nil when the session carries a replication origin instead.
	Marker []byte
	Policy Policy
	Index  *tombstone.Index
	// Redact masks columns in the audit log; nil masks none.
	Redact *audit.Redactor
	// Barrier waits until this region's own changes that are committed by now are known;
	// nil when nothing is published from here.
	Barrier func(ctx context.Context) error
	// Superseded reports whether a later own change of the key is on its way; self-merge
	// only.
	Superseded func(ctx context.Context, rel wal.RelationName, key string, commit wal.LSN, part uint32) (bool, error)
	// Pushback takes the local entries that beat remote changes, after the commit; nil for
	// none.
	Pushback func([]*wal.Transaction)
	Log      *slog.Logger
}

// Policy says for each table where stamps are and how they are compared.
type Policy interface {
	table(wal.RelationName) TablePolicy
	stampColumns(wal.RelationName) (version, updatedAt string)
}

// TablePolicy is the policy of one table.
type TablePolicy struct {
	Version, UpdatedAt string
	Order              conflict.Order
	Resolve            conflict.Policy
}

// PolicyFunc makes a Policy of a function.
type PolicyFunc func(wal.RelationName) TablePolicy

func (f PolicyFunc) table(n wal.RelationName) TablePolicy { return f(n) }
func (f PolicyFunc) stampColumns(n wal.RelationName) (string, string) {
	p := f(n)
	return p.Version, p.UpdatedAt
}

// Stats counts since the start of the process. Safe to read from anywhere.
type Stats struct {
	Transactions, Rows, Conflicts, Parked, Retries, Batches, Ordered atomic.Uint64
}

// Applier writes the changes of one origin into the local database. It belongs to one
// goroutine. Redelivery is harmless: what the checkpoint row covers is left out, and the
// checkpoint moves in the transaction of the rows.
type Applier struct {
	cfg    Config
	conn   *pgx.Conn
	cp     checkpoint.Checkpoint
	loaded bool

	tables   map[wal.RelationName]*tableSchema
	targets  map[*wal.Relation]*target
	prepared map[string]string
	arrays   []array
	used     int
	parked   parkedSet

	open    bool // a transaction of many parts is being applied
	openFx  effects
	plain   bool // inserts are to fail rather than to be left out
	barrier bool // the barrier has been waited for in this attempt

	batch   *batch.Batch
	Stats   Stats
	onAudit func([]audit.Record)
	imager  *audit.Imager
}

// New prepares an applier; Open connects.
func New(cfg Config) *Applier {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &Applier{cfg: cfg, batch: batch.New(), imager: audit.NewImager(cfg.Redact)}
	a.batch.Policy = func(n wal.RelationName) conflict.Policy { return cfg.Policy.table(n).Resolve }
	return a
}

// OnAudit is told of every conflict that was committed; set it before Open.
func (a *Applier) OnAudit(f func([]audit.Record)) { a.onAudit = f }

// Open connects and reads the checkpoint. Called again after an error, it starts afresh.
func (a *Applier) Open(ctx context.Context) (checkpoint.Checkpoint, error) {
	a.Close()
	conn, err := a.cfg.Connect(ctx)
	if err != nil {
		return checkpoint.Checkpoint{}, err
	}
	a.conn = conn
	a.tables = map[wal.RelationName]*tableSchema{}
	a.targets = map[*wal.Relation]*target{}
	a.prepared = map[string]string{}
	a.open, a.openFx = false, effects{}
	cp, found, err := pgstore.Load(ctx, conn, a.cfg.Origin)
	if err != nil {
		return checkpoint.Checkpoint{}, err
	}
	if !found {
		cp = checkpoint.Checkpoint{Origin: a.cfg.Origin}
		if _, err := pgstore.Init(ctx, conn, cp); err != nil {
			return checkpoint.Checkpoint{}, err
		}
	}
	if err := a.parked.load(ctx, conn, cp.Origin); err != nil {
		return checkpoint.Checkpoint{}, err
	}
	a.cp = cp
	return cp, nil
}

// Close ends the session; an open transaction is rolled back by the server.
func (a *Applier) Close() {
	if a.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	a.conn.Close(ctx)
	a.conn = nil
}

// Checkpoint is the position of the last commit.
func (a *Applier) Checkpoint() checkpoint.Checkpoint { return a.cp }

// InParts reports whether a transaction of many parts is open; then the next part has to come
// before anything else is applied.
func (a *Applier) InParts() bool { return a.open }

// Abandon gives up a transaction of many parts whose end will not come; its parts come again.
func (a *Applier) Abandon(ctx context.Context) error {
	if !a.open {
		return nil
	}
	return a.rollback(ctx)
}

// Unit is what one local transaction applies: some packets, in order.
type Unit struct {
	Transactions []*wal.Transaction
	Kind         conflict.EventKind
	// Next is the checkpoint after the unit.
	Next checkpoint.Checkpoint
}

// Apply applies units in one local transaction and commits, unless the last transaction is a
// part with more to come: then the local transaction stays open for the next call. Temporary
// failures (deadlock, serialization, lock timeout, a racing local writer) are tried again
// here; rows that cannot be applied are parked. What it returns is for the caller to
// reconnect on, or to stop.
func (a *Applier) Apply(ctx context.Context, units []Unit) error {
	var txs []keyedTx
	for i := range units {
		u := &units[i]
		for _, tx := range u.Transactions {
			if a.covered(tx, u) {
				continue
			}
			txs = append(txs, keyedTx{tx, u.Kind})
		}
	}
	next := units[len(units)-1].Next
	next.Transactions = a.cp.Transactions
	more := false
	for _, k := range txs {
		if k.kind == conflict.Live && !k.tx.More {
			next.Transactions++
		}
		more = k.tx.More
	}
	resync := next.Incarnation > a.cp.Incarnation // only a new incarnation may lead backwards
	if err := checkpoint.MustAdvance(a.cp, next, resync); err != nil && a.cp.Incarnation != 0 {
		return err
	}
	if a.open || more {
		return a.applyPart(ctx, txs, next, more)
	}
	if len(txs) == 0 && next.EndLSN == a.cp.EndLSN && next.FrameNo == a.cp.FrameNo {
		return nil
	}
	return a.applyWhole(ctx, txs, next)
}

type keyedTx struct {
	tx   *wal.Transaction
	kind conflict.EventKind
}

// covered reports whether the checkpoint covers a transaction: it was applied before, in an
// earlier incarnation of the stream. Parts carry no end; their commit position says enough,
// because a commit at or below the checkpoint's end is behind it.
func (a *Applier) covered(tx *wal.Transaction, u *Unit) bool {
	if (u.Kind != conflict.Live && u.Kind != conflict.Self) || !a.cp.Epoch.SameLog(u.Next.Epoch) {
		return false
	}
	if tx.EndLSN != 0 {
		return tx.EndLSN <= a.cp.EndLSN
	}
	return tx.CommitLSN < a.cp.EndLSN
}

// applyWhole applies whole transactions and commits.
func (a *Applier) applyWhole(ctx context.Context, txs []keyedTx, next checkpoint.Checkpoint) error {
	ordered, races := false, 0
	for attempt := 0; ; attempt++ {
		fx := effects{}
		err := a.attempt(ctx, txs, next, ordered, &fx)
		if err == nil {
			a.committed(txs, next, &fx)
			return nil
		}
		if rerr := a.rollback(ctx); rerr != nil {
			return errors.Join(err, rerr)
		}
		switch {
		case ctx.Err() != nil:
			return err
		case errors.Is(err, errBarrier):
			if err := a.cfg.Barrier(ctx); err != nil {
				return err
			}
			a.barrier = true
			defer func() { a.barrier = false }()
		case errors.Is(err, errRace) && races < 3:
			races++
		case retryable(err):
			a.Stats.Retries.Add(1)
			if attempt > 20 {
				return err
			}
			if err := pause(ctx, time.Duration(1+attempt)*5*time.Millisecond); err != nil {
				return err
			}
		case (rowError(err) || errors.Is(err, errRace)) && !ordered:
			a.cfg.Log.Info("applying one by one", "origin", a.cfg.Origin, "reason", publicError(err))
			a.Stats.Ordered.Add(1)
			ordered = true
		default:
			return err
		}
		a.forgetSchemas()
	}
}

// attempt is one try of a batch: begin, rows, side effects, checkpoint, commit.
func (a *Applier) attempt(ctx context.Context, txs []keyedTx, next checkpoint.Checkpoint, ordered bool, fx *effects) error {
	b := pipeline{fence: -1}
	if err := a.begin(ctx, &b); err != nil {
		return err
	}
	a.saveCheckpoint(&b, next)
	var err error
	if ordered {
		if err = a.run(ctx, &b, nil, nil, nil); err == nil {
			err = a.ordered(ctx, txs, fx)
		}
	} else {
		err = a.set(ctx, &b, txs, fx)
	}
	if err != nil {
		return err
	}
	return a.commit(ctx, fx, next)
}

// set applies transactions set-based. b holds what goes first.
//
// A table that has several groups gets them one after the other, in waves: what one group
// buries, the next one has to find.
func (a *Applier) set(ctx context.Context, b *pipeline, txs []keyedTx, fx *effects) error {
	a.batch.Reset()
	for _, k := range txs {
		a.batch.Add(k.tx, k.kind)
	}
	groups := a.batch.Groups
	for {
		n := wave(groups)
		if err := a.wave(ctx, b, groups[:n], fx); err != nil {
			return err
		}
		if groups = groups[n:]; len(groups) == 0 {
			return failpoint.Hit("apply_after_dml")
		}
		if err := a.spill(ctx, fx); err != nil {
			return err
		}
		b = &pipeline{fence: -1}
	}
}

// wave is how many groups, from the first, belong to different tables.
func wave(groups []*batch.Group) int {
	seen := make(map[wal.RelationName]bool, len(groups))
	for n, g := range groups {
		if seen[g.Rel.Ref()] {
			return n
		}
		seen[g.Rel.Ref()] = true
	}
	return len(groups)
}

// wave applies groups of different tables: the fast statements in one round trip, then what
// they left alone.
func (a *Applier) wave(ctx context.Context, b *pipeline, groups []*batch.Group, fx *effects) error {
	var stmts []fastStmt
	left := map[*batch.Group][]int{}
	keep := func(st fastStmt, runs []int) error {
		left[st.group] = append(left[st.group], runs...)
		return nil
	}
	slow := map[*batch.Group][]int{}
	for _, g := range groups {
		t, err := a.target(ctx, g.Rel)
		if err != nil {
			return err
		}
		a.truncates(g, fx)
		if t.keyless() {
			if err := a.run(ctx, b, stmts, keep, a.doneInto(fx)); err != nil {
				return err
			}
			stmts, b = nil, &pipeline{fence: -1}
			if err := a.exact(ctx, g, t, fx); err != nil {
				return err
			}
			continue
		}
		p := a.plan(g, t)
		if a.mayCopy(g, t, p.insert) {
			if err := a.run(ctx, b, stmts, keep, a.doneInto(fx)); err != nil {
				return err
			}
			stmts, b = nil, &pipeline{fence: -1}
			ok, err := a.copyIn(ctx, g, t, p.insert)
			if err != nil {
				return err
			}
			if ok {
				for _, i := range p.insert {
					a.fastDone(fastStmt{op: wal.Insert, group: g, t: t}, i, fx)
				}
				p.insert = nil
			}
		}
		st, err := a.queue(ctx, b, g, t, p)
		if err != nil {
			return err
		}
		stmts = append(stmts, st...)
		slow[g] = p.slow
	}
	if err := a.run(ctx, b, stmts, keep, a.doneInto(fx)); err != nil {
		return err
	}
	if err := failpoint.Hit("apply_after_first_dml"); err != nil {
		return err
	}
	for _, g := range groups {
		runs := append(left[g], slow[g]...)
		if len(runs) == 0 {
			continue
		}
		t, err := a.target(ctx, g.Rel)
		if err != nil {
			return err
		}
		if err := a.resolve(ctx, g, t, runs, fx); err != nil {
			return err
		}
	}
	return nil
}

// spill writes the side effects gathered so far, within the transaction, so that what follows
// in it finds them.
func (a *Applier) spill(ctx context.Context, fx *effects) error {
	at, err := a.effectsLSN(ctx, fx, a.cp)
	if err != nil {
		return err
	}
	a.indexGraves(fx, at)
	b := fx.queue(a, at)
	if b.Len() > 0 {
		if err := a.conn.SendBatch(ctx, b).Close(); err != nil {
			return fmt.Errorf("write audit rows and tombstones: %w", err)
		}
	}
	fx.graves, fx.stamps, fx.unbury = nil, nil, nil
	fx.told = append(fx.told, fx.audit...)
	fx.audit = nil
	return nil
}

func (a *Applier) doneInto(fx *effects) func(fastStmt, int) {
	return func(st fastStmt, i int) { a.fastDone(st, i, fx) }
}

// truncates notes truncates, which are never applied across regions.
func (a *Applier) truncates(g *batch.Group, fx *effects) {
	for _, tx := range g.Truncs {
		fx.audit = append(fx.audit, a.plainRecord(g.Rel, conflict.Truncate, "truncate", tx,
			conflict.Side{Known: true, Stamp: wal.Stamp{UpdatedAt: tx.CommitTime}}))
	}
}

// begin queues the statements that open an apply transaction. The marker goes first, so that
// the publisher knows at once what it reads.
func (a *Applier) begin(ctx context.Context, b *pipeline) error {
	b.text("begin")
	if a.cfg.Marker != nil {
		return a.exec(ctx, b, "select pg_catalog.pg_logical_emit_message(true, 'pgwaltz.apply', $1::bytea)", [][]byte{a.cfg.Marker}, []int16{0})
	}
	return nil
}

// saveCheckpoint queues the move of the checkpoint. It stands before the rows, so that a
// second applier waits at once and is found out before it has written anything.
func (a *Applier) saveCheckpoint(b *pipeline, next checkpoint.Checkpoint) {
	b.fence = b.n
	b.text(pgstore.SaveSQL,
		[]byte(a.cfg.Origin), number(uint64(a.cp.Incarnation)), number(a.cp.FrameNo),
		number(next.Epoch.SystemID), number(uint64(next.Epoch.Timeline)), []byte(next.Epoch.Slot),
		number(uint64(next.Incarnation)), number(next.FrameNo), []byte(next.EndLSN.String()),
		fmt.Appendf(nil, "\\x%x", next.Chain), number(next.StreamSeq), number(next.Transactions),
		microsText(next.CommitTime), microsText(wal.MicrosOf(time.Now())))
}

func number(n uint64) []byte { return strconv.AppendUint(nil, n, 10) }

func microsText(m wal.Micros) []byte {
	if m == wal.MinMicros || m == wal.MaxMicros || m == 0 {
		return nil
	}
	return []byte(m.String())
}

// commit writes the side effects and commits.
func (a *Applier) commit(ctx context.Context, fx *effects, next checkpoint.Checkpoint) error {
	at, err := a.effectsLSN(ctx, fx, next)
	if err != nil {
		return err
	}
	a.indexGraves(fx, at)
	b := fx.queue(a, at)
	if err := failpoint.Hit("apply_before_commit"); err != nil {
		return err
	}
	if b.Len() > 0 {
		if err := a.conn.SendBatch(ctx, b).Close(); err != nil {
			return fmt.Errorf("write audit rows and tombstones: %w", err)
		}
	}
	c := pipeline{fence: -1}
	c.text("commit")
	if err := a.run(ctx, &c, nil, nil, nil); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return failpoint.Hit("apply_after_commit")
}

// effectsLSN is the local position that graves and stamps of this transaction carry.
func (a *Applier) effectsLSN(ctx context.Context, fx *effects, next checkpoint.Checkpoint) (wal.LSN, error) {
	if a.cfg.Self {
		return next.EndLSN, nil
	}
	if len(fx.graves)+len(fx.stamps) == 0 {
		return 0, nil
	}
	var s string
	if err := a.conn.QueryRow(ctx, `select pg_catalog.pg_current_wal_insert_lsn()::text`).Scan(&s); err != nil {
		return 0, fmt.Errorf("read local log position: %w", err)
	}
	return wal.ParseLSN(s)
}

// committed books a commit.
func (a *Applier) committed(txs []keyedTx, next checkpoint.Checkpoint, fx *effects) {
	a.cp = next
	a.Stats.Batches.Add(1)
	a.Stats.Rows.Add(fx.rows)
	n := uint64(0)
	for _, k := range txs {
		if k.kind == conflict.Live && !k.tx.More {
			n++
		}
	}
	a.Stats.Transactions.Add(n)
	if told := append(fx.told, fx.audit...); len(told) > 0 {
		a.Stats.Conflicts.Add(uint64(len(told)))
		if a.onAudit != nil {
			a.onAudit(told)
		}
	}
	if len(fx.unpark) > 0 {
		a.parked.stale = true
	}
	if len(fx.pushback) > 0 {
		a.cfg.Pushback(fx.pushback)
	}
}

func (a *Applier) rollback(ctx context.Context) error {
	a.open, a.openFx = false, effects{}
	if a.conn.IsClosed() {
		return errors.New("the connection to the local server is gone")
	}
	if _, err := a.conn.Exec(ctx, "rollback"); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	return nil
}

// target returns the mapping of a relation onto the local table.
func (a *Applier) target(ctx context.Context, rel *wal.Relation) (*target, error) {
	if t := a.targets[rel]; t != nil {
		return t, nil
	}
	s := a.tables[rel.Ref()]
	if s == nil {
		var err error
		if s, err = loadSchema(ctx, a.conn, rel.Ref()); err != nil {
			return nil, err
		}
		a.tables[rel.Ref()] = s
	}
	t, err := newTarget(s, rel, a.cfg.Policy)
	if err != nil {
		delete(a.tables, rel.Ref())
		return nil, err
	}
	if len(a.targets) > 4096 {
		clear(a.targets)
	}
	a.targets[rel] = t
	return t, nil
}

// forgetSchemas makes the next attempt read the catalog again.
func (a *Applier) forgetSchemas() {
	clear(a.tables)
	clear(a.targets)
}

// array hands out a parameter buffer for a column; it stays in use until the pipeline it is
// in was sent.
func (a *Applier) array(p statement.Param, t *target, c int) *array {
	oid := uint32(oidText)
	if p.Binary {
		oid = t.rel.Columns[c].OID
	}
	return a.scratch(oid)
}

func (a *Applier) scratch(oid uint32) *array {
	if a.used == len(a.arrays) {
		a.arrays = append(a.arrays, make([]array, 64)...)
	}
	arr := &a.arrays[a.used]
	a.used++
	if cap(arr.buf) > 4<<20 {
		arr.buf = nil // a giant row must not keep its memory
	}
	arr.reset(oid)
	return arr
}

// retryable reports whether the same transaction may succeed when tried again.
func retryable(err error) bool {
	switch sqlState(err) {
	case "40001", "40P01", "55P03":
		return true
	}
	return false
}

// publicError is an error without row values: PostgreSQL's message and detail may quote them.
func publicError(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		s := "SQLSTATE " + pe.Code
		if pe.TableName != "" {
			s += " in " + pe.SchemaName + "." + pe.TableName
		}
		if pe.ConstraintName != "" {
			s += ", constraint " + pe.ConstraintName
		}
		return s
	}
	return err.Error()
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
