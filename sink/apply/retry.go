package apply

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Bounds of the work on parked changes.
const (
	retryTick     = time.Second            // how often queues are looked at
	retryShare    = 20                     // listing the queues takes at most one part in so many of the time
	retrySlice    = 300 * time.Millisecond // longest work on one queue in one turn, unless it flows
	retryFlows    = 2 * time.Second        // the same while all that is tried goes in
	retryBreath   = 20 * time.Millisecond  // pause behind a turn in which a queue flowed on to its end
	retryMax      = 30 * time.Second       // longest pause between two tries of a queue
	retryProbes   = 3                      // failed tries of one queue in one turn
	retryChunk    = 4000                   // changes tried together, at most
	wantedSlice   = 2 * time.Second        // as retrySlice, for what an operator asked for
	wantedProbes  = 50                     // as retryProbes, likewise
	swappedProbes = 50                     // tries of one queue in one turn that fail for what columns are called
	retryXIDs     = 10                     // transaction ids a second that failed tries may use
	retryReserve  = 60                     // and how many may be saved up
)

// Retrier tries the parked changes of one origin again, on a session of its own, so that it
// holds up nothing. What waits for the same reason (parked.Queue) is tried one by one until
// one goes in, and then in growing chunks. Between tries a queue rests for a tenth of the
// time that nothing has gone in, at most 30 s; failed tries use a bounded number of
// transaction ids. A queue whose table is not here, or does not fit, is not tried at all. When the
// definition of a table changes, its queues are tried at once; when its rows, or those of tables
// that foreign keys join it with, are written, they are tried soon.
//
// It belongs to one goroutine.
type Retrier struct {
	a      *Applier
	queues map[parked.Queue]*queue
	ids    float64 // transaction ids that may be used
	filled time.Time
	rels   map[string]*wal.Relation
	now    map[*wal.Relation]description // of relations of parked changes, for one turn of a queue
	last   map[parked.Queue]parked.Size
	listed time.Time
	pause  time.Duration // before the queues are listed again

	flows    bool // a queue of this turn was left because its time was over, while all went in
	together bool // what is tried goes in by one statement
	// slice is the longest work on one queue in one turn, wantedSlice the same for what an operator
	// asked for.
	slice, wantedSlice time.Duration

	seen      map[wal.RelationName]fingerprint
	looked    time.Time     // when seen was read
	lookAgain time.Duration // before it is read again
}

// queue is what is remembered of a parked.Queue between tries.
type queue struct {
	moved     time.Time // when a change of it last went in, or it was first seen
	due       time.Time
	asked     time.Time     // when origins were asked for what changes lack
	asking    int           // of how many changes,
	askedOf   int64         // when so many waited
	askCursor int64         // the last id of them
	askRest   time.Duration // before they are asked again
	cursor    int64         // the last id that was tried in this round
	chunk     int
	tried     time.Time     // when it was last worked on
	cost      time.Duration // how long that took
	anew      bool          // PW003: the table's definition is another one than when it was parked
}

// NewRetrier makes a retrier for the origin of cfg. cfg.Connect must open a session that
// carries no replication origin, and cfg.Marker must be set: the session of the pipe has the
// origin. onAudit is told of the audit rows that each commit has written; it may be nil.
func NewRetrier(cfg Config, onAudit func(audit.Tally)) *Retrier {
	a := New(cfg)
	a.retrying, a.onAudit = true, onAudit
	return &Retrier{a: a, queues: map[parked.Queue]*queue{}, ids: retryReserve, rels: map[string]*wal.Relation{}, now: map[*wal.Relation]description{}, slice: retrySlice, wantedSlice: wantedSlice}
}

// Run works until the context ends or the session breaks; call it again then. The session is
// opened when something waits.
func (r *Retrier) Run(ctx context.Context) error {
	defer r.a.Close()
	for {
		x := r.a.cfg.Parked
		switch {
		case x.Count(r.a.cfg.Origin) > 0, x.Wanted(), x.Used() && time.Since(r.listed) > retryMax:
			if err := r.Turn(ctx); err != nil {
				return err
			}
		case r.a.conn != nil:
			r.a.Close() // nothing waits: the session is not needed
		}
		rest := retryTick
		if r.flows {
			rest = retryBreath
		}
		if err := pause.For(ctx, rest); err != nil {
			return err
		}
	}
}

// Close ends the session of turns that were taken without Run.
func (r *Retrier) Close() { r.a.Close() }

// Turn looks at every queue once and tries those that are due.
func (r *Retrier) Turn(ctx context.Context) error {
	r.flows = false
	if r.a.conn == nil {
		conn, err := r.a.cfg.Connect(ctx)
		if err != nil {
			return err
		}
		r.a.Close()
		r.a.adopt(conn)
		if err := r.a.readSettings(ctx); err != nil {
			r.a.Close()
			return err
		}
		if err := r.a.findOut(ctx); err != nil {
			return err
		}
		if !r.a.cfg.Suspects.columns.Loaded() {
			if err := r.a.cfg.Suspects.columns.Load(ctx, r.a.conn, r.a.cfg.Origin); err != nil {
				return side(err)
			}
		}
	}
	if err := r.leaveAlone(ctx); err != nil {
		return err
	}
	if err := r.list(ctx); err != nil {
		return err
	}
	if err := r.look(ctx); err != nil {
		return err
	}
	r.refill()
	due := make([]parked.Queue, 0, len(r.last))
	for k, size := range r.last {
		q := r.queues[k]
		if !size.Wanted && (k.State == stateEnded && !q.anew || k.State == stateOther || k.State == stateApart) {
			continue
		}
		if size.Wanted || !time.Now().Before(q.due) {
			due = append(due, k)
		}
	}
	// No queue comes first always.
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	for _, k := range due {
		if r.ids < 2 {
			return nil
		}
		if err := r.work(ctx, k, r.last[k].Wanted); err != nil {
			return err
		}
	}
	return nil
}

// list reads what waits, seldom when that takes long.
func (r *Retrier) list(ctx context.Context) error {
	if time.Since(r.listed) < r.pause && !r.a.cfg.Parked.Wanted() {
		return nil
	}
	began := time.Now()
	queues, err := parked.Queues(ctx, r.a.conn, r.a.cfg.Origin)
	if err != nil {
		return err
	}
	r.last, r.listed, r.pause = queues, time.Now(), retryShare*time.Since(began)
	r.a.cfg.Parked.Counted(r.a.cfg.Origin, queues)
	for k := range r.queues {
		if _, ok := queues[k]; !ok {
			delete(r.queues, k)
		}
	}
	for k := range queues {
		if r.queues[k] == nil {
			r.queues[k] = &queue{moved: time.Now(), chunk: 1}
		}
	}
	return nil
}

// leaveAlone marks changes that end every session that tries them.
func (r *Retrier) leaveAlone(ctx context.Context) error {
	ids := r.a.cfg.Suspects.leaveAlone()
	if len(ids) == 0 {
		return nil
	}
	changes, err := parked.Read(ctx, r.a.conn, ids)
	if err != nil {
		return err
	}
	var failures []parked.Failure
	for _, c := range changes {
		table := c.Waiting.Relation.Ref()
		now, err := fingerprints(ctx, r.a.conn, []wal.RelationName{table})
		if err != nil {
			return err
		}
		failures = append(failures, parked.Failure{ID: c.ID, State: stateEnded, Message: endedReason().message, Definition: now[table].definition})
	}
	return parked.Tried(ctx, r.a.conn, failures)
}

// look finds out what has changed about the tables of the queues.
func (r *Retrier) look(ctx context.Context) error {
	if time.Since(r.looked) < r.lookAgain {
		return nil
	}
	began := time.Now()
	var tables []wal.RelationName
	asked := map[wal.RelationName]bool{}
	for k := range r.last {
		if !asked[k.Relation] && len(tables) < fingerprintTables {
			asked[k.Relation] = true
			tables = append(tables, k.Relation)
		}
	}
	now, err := fingerprints(ctx, r.a.conn, tables)
	if err != nil {
		return err
	}
	for k, size := range r.last {
		q, was, is := r.queues[k], r.seen[k.Relation], now[k.Relation]
		if q != nil && asked[k.Relation] && slices.ContainsFunc(size.Definitions, func(d string) bool { return d != is.definition }) {
			q.due, q.anew = time.Now(), true
		}
		if _, known := r.seen[k.Relation]; !known || q == nil || !asked[k.Relation] {
			continue
		}
		switch {
		case was.definition != is.definition:
			q.moved, q.due, q.cursor = time.Now(), time.Now(), 0
		case was.writes != is.writes:
			if soon := q.tried.Add(max(2*retryTick, retryShare*q.cost)); soon.Before(q.due) {
				q.due = soon
			}
		}
	}
	r.seen, r.looked, r.lookAgain = now, time.Now(), retryShare*time.Since(began)
	return nil
}

func (r *Retrier) refill() {
	now := time.Now()
	if !r.filled.IsZero() {
		r.ids = min(retryReserve, r.ids+retryXIDs*now.Sub(r.filled).Seconds())
	}
	r.filled = now
}

// intern returns one description for all equal ones, so that changes of a table form one
// group.
func (r *Retrier) intern(rel *wal.Relation) *wal.Relation {
	name := fmt.Sprintf("%#v", []any{rel.Schema, rel.Name, rel.Identity, rel.Columns, rel.PrimaryKey})
	if known := r.rels[name]; known != nil {
		return known
	}
	if len(r.rels) > 1024 {
		clear(r.rels)
	}
	r.rels[name] = rel
	return rel
}
