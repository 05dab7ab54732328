package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Applier writes the changes of one origin into the local database. It belongs to one
// goroutine. Redelivery is harmless: what the checkpoint row covers is left out, and the
// checkpoint moves in the transaction of the rows.
type Applier struct {
	cfg  Config
	conn *pgx.Conn
	cp   checkpoint.Checkpoint

	tables   map[wal.RelationName]*tableSchema
	touched  map[uint32]struct{} // tables of this attempt that are taken for ones without deferrable constraints
	targets  map[*wal.Relation]*target
	named    map[*tableSchema]struct{}   // definitions that this attempt relies on
	matching map[*target]struct{}        // those of its targets that match columns for the first time
	oids     map[wal.RelationName]uint32 // of the tables as they were last read
	prepared map[string]string
	arrays   []array
	used     int
	written  map[*batch.Group]*written // by the wave in hand
	settings settings
	encoding encoding
	retrying bool                               // parked changes are tried again: what fails stays parked
	retryID  int64                              // the first of them
	cameAs   map[*wal.Transaction]*wal.Relation // own changes that have waited, of tables that are called otherwise by now
	heldHere map[*wal.Transaction]bool          // those that were held here (conflict.Waiting.Held)
	resync   bool                               // the batch in hand opens an incarnation that admits a gap

	began   time.Time   // of the open transaction
	hasty   bool        // it waits for locks a moment only
	lock    string      // the statement by which it said how long; "" for none
	open    bool        // a transaction of many parts is being applied
	order   batch.Parts // which part comes next
	openFx  effects
	openPut map[uint64]openPut // rows, by the hash of their keys, that its earlier parts have put where none was
	// openDeferred are the tables that it has written, and whose deferrable constraints are looked at when all parts are in.
	openDeferred map[wal.RelationName]*target
	plain        bool // inserts are to fail rather than to be left out
	inHand       bool // Suspects knows which single change is being tried
	// together, if not nil, takes the statements that write rows, which are run as one at the end.
	together  *together
	gathering bool    // the statement in hand is one of them
	anew      bool    // rows that are changed are taken out and put in again, see ring.go
	at        wal.LSN // the end of the WAL, as it was read behind the statements that were run last; 0: it was not
	barrier   bool    // the barrier has been waited for in this attempt
	overdue   bool    // in vain: own changes may not be known
	// impatient: what fails now for a reason that may pass is parked as well; it was tried
	// often enough.
	impatient bool
	hurry     time.Time // until then locks are waited for less patiently
	giant     giant

	cascades map[string]int // how often the cascades of this batch were done by themselves, by kind
	// refused are cascades that a lock has kept from being done in this batch, with the last reason.
	refused     map[string]error
	refusedLast error
	unseen      int  // how often this batch was tried again for what is stamped but not visible
	committing  bool // a commit was sent
	rest        rest // of applyAtOnce
	stamping    stamping
	behind      *behind // a giant transaction was read to its end, and is to begin again; nil: none

	batch   *batch.Batch
	Stats   Stats
	onAudit func(audit.Tally)
	imager  *audit.Imager
}

// New prepares an applier; Open connects.
func New(cfg Config) *Applier {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Parked == nil {
		cfg.Parked = parked.NewIndex()
	}
	if cfg.Suspects == nil {
		cfg.Suspects = &Suspects{}
	}
	if cfg.Giants == nil {
		cfg.Giants = NewTurns()
	}
	if cfg.Batches == nil {
		cfg.Batches = NewTurns()
	}
	a := &Applier{cfg: cfg, named: map[*tableSchema]struct{}{}, matching: map[*target]struct{}{}, batch: batch.New(), imager: audit.NewImager(cfg.Redact)}
	a.batch.Policy = func(n wal.RelationName) conflict.Policy { return cfg.Policy.table(n).Resolve }
	return a
}

// OnAudit is told of the audit rows that each commit has written; set it before Open.
func (a *Applier) OnAudit(f func(audit.Tally)) { a.onAudit = f }

// Open connects and reads the checkpoint. Called again after an error, it starts afresh.
func (a *Applier) Open(ctx context.Context) (checkpoint.Checkpoint, error) {
	a.Close()
	conn, err := a.cfg.Connect(ctx)
	if err != nil {
		return checkpoint.Checkpoint{}, err
	}
	a.adopt(conn)
	if err := a.resume(ctx); err != nil {
		a.Close() // a session that stays would hold the replication origin
		return checkpoint.Checkpoint{}, err
	}
	return a.cp, nil
}

// resume finds out in a fresh session how far this origin's changes are applied.
func (a *Applier) resume(ctx context.Context) error {
	if err := a.readSettings(ctx); err != nil {
		return err
	}
	if err := a.findOut(ctx); err != nil {
		return err
	}
	if err := a.cfg.Suspects.columns.Load(ctx, a.conn, a.cfg.Origin); err != nil {
		return side(err)
	}
	cp, found, err := pgstore.Load(ctx, a.conn, a.cfg.Origin)
	if err != nil {
		return err
	}
	if !found {
		cp = checkpoint.Checkpoint{Origin: a.cfg.Origin}
		if _, err := pgstore.Init(ctx, a.conn, cp); err != nil {
			return err
		}
	}
	a.cp = cp
	if a.cfg.Self && !a.retrying {
		// What a commit whose answer was lost has merged is known before the rest counts as waiting again.
		a.cfg.Index.Merged(cp.EndLSN)
		a.cfg.Index.Merging(0)
	}
	return nil
}

// adopt begins with a fresh session.
func (a *Applier) adopt(conn *pgx.Conn) {
	a.conn = conn
	a.encoding = encodingOf(conn.PgConn().ParameterStatus("server_encoding"))
	a.tables = map[wal.RelationName]*tableSchema{}
	a.targets = map[*wal.Relation]*target{}
	a.touched = map[uint32]struct{}{}
	a.oids = map[wal.RelationName]uint32{}
	a.prepared = map[string]string{}
	a.open, a.openFx, a.openPut, a.openDeferred = false, effects{}, nil, nil
	a.order.Abandon()
}

// findOut waits until the server has ended a transaction whose commit was not answered.
func (a *Applier) findOut(ctx context.Context) error {
	a.committing = false
	for {
		pid := a.cfg.Index.Lost(a.holder())
		if pid == 0 {
			return nil
		}
		var there bool
		if err := a.conn.QueryRow(ctx, `select exists (select from pg_catalog.pg_stat_activity where pid = $1)`, int64(pid)).Scan(&there); err != nil {
			return fmt.Errorf("wait for the end of a transaction: %w", err)
		}
		if !there {
			a.cfg.Index.Found(a.holder())
			return nil
		}
		if err := pause.For(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// Close ends the session; an open transaction is rolled back by the server.
func (a *Applier) Close() {
	a.endBehind()
	if a.conn == nil {
		return
	}
	switch {
	case a.committing:
		a.cfg.Index.Lose(a.holder(), a.conn.PgConn().PID())
	case a.cfg.Index.Lost(a.holder()) != 0: // the session before this one may still commit
	default:
		a.cfg.Index.Settle(a.holder(), false)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	a.conn.Close(ctx)
	a.conn = nil
	a.cfg.Batches.end(a.holder())
	if !a.retrying {
		a.cfg.Giants.end(a.cfg.Origin)
	}
}

// Checkpoint is the position of the last commit.
func (a *Applier) Checkpoint() checkpoint.Checkpoint { return a.cp }

// InParts reports whether a transaction of many parts is open; then the next part has to come
// before anything else is applied.
func (a *Applier) InParts() bool { return a.open || a.behind != nil }

// Abandon gives up a transaction of many parts whose end will not come; its parts come again.
func (a *Applier) Abandon(ctx context.Context) error {
	if a.behind != nil && a.behind.over() {
		if err := a.leaveOut(); !errors.Is(err, ErrStartAgain) {
			return err
		}
	}
	a.endBehind()
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
	// Resync: the unit opens an incarnation that admits a gap; nothing of it was applied before.
	Resync bool
}

// Apply applies units in one local transaction and commits, unless the last transaction is a
// part with more to come: then the local transaction stays open for the next call. Temporary
// failures (deadlock, serialization, lock timeout, a racing local writer) are tried again
// here; rows that cannot be applied are parked. What it returns is for the caller to
// reconnect on, or to stop.
func (a *Applier) Apply(ctx context.Context, units []Unit) error {
	if a.behind != nil {
		return a.leaveOut()
	}
	if !a.open && time.Since(a.stamping.taken) > keptFor && a.stamping.waited == 0 {
		a.stamping.by = nil
	}
	var txs []keyedTx
	resync := false
	for i := range units {
		u := &units[i]
		resync = resync || u.Resync
		for _, tx := range u.Transactions {
			if !resync && a.covered(tx, u) {
				continue
			}
			txs = append(txs, keyedTx{tx: tx, kind: u.Kind})
		}
	}
	a.resync = a.resync || resync
	next := units[len(units)-1].Next
	next.Transactions = a.cp.Transactions
	more := false
	for _, k := range txs {
		if counts(k) {
			next.Transactions++
		}
		more = k.tx.More
	}
	err := checkpoint.MustAdvance(a.cp, next, resync)
	if err != nil && a.cp.Incarnation != 0 {
		return err
	}
	if err := a.inOrder(ctx, txs); err != nil {
		return err
	}
	if !a.open && !more && len(txs) == 0 && next.EndLSN == a.cp.EndLSN && next.FrameNo == a.cp.FrameNo {
		return nil
	}
	if a.open || more {
		err = a.applyPart(ctx, txs, next, more)
	} else {
		err = a.applyWhole(ctx, txs, next)
	}
	if err != nil && ctx.Err() == nil && a.conn.IsClosed() && !a.cfg.Index.EndedHere(a.conn.PgConn().PID()) {
		a.cfg.Suspects.end(a.cp, partOf(txs), a.inHand)
	}
	a.inHand = false
	return err
}

type keyedTx struct {
	tx   *wal.Transaction
	kind conflict.EventKind
	// places are those of the changes in the transaction as it came; nil for all of it.
	places []int
}

// pick returns the transaction with some of its changes, by position.
func (k keyedTx) pick(positions []int) keyedTx {
	out := *k.tx
	out.Changes = make([]wal.Change, len(positions))
	places := make([]int, len(positions))
	for n, i := range positions {
		out.Changes[n], places[n] = k.tx.Changes[i], i
		if k.places != nil {
			places[n] = k.places[i]
		}
	}
	return keyedTx{&out, k.kind, places}
}

// counts reports whether a transaction is one that an application made at its origin.
func counts(k keyedTx) bool { return k.kind == conflict.Live && !k.tx.More && !k.tx.Applied }

// covered reports whether the checkpoint covers a transaction: it was applied before, in an
// earlier incarnation of the stream. Parts carry no end; their commit position says enough,
// because a commit at or below the checkpoint's end is behind it.
func (a *Applier) covered(tx *wal.Transaction, u *Unit) bool {
	if u.Kind != conflict.Live && u.Kind != conflict.Self {
		return false
	}
	return a.cp.Covers(checkpoint.FrameRef{Epoch: u.Next.Epoch}, tx.CommitLSN, tx.EndLSN)
}
