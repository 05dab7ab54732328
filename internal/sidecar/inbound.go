package sidecar

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// inboundState is what the rest of the process sees of one origin's direction.
type inboundState struct {
	origin  string
	mu      sync.Mutex
	state   status.State
	reason  string
	gap     *status.GapInfo
	cp      checkpoint.Checkpoint // committed, perhaps not yet durable
	sent    wal.Micros            // when the origin sent the newest frame that is applied
	applier *apply.Applier
	sub     *subscribe.Subscription
	ends    course       // of the origin's WAL, as it says
	skew    atomic.Int64 // microseconds that the origin's stamps were ahead, lately
	lastAt  atomic.Int64 // unix microseconds of the last conflict

	fresh     chan struct{} // one token: the checkpoint moved
	acked     checkpoint.Checkpoint
	ackedSent wal.Micros
	read      uint64 // frame of the last part of an open transaction; 0 for none
	readOf    uint32 // its incarnation
	durable   bool

	// Of appliers and subscriptions that have ended.
	rows, duplicates, batches, retries, ordered, parkedTotal atomic.Uint64

	quarantined atomic.Uint64
	refused     refusedTables
	lacks       lacking
	lookRest    time.Time // until then no copy waits for a look; of the goroutine that subscribes
}

func (in *inboundState) fail(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.state, in.reason = status.Down, publicMessage(err)
}

// receive is one run of the inbound pipe of one origin.
func (s *Sidecar) receive(ctx context.Context, in *inboundState) error {
	a := apply.New(s.applyConfig(in.origin))
	a.OnAudit(func(t audit.Tally) { s.noteConflicts(in, t) })
	in.mu.Lock()
	in.applier, in.state, in.reason, in.gap = a, status.Replicating, "", nil
	if in.fresh == nil {
		in.fresh = make(chan struct{}, 1)
	}
	in.mu.Unlock()
	defer in.account(a)
	r := receiving{s, in, s.screen(ctx, in)}
	return replicator.NewInbound(replicator.InboundConfig{
		Feed: r, Applier: a, Progress: r, BatchRows: s.cfg.Apply.BatchRows, Linger: s.cfg.Apply.Linger, Stop: s.stopping, Log: s.log,
	}).Run(ctx)
}

// receiving is one run of the inbound pipe of a peer, as the pipe sees it.
type receiving struct {
	s      *Sidecar
	in     *inboundState
	screen func(subscribe.Delivery)
}

// Subscribe implements replicator.Feed.
func (r receiving) Subscribe(ctx context.Context, from checkpoint.Checkpoint, deliver func(context.Context, subscribe.Delivery) error) error {
	r.in.readAgain()
	return r.s.subscribe(ctx, r.in, from, func(ctx context.Context, d subscribe.Delivery) error {
		if err := r.s.awaitLook(ctx, r.in, d); err != nil {
			return err
		}
		return deliver(ctx, d)
	})
}

// Coming implements replicator.Feed.
func (r receiving) Coming() bool {
	return r.s.moving(r.in.origin) || r.s.broker.PeerReachable(r.in.origin)
}

// Before implements replicator.Progress.
func (r receiving) Before(d subscribe.Delivery) {
	r.screen(d)
	r.s.observe(r.in, d)
}

// Part implements replicator.Progress.
func (r receiving) Part(d subscribe.Delivery) { r.in.readOn(d) }

// Applied implements replicator.Progress.
func (r receiving) Applied(batch []subscribe.Delivery) {
	for _, d := range batch {
		if d.Header.Kind == wire.Copy {
			r.s.arrived.Note(d.Packet.Transactions)
		}
	}
	r.in.applied(batch[len(batch)-1])
	r.s.over("inbound " + r.in.origin)
}

// Committed implements replicator.Progress.
func (r receiving) Committed(cp checkpoint.Checkpoint) { r.in.committed(cp) }

// applyConfig is what all appliers of an origin's changes have in common.
func (s *Sidecar) applyConfig(origin string) apply.Config {
	cfg := apply.Config{
		Region: s.cfg.Region, Origin: origin, Connect: s.connectApply(origin), Marker: s.marker(origin), Replica: s.caps.replica,
		Policy: apply.PolicyFunc(s.policy), Selected: func(n wal.RelationName) bool { return s.cfg.Selected(n.Schema, n.Name) },
		Index: s.own.Index, Named: s.settleName, Tracked: s.tracked, LockWait: s.lockWait(), LockTimeout: s.lockTimeout(), Parked: s.parked, Suspects: s.suspectsOf(origin), Giants: s.giants, Batches: s.batches, Redact: s.redactor, Log: s.log,
		Peers: s.cfg.PeerNames(), Silent: s.silent,
	}
	if s.cfg.Publishes() {
		cfg.Barrier, cfg.Tell, cfg.Token, cfg.Copies = s.barrier, true, s.caps.token, dueCopies{s}
		cfg.Publishes = func(n wal.RelationName) bool { return s.cfg.Selected(n.Schema, n.Name) }
		cfg.Ordinary = func(ctx context.Context) (*pgx.Conn, error) { return s.connectYielding(ctx, "cascade") }
	}
	return cfg
}

// subscribe reads the stream of in's origin with a subscription of its own.
func (s *Sidecar) subscribe(ctx context.Context, in *inboundState, from checkpoint.Checkpoint, deliver func(context.Context, subscribe.Delivery) error) error {
	sub, err := s.newSubscription(in)
	if err != nil {
		return err
	}
	in.mu.Lock()
	if in.sub != nil {
		in.duplicates.Add(in.sub.State().Duplicates)
	}
	in.sub = sub
	in.mu.Unlock()
	return sub.Run(ctx, from, deliver)
}

// moving reports whether bytes come of the stream of an origin, where that can be seen.
func (s *Sidecar) moving(origin string) bool {
	at, known := s.broker.LastByte(origin)
	return known && time.Since(at) < 5*time.Second
}

// account keeps the counters of an applier that ends.
func (in *inboundState) account(a *apply.Applier) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, c := range []struct{ to, from *atomic.Uint64 }{
		{&in.rows, &a.Stats.Rows}, {&in.batches, &a.Stats.Batches}, {&in.retries, &a.Stats.Retries},
		{&in.ordered, &a.Stats.Ordered}, {&in.parkedTotal, &a.Stats.Parked},
	} {
		c.to.Add(c.from.Load())
	}
	in.applier = nil
}

func (in *inboundState) committed(cp checkpoint.Checkpoint) {
	in.mu.Lock()
	in.cp, in.durable, in.read, in.readOf = cp, false, 0, 0
	in.mu.Unlock()
	in.wake()
}

// readAgain takes note that what was read of a transaction in parts is read again.
func (in *inboundState) readAgain() {
	in.mu.Lock()
	in.read, in.readOf = 0, 0
	in.mu.Unlock()
	in.wake()
}

// readOn notes how far a transaction in parts is applied.
func (in *inboundState) readOn(d subscribe.Delivery) {
	in.mu.Lock()
	in.read, in.readOf = d.Header.Number, d.Header.Incarnation
	in.mu.Unlock()
	in.wake()
}

func (in *inboundState) wake() {
	select {
	case in.fresh <- struct{}{}:
	default:
	}
}

// applied notes the newest packet that is applied.
func (in *inboundState) applied(d subscribe.Delivery) {
	in.mu.Lock()
	in.sent = d.Header.SentAt
	in.mu.Unlock()
}

// observe looks at a packet before it is applied: its times say how far the origin's clock is ahead.
func (s *Sidecar) observe(in *inboundState, d subscribe.Delivery) {
	var ahead wal.Micros
	now := wal.MicrosOf(time.Now())
	for _, tx := range d.Packet.Transactions {
		for i := range tx.Changes {
			t := tx.Changes[i].Stamp.UpdatedAt
			if t == wal.MaxMicros || t == wal.MinMicros {
				continue
			}
			ahead = max(ahead, t-now)
		}
	}
	old := in.skew.Load()
	switch {
	case int64(ahead) > old:
		in.skew.Store(int64(ahead))
		if limit := s.cfg.MaxClockSkew; limit > 0 && time.Duration(ahead)*time.Microsecond > limit && time.Duration(old)*time.Microsecond <= limit {
			s.log.Warn("stamps of a peer are ahead of this clock", "origin", in.origin, "seconds", float64(ahead)/1e6)
		}
	case len(d.Packet.Transactions) > 0:
		in.skew.Store(old - (old-int64(ahead))/64)
	}
}

// barrier waits until this region's own changes that are committed by now are recorded.
func (s *Sidecar) barrier(ctx context.Context) error {
	limit := barrierLimit
	if s.overdue.Load() {
		limit = barrierAgain
	}
	err := s.own.WaitMerged(ctx, limit, barrierAgain)
	s.overdue.Store(errors.Is(err, replicator.ErrNotMerged))
	if s.overdue.Load() {
		// The own WAL does not move (the slot is away, or the stream is full). The merge
		// puts right what is overwritten meanwhile.
		return apply.ErrOverdue
	}
	return err
}

// barrierLimit bounds the wait for own changes, barrierAgain one behind a wait that was in vain, and one of a
// region that has much of its own to read: it would take in ten seconds what comes in one, and where it starts again every
// few seconds it would take in nothing.
const (
	barrierLimit = 10 * time.Second
	barrierAgain = 500 * time.Millisecond
)

// acknowledge tells the origin how far its changes are durably applied: a commit counts when
// the local WAL is flushed behind it.
func (s *Sidecar) acknowledge(ctx context.Context, in *inboundState) error {
	in.mu.Lock()
	if in.fresh == nil {
		in.fresh = make(chan struct{}, 1)
	}
	in.mu.Unlock()
	repeat := time.NewTicker(time.Second)
	defer repeat.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-in.fresh:
			if err := s.flushed(ctx, in); err != nil && ctx.Err() == nil {
				s.log.Debug("acknowledge", "origin", in.origin, "reason", publicMessage(err))
				continue
			}
		case <-repeat.C:
		}
		s.sendAck(in)
		// One word for many commits; the first after a pause is told at once.
		if err := pause.For(ctx, ackEvery); err != nil {
			return err
		}
	}
}

// ackEvery is the least time between two looks at what is on disk: each costs this server some
// statements, and the origin a few wake-ups. The slot is confirmed less often than that.
const ackEvery = 50 * time.Millisecond

// flushAfter is for how long the WAL writer is waited for; it writes what was committed within three of its rounds of 200 ms.
const flushAfter = 2 * time.Second

// flushed waits until what the database says of an origin now is on disk. What this process remembers
// of a commit does not count: the server may have crashed since, and the commit with it.
func (s *Sidecar) flushed(ctx context.Context, in *inboundState) error {
	in.mu.Lock()
	sent := in.sent
	in.mu.Unlock()
	var cp checkpoint.Checkpoint
	var at wal.LSN
	var read uint64 // the session that both were read in
	look := func(ctx context.Context, c *pgx.Conn, session uint64) (err error) {
		if cp, _, err = pgstore.Load(ctx, c, in.origin); err != nil {
			return err
		}
		at, err = walEnd(ctx, c)
		read = session
		return err
	}
	if err := s.db.within(ctx, look); err != nil {
		return err
	}
	asked := time.Now()
	for wait := 5 * time.Millisecond; ; {
		var ok bool
		err := s.db.within(ctx, func(ctx context.Context, c *pgx.Conn, session uint64) error {
			if session != read { // the server may have lost what was not on disk
				return look(ctx, c, session)
			}
			return c.QueryRow(ctx, `select pg_catalog.pg_current_wal_flush_lsn() >= $1::text::pg_lsn`, at.String()).Scan(&ok)
		})
		if err != nil {
			return fmt.Errorf("read flush position: %w", err)
		}
		if ok {
			break
		}
		// In a quiet database the WAL writer is waited for, which takes its time. It writes no page that is not full for what
		// others have begun and not committed.
		if time.Since(asked) > flushAfter {
			if err := (localDB{s.db, s.log}).Flush(ctx); err != nil {
				return err
			}
			asked = time.Now()
		}
		wait = min(2*wait, 40*time.Millisecond)
		if err := pause.For(ctx, wait); err != nil {
			return err
		}
	}
	in.mu.Lock()
	in.acked, in.ackedSent, in.durable = cp, sent, true
	in.mu.Unlock()
	return nil
}

func (s *Sidecar) sendAck(in *inboundState) {
	in.mu.Lock()
	cp, sent, read, readOf := in.acked, in.ackedSent, in.read, in.readOf
	in.mu.Unlock()
	if cp.Incarnation == 0 {
		return
	}
	s.out.mu.Lock()
	anew, knew := s.out.reopened, s.out.knew[in.origin]
	s.out.mu.Unlock()
	err := s.broker.PublishAck(in.origin, broker.Ack{
		Anew: anew, KnewIncarnation: knew.Incarnation, KnewFrame: knew.Frame,
		Epoch: cp.Epoch, Incarnation: cp.Incarnation, Frame: cp.FrameNo, Chain: hex.EncodeToString(cp.Chain[:]), StreamSeq: cp.StreamSeq,
		EndLSN: cp.EndLSN, Proved: cp.Seen, CommitTime: sent, Read: read, ReadIncarnation: readOf, At: wal.MicrosOf(time.Now()),
		Parked: s.parkedSince(), Silent: !s.cfg.Publishes(),
	})
	if err != nil {
		s.log.Debug("acknowledge", "origin", in.origin, "reason", err.Error())
	}
}

// noteConflicts counts what went into the audit log.
func (s *Sidecar) noteConflicts(in *inboundState, t audit.Tally) {
	now := time.Now()
	in.lastAt.Store(now.UnixMicro())
	s.mu.Lock()
	defer s.mu.Unlock()
	for kind, n := range t.ByType {
		s.conf.Total += n
		s.conf.ByType[kind] += n
	}
	s.conf.Last, s.conf.LastAt = t.Last, &now
}

// newSubscription reads the stream of in's origin, which may be this region itself.
func (s *Sidecar) newSubscription(in *inboundState) (*subscribe.Subscription, error) {
	js, err := s.broker.JS(in.origin)
	if err != nil {
		return nil, err
	}
	cfg := subscribe.Config{
		Cluster: s.cfg.Cluster, Region: s.cfg.Region, Origin: in.origin, Conn: s.broker.ConnOf(in.origin), JS: js, Control: s.broker,
		Log: s.log, Metrics: s.subscriptionMetrics(in.origin),
		Quarantine: func(ctx context.Context, m subscribe.Refused) error { return s.quarantine(ctx, in, m) },
	}
	cfg.LastByte = func() (time.Time, bool) { return s.broker.LastByte(in.origin) }
	if in.origin == s.cfg.Region {
		cfg.PublicKey = s.publicKey()
		cfg.Quarantine = nil // the peers keep it
		cfg.Control = ownControl{s}
	} else if s.broker.Embedded() { // the server that sends is the peer's own
		cfg.Heard = func() { s.broker.Heard(in.origin) }
	}
	for _, p := range s.cfg.Peers {
		if p.Region == in.origin && p.PublicKey != "" {
			if cfg.PublicKey, err = p.Key(); err != nil {
				return nil, &fatalError{err}
			}
		}
	}
	return subscribe.New(cfg), nil
}

func (s *Sidecar) subscriptionMetrics(origin string) *subscribe.Metrics {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.subMetrics[origin]
	if m == nil {
		m = subscribe.NewMetrics(s.registry, origin)
		s.subMetrics[origin] = m
	}
	return m
}

// quarantine keeps a message that was refused.
func (s *Sidecar) quarantine(ctx context.Context, in *inboundState, m subscribe.Refused) error {
	in.quarantined.Add(1)
	return s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return s.refused.Keep(ctx, c, m)
	})
}
