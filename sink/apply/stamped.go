package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/guard"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
)

// The self-merge has to know whether a later own change, which it has not come to yet, wrote the row that it
// meets, or removed it. Every own change is noted when it is stamped. So it has to know that the
// writer of the row is stamped, if that is a transaction of this region.

// errNotStamped asks for the batch to be tried again once this region's own changes up to now
// are stamped: a later one may have written a row that the self-merge looks at.
var errNotStamped = errors.New("own changes have to be stamped first")

// stateUnsure is the SQLSTATE of own changes of which nobody knows yet whether a later one of this region
// wrote, or removed, the row that they meet.
const stateUnsure = "PW005"

var unsure = reason{stateUnsure, "a later change of this region, which is not merged yet, may have written the row"}

// stamping is what an applier of own changes knows of how far they are stamped.
type stamping struct {
	// by: every own change that it shows is stamped; nil: none was waited for.
	by *tombstone.Snapshot
	// old: it was taken before the giant transaction in hand began again, or for a batch that is committed. Of a
	// row that is not there it says nothing then: an own delete may have removed it since.
	old     bool
	taken   time.Time
	waited  int                 // how often this batch waited
	guesses bool                // waiting would never end: what is not known to be stamped is set aside
	mine    map[uint32]bool     // writers of rows: whether it is the open transaction
	tables  map[uint32][]uint32 // by table: the transactions that have written it, or a partition, into the catalog, as a truncate does
	now     *tombstone.Snapshot // taken behind the locks of the rows that were read last
}

// maxWaited is how often a batch of the self-merge is tried again for one row.
const maxWaited = 500

// unsure reports whether a later own change may have written the row that an own change would
// replace: there are more of them than the index holds, or stamping waits for what is behind this one. The
// change is set aside then; the later one releases it, and if there is none it is decided about when
// that is known.
func (a *Applier) unsure(g *batch.Group, r *batch.Run, st *known) bool {
	return st.guessed || a.cfg.Index.Perhaps(a.ledger(g.Rel), []byte(st.key), tombstone.Place{Commit: r.Tx.CommitLSN, Part: r.Tx.Part})
}

// isStamped reports whether the transaction that wrote the row, which is locked, is known to be
// stamped if it is an own one. Where there is no row, an own delete that is not stamped yet
// brings its own tombstone later, and a truncate has to be stamped as well: it brings nothing. Where waiting is of no use it says yes, and that it guesses.
func (a *Applier) isStamped(ctx context.Context, t *target, st *known) (bool, error) {
	if a.cfg.WaitStamped == nil {
		return true, nil
	}
	ok, err := a.writerStamped(ctx, st)
	if ok && err == nil && st.row == nil {
		ok, err = a.cutsStamped(ctx, t)
	}
	if ok || err != nil || !a.guess(st) {
		return ok, err
	}
	st.guessed = true
	return true, nil
}

// guess reports whether what is not known to be stamped is to be set aside rather than waited for.
func (a *Applier) guess(st *known) bool {
	if !a.stamping.guesses && a.stamping.waited <= maxWaited {
		return false
	}
	if !a.open || st.row == nil { // another try would know as little
		return true
	}
	a.giant.guessed++
	return a.giant.rounds >= maxRounds || a.giant.guessed <= fewGuesses
}

func (a *Applier) writerStamped(ctx context.Context, st *known) (bool, error) {
	s := &a.stamping
	switch {
	case s.by == nil:
		return false, nil
	case st.row == nil:
		return !s.old, nil
	}
	return a.shownStamped(ctx, st.writer)
}

// shownStamped reports whether a transaction of which something is visible here is stamped, if it is an own one.
func (a *Applier) shownStamped(ctx context.Context, writer uint32) (bool, error) {
	s := &a.stamping
	if !s.by.Shows(writer) {
		return a.wroteIt(ctx, writer)
	}
	above := s.by.Above(writer)
	if len(above) == 0 {
		return true, nil
	}
	// The writer may be a subtransaction of one that was in progress. That has ended by now, or its
	// row would not be visible: one that has not is no reason to wait.
	if s.now == nil {
		var err error
		if s.now, err = tombstone.ReadSnapshot(ctx, a.conn); err != nil {
			return false, err
		}
	}
	return !slices.ContainsFunc(above, s.now.Shows), nil
}

// cutsStamped reports whether the last truncate of a table is known to be stamped. A lock of the table is held, so that none comes in between.
func (a *Applier) cutsStamped(ctx context.Context, t *target) (bool, error) {
	writers, known := a.stamping.tables[t.schema.oid]
	if !known {
		rows, err := a.conn.Query(ctx, `with recursive tables as (
  select $1::int8::oid as oid union select h.inhrelid from tables join pg_catalog.pg_inherits h on h.inhparent = tables.oid)
select distinct c.xmin::text::int8 from pg_catalog.pg_class c join tables on c.oid = tables.oid where pg_catalog.age(c.xmin) > -1000000 -- more is one of long ago`, int64(t.schema.oid))
		if err != nil {
			return false, fmt.Errorf("ask who has truncated %s: %w", t.rel, err)
		}
		var writer int64
		if _, err := pgx.ForEachRow(rows, []any{&writer}, func() error { writers = append(writers, uint32(writer)); return nil }); err != nil {
			return false, fmt.Errorf("ask who has truncated %s: %w", t.rel, err)
		}
		if a.stamping.tables == nil {
			a.stamping.tables = map[uint32][]uint32{}
		}
		a.stamping.tables[t.schema.oid] = writers
	}
	for _, w := range writers {
		if ok, err := a.shownStamped(ctx, w); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// wroteIt reports whether a transaction that wrote a row which is visible and locked here is
// this one, or a subtransaction of it: all others have ended.
func (a *Applier) wroteIt(ctx context.Context, writer uint32) (bool, error) {
	if mine, known := a.stamping.mine[writer]; known {
		return mine, nil
	}
	var current int64
	if err := a.conn.QueryRow(ctx, `select pg_catalog.pg_current_xact_id()::text::int8`).Scan(&current); err != nil {
		return false, fmt.Errorf("ask for the transaction: %w", err)
	}
	full := current + int64(int32(writer-uint32(current)))
	var running bool
	err := a.conn.QueryRow(ctx, `select coalesce(pg_catalog.pg_xact_status($1::text::xid8) = 'in progress', false)`, strconv.FormatInt(full, 10)).Scan(&running)
	if err != nil {
		return false, fmt.Errorf("ask for the transaction that wrote a row: %w", err)
	}
	if a.stamping.mine == nil {
		a.stamping.mine = map[uint32]bool{}
	}
	if len(a.stamping.mine) < maxWriters {
		a.stamping.mine[writer] = running
	}
	return running, nil
}

// maxWriters is of how many transactions it is remembered whether they are the open one.
const maxWriters = 1 << 16

// waitStamped waits outside of a transaction. What was known before stays known when it fails.
func (a *Applier) waitStamped(ctx context.Context) error {
	if a.stamping.waited++; a.stamping.waited%100 == 0 {
		a.cfg.Log.Info("the self-merge waits for own changes to be stamped", "tries", a.stamping.waited)
	}
	by, err := a.cfg.WaitStamped(ctx)
	if err != nil {
		return err
	}
	a.stamping.by, a.stamping.old, a.stamping.taken = by, false, time.Now()
	return nil
}

// keptFor bounds for how long a snapshot is kept: transaction ids come round.
const keptFor = 10 * time.Minute

// keepStamped begins the next batch with what is known to be stamped: where much of the own WAL is still to be merged, most of
// its rows were written by what one wait has shown, and none of its transactions has to begin again for them.
func (s *stamping) keepStamped() {
	*s = stamping{by: s.by, old: true, taken: s.taken}
}

// waitOrRecord waits until own changes are stamped. If stamping waits for the self-merge, the
// items of its changes are written first, by themselves. If it waits for changes behind these, or would take long, the
// changes are decided about as things are: waiting would never end.
func (a *Applier) waitOrRecord(ctx context.Context, txs []keyedTx) error {
	for recorded := false; ; recorded = true {
		err := a.waitStamped(ctx)
		far := errors.Is(err, tombstone.ErrFarBehind)
		if !far && !errors.Is(err, tombstone.ErrStalled) {
			return err
		}
		if far || recorded {
			a.stamping.guesses = true
			return nil
		}
		if err := a.recordItems(ctx, txs, true); err != nil {
			return errors.Join(err, a.rollback(ctx))
		}
	}
}

const (
	// fewGuesses is how many changes of a giant transaction are set aside without another try to know more.
	fewGuesses = 1000
	// maxRounds is how often its items are written by themselves at most.
	maxRounds = 3
)

// stampedParts waits until the own changes that a giant transaction has to know are stamped. Where that
// waits for the applier itself, because the stream holds less than the transaction, its items are
// written first, and the stream moves on as its parts are read. At the end of that all is stamped
// (behind). What is written into its rows behind that point is set aside, unless it is much: then
// it is all done once more.
func (a *Applier) stampedParts(ctx context.Context) error {
	err := a.waitStamped(ctx)
	switch {
	case errors.Is(err, tombstone.ErrFarBehind):
		a.giant.rounds, a.stamping.guesses = maxRounds, true
	case !errors.Is(err, tombstone.ErrStalled):
		return err
	case a.giant.rounds == 0, a.giant.rounds < maxRounds && a.giant.guessed > fewGuesses:
		a.giant.record, a.giant.guessed = true, 0
		a.giant.rounds++
		a.stamping.waited, a.stamping.guesses = 0, false
	default:
		a.stamping.guesses = true
	}
	return nil
}

// behind is a wait behind the last part of a giant transaction whose items were written, until what was committed
// then is stamped. The stream may hold less than lies in front of that, so what comes meanwhile is
// taken and left out: it comes again, with the transaction.
type behind struct {
	cancel context.CancelFunc
	ended  chan struct{}
	by     *tombstone.Snapshot // when ended is closed
	err    error
}

// waitBehind begins such a wait.
func (a *Applier) waitBehind(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	w := &behind{cancel: cancel, ended: make(chan struct{})}
	a.behind = w
	go func() {
		defer close(w.ended)
		w.err = guard.Run("waiting for own changes to be stamped", func() (err error) {
			w.by, err = a.cfg.WaitStamped(ctx)
			return err
		})
	}()
}

// leaveOut takes what comes while the applier waits behind a giant transaction. When the wait has ended the
// transaction begins again. Where it was in vain nothing more is known than before.
func (a *Applier) leaveOut() error {
	if !a.behind.over() {
		return nil
	}
	by, err := a.behind.by, a.behind.err
	a.behind = nil
	switch {
	case err == nil:
		a.stamping.by, a.stamping.old, a.stamping.taken = by, true, time.Now()
	case !errors.Is(err, tombstone.ErrStalled) && !errors.Is(err, tombstone.ErrFarBehind):
		return err
	default:
		// Stamping waits for what lies behind the transaction: to write its items once more is of no use.
		a.giant.rounds, a.stamping.guesses = maxRounds, true
	}
	return ErrStartAgain
}

func (w *behind) over() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

// endBehind gives such a wait up.
func (a *Applier) endBehind() {
	if w := a.behind; w != nil {
		w.cancel()
		<-w.ended
		a.behind = nil
	}
}

// recordItems writes the items of own changes in a transaction of their own, which more calls go on
// with unless end is set. They are what they are, whatever becomes of the changes.
func (a *Applier) recordItems(ctx context.Context, txs []keyedTx, end bool) error {
	b := pipeline{fence: -1}
	if !a.open {
		if err := a.begin(ctx, &b); err != nil {
			return err
		}
	}
	a.open = true
	if err := a.run(ctx, &b, nil, nil, nil); err != nil {
		return err
	}
	fx := effects{items: a.ownItems(txs)}
	if err := a.writeEffects(ctx, &fx); err != nil {
		return err
	}
	if !end {
		return nil
	}
	c := pipeline{fence: -1}
	c.text("commit")
	if err := a.run(ctx, &c, nil, nil, nil); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	a.open = false
	a.cfg.Giants.end(a.cfg.Origin)
	if n := len(txs); n > 0 {
		a.cfg.Index.Recorded(txs[n-1].tx.CommitLSN + 1)
	}
	return nil
}
