package replicator

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// LocalDB is what LocalWAL asks of the local server. Safe for concurrent use.
type LocalDB interface {
	// InsertLSN is the end of the WAL.
	InsertLSN(ctx context.Context) (wal.LSN, error)
	// Lookup is tombstone.Lookup.
	Lookup(ctx context.Context, at wal.LSN, refs []tombstone.Ref) ([]conflict.Item, error)
	// Snapshot is tombstone.ReadSnapshot.
	Snapshot(ctx context.Context) (*tombstone.Snapshot, error)
	// Terminate ends a session of this sidecar.
	Terminate(ctx context.Context, pid uint32) error
	// Flush makes the server write its WAL to disk, and something for the slot to read.
	Flush(ctx context.Context) error
}

// LocalWAL is what this process knows of its own region's WAL: how far it is stamped, merged
// and merged on disk, which keys have own changes on the way to the self-merge, and what is
// known of keys beside their rows. The appliers wait on it when a decision depends on whether a
// local change is known yet; they wait outside of transactions. Safe for concurrent use.
type LocalWAL struct {
	*tombstone.Index
	db LocalDB

	mu     sync.Mutex
	merged wal.LSN // every own change at or below is merged
	safe   wal.LSN // as merged, and on disk
	from   pinger  // the WAL as it is read
	pipe   flusher // the pipe that stamps it
	room   room    // of the stream

	blocked map[string]blocked // by applier: sessions that stamping has ended
	pace    pace               // of stamping, since the WAL is read anew

	demand demand // for own changes to be merged
}

// NewLocalWAL makes one; Reset and tombstone.Load come before it is used.
func NewLocalWAL(db LocalDB) *LocalWAL {
	return &LocalWAL{Index: tombstone.NewIndex(0), db: db}
}

// Reset forgets everything at the start of a term.
func (l *LocalWAL) Reset() {
	l.mu.Lock()
	l.merged, l.safe, l.from, l.room = 0, 0, nil, nil
	l.mu.Unlock()
	l.Index.Reset()
}

// pinger asks the server how far its WAL goes.
type pinger interface{ Ping() }

// flusher hands on what a pipe has gathered, in the goroutine that stamps.
type flusher interface{ Flush() error }

// room is that of the stream.
type room interface {
	// AwaitsMerge reports whether the stream takes nothing until more than merged is merged, since it
	// holds nothing else that could go.
	AwaitsMerge(merged wal.LSN) bool
}

// Reading is told that the WAL is read anew, by which pipe it is stamped, and whose room that needs;
// nil: there is always room.
func (l *LocalWAL) Reading(from pinger, pipe flusher, stream room) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.from, l.pipe, l.room = from, pipe, stream
	l.pace = pace{began: time.Now()}
	l.Index.Reading()
}

// Open implements Items.
func (l *LocalWAL) Open(ctx context.Context, xid wal.XID, commit wal.LSN) error {
	if l.Index.Open(xid, commit) {
		return nil
	}
	now, err := l.db.Snapshot(ctx)
	if err != nil {
		return err
	}
	l.Visible(now.InProgress)
	l.Index.Open(xid, commit)
	return nil
}

// Below implements Items.
func (l *LocalWAL) Below(ctx context.Context, at wal.LSN, refs []tombstone.Ref) ([]conflict.Item, error) {
	items := make([]conflict.Item, len(refs))
	var p stall
	for {
		missing, wait := l.Index.Below(at, refs, items)
		if wait != nil {
			if err := l.stall(ctx, wait, &p, at, refs); err != nil {
				return nil, err
			}
			continue
		}
		if len(missing) == 0 {
			return items, nil
		}
		ask := make([]tombstone.Ref, len(missing))
		for n, i := range missing {
			ask[n] = refs[i]
		}
		found, err := l.db.Lookup(ctx, at, ask)
		if err != nil {
			return nil, err
		}
		for n, i := range missing {
			items[i] = items[i].Join(found[n])
		}
		return items, nil
	}
}

// blockedFor is how long stamping waits for an applier's open transaction before it ends its
// session: that may wait itself, for a row's lock or for a part that does not come. Tried
// again, it finds the row. But a giant transaction that takes longer would never get through where the application goes on
// writing its keys. So the wait doubles each time until the applier has committed something: up to blockedMost, and for one that gets
// on as far as it takes.
const (
	blockedFor  = 3 * time.Second
	blockedMost = 48 * time.Second
	// movesFor is for how long a session that did something counts as one that gets on.
	movesFor = 15 * time.Second
)

// blocked is what is remembered of an applier whose session was ended.
type blocked struct {
	commits uint64 // of the applier, when it was
	waits   time.Duration
}

// patience is how long stamping waits for an applier's open transaction now.
func (l *LocalWAL) patience(b tombstone.Blocker) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if was, ok := l.blocked[b.Applier]; ok && was.commits == b.Commits {
		return was.waits
	}
	return blockedFor
}

// ends notes that an applier's session is ended after a wait.
func (l *LocalWAL) ends(b tombstone.Blocker, after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.blocked == nil {
		l.blocked = map[string]blocked{}
	}
	l.blocked[b.Applier] = blocked{b.Commits, min(2*after, time.Hour)}
}

// stall is a wait of Below.
type stall struct {
	began   time.Time
	flushed bool             // what the pipe has gathered was handed on
	moved   map[uint32]moved // by process: when a session was last seen to get on
}

type moved struct {
	moves uint64
	at    time.Time
}

// gotOn reports whether the session of a blocker got on of late.
func (p *stall) gotOn(b tombstone.Blocker) bool {
	was, ok := p.moved[b.PID]
	if !ok || was.moves != b.Moves {
		if p.moved == nil {
			p.moved = map[uint32]moved{}
		}
		was = moved{b.Moves, time.Now()}
		if !ok {
			was.at = p.began
		}
		p.moved[b.PID] = was
	}
	return time.Since(was.at) < movesFor
}

// stall waits until the answer may be another one. What it waits for may depend on what the
// pipe has gathered.
func (l *LocalWAL) stall(ctx context.Context, wait <-chan struct{}, p *stall, at wal.LSN, refs []tombstone.Ref) error {
	if p.began.IsZero() {
		p.began = time.Now()
	}
	if !p.flushed && l.Stalled() {
		p.flushed = true
		l.mu.Lock()
		pipe := l.pipe
		l.mu.Unlock()
		if pipe != nil {
			if err := pipe.Flush(); err != nil {
				return err
			}
		}
	}
	defer l.demand.begin()()
	t := time.NewTimer(blockedFor / 4)
	defer t.Stop()
	select {
	case <-wait:
	case <-t.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ended := false
	for _, b := range l.Blockers(at, refs) {
		after := l.patience(b)
		if !p.gotOn(b) {
			after = min(after, blockedMost)
		}
		if time.Since(p.began) < after {
			continue
		}
		ended = true
		l.ends(b, after)
		l.Ending(b.PID)
		if err := l.db.Terminate(ctx, b.PID); err != nil {
			return err
		}
	}
	if ended {
		p.began = time.Now()
	}
	return nil
}

// MergedTo moves the merged position.
func (l *LocalWAL) MergedTo(lsn wal.LSN) {
	l.mu.Lock()
	l.merged = max(l.merged, lsn)
	l.mu.Unlock()
	l.Merged(lsn)
}

// SafeTo moves the position up to which the merge is on disk.
func (l *LocalWAL) SafeTo(lsn wal.LSN) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.safe = max(l.safe, lsn)
}

// Safe is the position up to which the merge is on disk: the slot must not be confirmed
// beyond it.
func (l *LocalWAL) Safe() wal.LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.safe
}

// pingEvery is how often the server is asked for its position while somebody waits for it.
const pingEvery = 20 * time.Millisecond

// wait blocks until ok holds. It asks the server for its position, and when that does not come,
// for its flush.
func (l *LocalWAL) wait(ctx context.Context, ok func() bool) error {
	for n := 0; ; n++ {
		changed := l.Changed()
		if ok() {
			return nil
		}
		l.mu.Lock()
		from := l.from
		l.mu.Unlock()
		if n%16 == 2 {
			// In a quiet database nothing flushes what was written without waiting for it.
			if err := l.db.Flush(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		}
		if from != nil {
			from.Ping()
		}
		again := time.NewTimer(pingEvery)
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// stuckFor is for how long nothing is stamped before WaitStamped asks whether the stream is stuck:
// where it is not, room comes sooner.
const stuckFor = 3 * time.Second

// isStuck reports whether nothing can be stamped any more until more is merged.
func (l *LocalWAL) isStuck() bool {
	l.mu.Lock()
	stream, merged := l.room, l.merged
	l.mu.Unlock()
	return stream != nil && stream.AwaitsMerge(merged)
}

// WaitStamped takes a snapshot and blocks until every own change that it shows is stamped. It
// returns tombstone.ErrStalled when that has to wait for the caller itself: because the stamper asks for
// what the caller has not recorded, or because the stream is full of what only has to be merged. It returns
// tombstone.ErrFarBehind where the WAL is read anew and the wait would be a long one (pace).
func (l *LocalWAL) WaitStamped(ctx context.Context) (*tombstone.Snapshot, error) {
	now, err := l.db.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	at, err := l.db.InsertLSN(ctx)
	if err != nil {
		return nil, err
	}
	stalled, far, reached, since := false, false, l.Done(), time.Now()
	err = l.wait(ctx, func() bool {
		done := l.Done()
		if done > reached {
			reached, since = done, time.Now()
		}
		if stalled = l.Stalled() || done < at && time.Since(since) > stuckFor && l.isStuck(); stalled {
			return true
		}
		far = done < at && l.isFar(done, at)
		return far || done >= at
	})
	switch {
	case err != nil:
	case stalled:
		err = tombstone.ErrStalled
	case far:
		err = tombstone.ErrFarBehind
	}
	return now, err
}

// isFar reports whether the wait for a position is given up for now.
func (l *LocalWAL) isFar(done, at wal.LSN) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pace.far(time.Now(), max(done, l.merged), at)
}

// ErrNotMerged says that own changes were not known in time: the WAL is not read, or the
// stream takes nothing.
var ErrNotMerged = errors.New("own changes are not known in time")

// farBehind is how much WAL may be left to read, or to merge, for a wait to be worth its while.
const farBehind = 32 << 20

// WaitMerged blocks until every own change that is committed now is merged: either the merge is
// past it, or the WAL is stamped past it and nothing waits. It returns ErrNotMerged after limit, and
// after hopeless where so much is left to read that more time would hardly help, or, while a reading of the WAL is young, to merge.
func (l *LocalWAL) WaitMerged(ctx context.Context, limit, hopeless time.Duration) error {
	at, err := l.db.InsertLSN(ctx)
	if err != nil {
		return err
	}
	defer l.demand.begin()()
	began, far := time.Now(), false
	waiting, cancel := context.WithTimeoutCause(ctx, limit, ErrNotMerged)
	defer cancel()
	err = l.wait(waiting, func() bool {
		done := l.Done()
		far = done != 0 && time.Since(began) >= hopeless && (done+farBehind < at || l.mergesFar(at))
		return far || l.MergedPast(at)
	})
	if err == nil && far && !l.MergedPast(at) {
		err = ErrNotMerged
	}
	return err
}

// mergesFar reports whether much is left to merge up to a position, in a reading that is young: a sidecar that is started again every few
// seconds, reads its WAL quickly, and merges it slowly, would spend all its lives on waiting.
func (l *LocalWAL) mergesFar(at wal.LSN) bool {
	oldest := l.Waiting()
	l.mu.Lock()
	defer l.mu.Unlock()
	return oldest != 0 && l.pace.young(time.Now()) && max(oldest, l.merged)+farBehind < at
}

// MergedPast reports whether every own change that was committed at or below a position is
// merged, as WaitMerged says.
func (l *LocalWAL) MergedPast(at wal.LSN) bool {
	l.mu.Lock()
	merged := l.merged
	l.mu.Unlock()
	if merged >= at {
		return true
	}
	oldest := l.Waiting()
	return l.Done() >= at && (oldest == 0 || oldest >= at)
}
