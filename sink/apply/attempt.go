package apply

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/conflict/counterpart"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Bounds of what is tried again with the same batch before its changes are applied one by
// one, where what still fails is parked.
const (
	maxAgain = 20 // deadlocks and the like, which pass quickly
	maxRaces = 3
	maxPlans = 3
	// maxServer is for refusals of the server; the pauses between them take about five seconds.
	maxServer = 5
	// maxGiants is how long a batch waits in all for the giant transactions of other appliers, while they
	// move. Setting aside what they hold takes longer: they hold many rows.
	maxGiants = time.Minute
)

// After a change was parked because somebody holds its lock, others may meet the same one.
const (
	hurryFor  = 30 * time.Second // how long locks are waited for less patiently
	hurryLock = time.Second      // for a batch, in all
	// singleLock is for changes one by one, after the whole batch has waited.
	singleLock = 200 * time.Millisecond
	// oldLock is for a transaction that holds locks for long.
	oldLock = 20 * time.Millisecond
	// giantShare: while the giant transaction of another applier is open, locks are waited for by this part of
	// the time. Of two that wait for each other the small one is to be beaten.
	giantShare = 4
)

// setLock is the statement that bounds every further wait for a lock within the transaction.
func (a *Applier) setLock(d time.Duration) string {
	if a.cfg.LockWait > 0 {
		d = min(d, a.cfg.LockWait)
		if !a.open && a.cfg.Giants.others(a.holder()) {
			d /= giantShare
		}
	}
	a.lock = fmt.Sprintf("set local lock_timeout = '%dms'", max(d.Milliseconds(), 1))
	return a.lock
}

// hasten bounds waits for locks in a transaction that holds some for so long that a session of
// the application, which waits for one of them, may be about to look for a deadlock: whoever
// looks is the victim. A transaction in parts would never get through that way.
func (a *Applier) hasten(b *pipeline) {
	if a.cfg.LockWait > 0 && !a.hasty && !a.open && time.Since(a.began) > 2*a.cfg.LockWait {
		b.text(a.setLock(oldLock))
		a.hasty = true
	}
}

// patience counts how often a batch was tried again, and why.
type patience struct {
	again, races, plans, server int
	giants                      time.Duration // how long the giant transactions of others are waited for
	locks                       time.Duration // how long locks are waited for in all
	locked                      time.Time     // when the first one was not got; zero: none was
}

// left reports whether the batch may be tried once more after err, and counts.
func (p *patience) left(err error) bool {
	switch {
	case errors.Is(err, errRace):
		p.races++
		return p.races <= maxRaces
	case causeOf(err) == causePlans:
		p.plans++
		return p.plans <= maxPlans
	case causeOf(err) == causeServer:
		p.server++
		return p.server <= maxServer
	case sqlState(err) == "55P03":
		if p.locked.IsZero() {
			p.locked = time.Now()
		}
		return time.Since(p.locked) < p.locks
	case causeOf(err) == causeAgain:
		p.again++
		return p.again <= maxAgain
	}
	return false
}

// applyWhole applies whole transactions and commits.
func (a *Applier) applyWhole(ctx context.Context, txs []keyedTx, next checkpoint.Checkpoint) error {
	ordered, _ := a.cfg.Suspects.care(a.cp, 0)
	p := a.patient()
	var cascade *cascadeError
	var open *openError
	var mine taker // its turn among the batches of this region
	if p.giants = maxGiants; time.Now().Before(a.hurry) {
		p.locks, p.giants = min(p.locks, hurryLock), 0
	}
	defer func() { a.barrier, a.overdue, a.impatient = false, false, false }()
	a.unseen = 0
	if !ordered {
		if done, err := a.applyAtOnce(ctx, txs, next); done || err != nil {
			return err
		}
	}
	for {
		if err := a.takeTurn(ctx, mine); err != nil {
			return err
		}
		fx := effects{}
		err := a.attempt(ctx, txs, next, ordered, &fx)
		if err == nil {
			a.committed(txs, next, &fx)
			return nil
		}
		met := a.cfg.Batches.met(a.holder())
		if rerr := a.rollback(ctx); rerr != nil {
			return errors.Join(err, rerr)
		}
		switch {
		case ctx.Err() != nil:
			return err
		case errors.Is(err, errBarrier):
			if err := a.waitBarrier(ctx); err != nil {
				return err
			}
		case errors.Is(err, errNotStamped):
			if err := a.waitOrRecord(ctx, txs); err != nil {
				return err
			}
		case errors.As(err, &cascade):
			done, err := a.tryCascade(ctx, cascade, &p)
			if err != nil {
				return err
			}
			if !done && !a.impatient {
				a.cfg.Log.Info("applying one by one", "origin", a.cfg.Origin, "reason", "rows that reference a deleted one are locked")
				a.Stats.Ordered.Add(1)
				ordered, a.impatient = true, true
			}
		case errors.As(err, &open):
			if err := a.awaitOpen(ctx, open); err != nil {
				return err
			}
		case lockLost(err) && p.giants > 0 && a.cfg.Giants.others(a.cfg.Origin):
			began := time.Now()
			if err := a.cfg.Giants.ended(ctx, a.cfg.Origin, p.giants); err != nil {
				return err
			}
			a.Stats.Retries.Add(1)
			p.giants -= max(time.Since(began), time.Millisecond)
			p.locked, p.again = time.Time{}, 0
		case lockLost(err) && met && !mine.beaten:
			// Perhaps it is another batch of this region that holds the lock. Beside it this one would lose again.
			mine = taker{at: wal.MicrosOf(time.Now()), origin: a.holder(), beaten: true}
			a.Stats.Retries.Add(1)
		case p.left(err):
			mine = taker{} // whoever holds the lock is not one of ours
			if err := a.recover(ctx, err, p); err != nil {
				return err
			}
		case parkable(err) && (!ordered || !a.impatient):
			a.cfg.Log.Info("applying one by one", "origin", a.cfg.Origin, "reason", publicError(err))
			a.Stats.Ordered.Add(1)
			ordered, a.impatient = true, ordered || causeOf(err) != causeRow
		default:
			return err
		}
		a.forgetSchemas()
	}
}

// takeTurn waits until no batch of the region stands in the way. It is called outside of a transaction; the
// turn ends with the transaction.
func (a *Applier) takeTurn(ctx context.Context, t taker) error {
	if !t.beaten {
		t = taker{at: wal.MicrosOf(time.Now()), origin: a.holder()}
	}
	return a.cfg.Batches.begin(ctx, a.holder(), t, func() {})
}

// patient begins to count.
func (a *Applier) patient() patience { return patience{locks: a.cfg.LockTimeout} }

// waitBarrier waits outside of a transaction until own changes are known.
func (a *Applier) waitBarrier(ctx context.Context) error {
	if a.barrier {
		// They are, but not all that is stamped is visible yet.
		if err := pause.For(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	err := a.cfg.Barrier(ctx)
	a.overdue = errors.Is(err, ErrOverdue)
	if err != nil && !a.overdue {
		return err
	}
	a.barrier = true
	return nil
}

// ErrOverdue is returned by Barrier when own changes do not become known: the WAL is not read, or the
// stream takes nothing. What is decided then the self-merge puts right.
var ErrOverdue = errors.New("own changes are not known in time")

// recover prepares the session for another try after an error that may pass.
func (a *Applier) recover(ctx context.Context, err error, p patience) error {
	wait := time.Duration(1+p.again) * 5 * time.Millisecond
	switch {
	case errors.Is(err, errRace):
		return nil
	case causeOf(err) == causePlans:
		return a.forgetPlans(ctx)
	case causeOf(err) == causeServer:
		wait = time.Duration(p.server) * 300 * time.Millisecond
	}
	a.Stats.Retries.Add(1)
	if sqlState(err) == "55P03" {
		wait = 50 * time.Millisecond // others pass meanwhile
	}
	return pause.For(ctx, wait)
}

// attempt is one try of a batch: begin, rows, side effects, checkpoint, commit.
func (a *Applier) attempt(ctx context.Context, txs []keyedTx, next checkpoint.Checkpoint, ordered bool, fx *effects) error {
	if a.cfg.Self {
		if err := a.announceMerge(ctx, txs); err != nil {
			return err
		}
	}
	b := pipeline{fence: -1}
	if err := a.begin(ctx, &b); err != nil {
		return err
	}
	if a.cfg.LockWait > 0 && a.cfg.Giants.others(a.holder()) {
		b.text(a.setLock(a.cfg.LockWait))
	}
	if err := a.saveCheckpoint(ctx, &b, next); err != nil {
		return err
	}
	if a.cfg.Self {
		fx.items = a.ownItems(txs)
	}
	var err error
	if ordered {
		if err = a.run(ctx, &b, nil, nil, nil); err == nil {
			err = a.ordered(ctx, txs, fx)
		}
	} else {
		err = a.set(ctx, &b, txs, fx)
	}
	if err == nil {
		err = a.heard(ctx, txs, fx)
	}
	if err != nil {
		return err
	}
	return a.commit(ctx, fx, next)
}

// begin queues the statements that open an apply transaction. The marker goes first, so that
// the publisher knows at once what it reads.
func (a *Applier) begin(ctx context.Context, b *pipeline) error {
	b.text("begin")
	a.forgetNames()
	a.began, a.hasty, a.lock = time.Now(), false, ""
	a.stamping.mine, a.stamping.tables = nil, nil
	if a.settings.on {
		b.text(a.settings.sql)
	}
	if a.cfg.Marker != nil {
		return a.exec(ctx, b, "select pg_catalog.pg_logical_emit_message(true, 'pgwaltz.apply', $1::bytea)", [][]byte{a.cfg.Marker}, []int16{0})
	}
	return nil
}

// saveCheckpoint queues the move of the checkpoint. It stands before the rows, so that a
// second applier waits at once and is found out before it has written anything.
func (a *Applier) saveCheckpoint(ctx context.Context, b *pipeline, next checkpoint.Checkpoint) error {
	if was := a.cp.Epoch.SystemID; was != 0 && was != next.Epoch.SystemID && !a.cfg.Self {
		// The origin's numbers are those of another server: its columns are matched by their names again.
		a.cfg.Suspects.columns.Forget()
		a.forgetSchemas()
		b.text(counterpart.ForgetSQL, []byte(a.cfg.Origin))
	}
	if a.resync && !a.cfg.Self {
		b.text(parked.StraysSQL, []byte(a.cfg.Origin))
	}
	b.fence = b.n
	if a.settings.on {
		b.text(pgstore.SaveSQL, a.saveArgs(next)...) // not prepared: a trigger may drop prepared statements
		return nil
	}
	return a.execText(ctx, b, pgstore.SaveSQL, a.saveArgs(next))
}

// saveArgs are the parameters of pgstore.SaveSQL as text.
func (a *Applier) saveArgs(next checkpoint.Checkpoint) [][]byte {
	return [][]byte{
		[]byte(a.cfg.Origin), number(uint64(a.cp.Incarnation)), number(a.cp.FrameNo),
		number(next.Epoch.SystemID), number(uint64(next.Epoch.Timeline)), []byte(next.Epoch.Slot),
		number(uint64(next.Incarnation)), number(next.FrameNo), []byte(next.EndLSN.String()),
		fmt.Appendf(nil, "\\x%x", next.Chain), number(next.StreamSeq), number(next.Transactions),
		microsText(next.CommitTime), microsText(wal.MicrosOf(time.Now())),
		[]byte(next.Mark.EndLSN.String()), number(uint64(next.Mark.XID)), strconv.AppendInt(nil, int64(next.Mark.CommitTime), 10), []byte(next.Seen.String()),
	}
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
	if err := failpoint.Hit("apply_before_commit"); err != nil {
		return err
	}
	if err := a.orphans(ctx, fx); err != nil {
		return err
	}
	if err := a.writeEffects(ctx, fx); err != nil {
		return err
	}
	if due := append(a.openFx.due, fx.due...); len(due) > 0 && a.cfg.Copies != nil {
		if err := a.cfg.Copies.SetDue(ctx, a.conn, due); err != nil {
			return err
		}
	}
	if err := a.undisturbed(ctx, fx); err != nil {
		return err
	}
	matched, err := a.storeMatched(ctx)
	if err != nil {
		return err
	}
	c := pipeline{fence: -1}
	if err := a.guardDeferred(ctx, &c, fx); err != nil {
		return err
	}
	if err := a.guardDefinitions(ctx, &c); err != nil {
		return err
	}
	if fx.blind || a.openFx.blind {
		// Who stamps a later change relies on it: it must not be lost by a crash.
		c.text("set local synchronous_commit = local")
	}
	c.text("commit")
	a.committing = true
	if err := a.run(ctx, &c, nil, nil, nil); err != nil {
		a.committing = a.conn.IsClosed()
		if sqlState(err) == "22012" {
			return errRace // by guardDeferred or guardDefinitions, or by a deferred trigger, which is found one by one
		}
		return fmt.Errorf("commit: %w", err)
	}
	a.committing = false
	a.cfg.Suspects.columns.Settle(matched)
	for t := range a.matching {
		t.matched = nil // it is known by now, and not to be written again with every transaction
	}
	a.cfg.Batches.end(a.holder())
	a.cfg.Index.Settle(a.holder(), true)
	return failpoint.Hit("apply_after_commit")
}

// writeEffects writes what stands beside the rows, and makes it known to the publisher. Every
// row is written or locked by now, so no local change of it can lie on the wrong side of the
// position that is read here.
func (a *Applier) writeEffects(ctx context.Context, fx *effects) error {
	at := a.at
	if at == 0 && fx.needsPosition(a.cfg.Self) {
		var err error
		if at, err = a.insertLSN(ctx); err != nil {
			return err
		}
	}
	if a.cfg.Self {
		fx.items = a.alsoNoted(fx.items)
	}
	a.hold(fx, at)
	if err := fx.write(ctx, a); err != nil {
		return fmt.Errorf("write audit rows and tombstones: %w", side(err))
	}
	return nil
}

// committed books a commit.
func (a *Applier) committed(txs []keyedTx, next checkpoint.Checkpoint, fx *effects) {
	a.stamping.keepStamped()
	a.cascades, a.resync = nil, false
	a.refused, a.refusedLast = nil, nil
	clear(a.touched)
	a.forgetNames()
	a.cp = next
	a.cfg.Suspects.moved()
	a.Stats.Batches.Add(1)
	a.Stats.Rows.Add(fx.rows)
	n := uint64(0)
	for _, k := range txs {
		if counts(k) {
			n++
		}
	}
	a.Stats.Transactions.Add(n)
	if n := fx.logged.Total(); n > 0 {
		a.Stats.Conflicts.Add(n)
		if a.onAudit != nil {
			a.onAudit(fx.logged)
		}
	}
	a.Stats.Parked.Add(uint64(fx.parked))
	a.cfg.Parked.Add(a.cfg.Origin, fx.parked-fx.ended-int64(len(fx.unpark)))
}

func (a *Applier) rollback(ctx context.Context) error {
	a.open, a.openFx, a.openPut, a.openDeferred = false, effects{}, nil, nil
	defer a.cfg.Batches.end(a.holder())
	if !a.retrying {
		defer a.cfg.Giants.end(a.cfg.Origin)
	}
	a.order.Abandon()
	clear(a.touched)
	a.forgetNames()
	if a.conn.IsClosed() {
		return errors.New("the connection to the local server is gone")
	}
	if _, err := a.conn.Exec(ctx, "rollback"); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	a.cfg.Index.Settle(a.holder(), false)
	if a.cfg.Self && !a.retrying {
		a.cfg.Index.Merging(0)
	}
	return nil
}
