package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/decoder"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/sink/publish"
	"github.com/pgwaltz/pgwaltz/source/slot"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// outboundState is what the rest of the process sees of the direction slot -> stream.
type outboundState struct {
	mu          sync.Mutex
	state       status.State
	reason      string
	gap         *status.GapInfo
	lastErr     *status.LastError
	slot        *slot.Reader
	publisher   *publish.Publisher
	pipe        *replicator.Outbound
	row         *pg.Slot // as the catalog had it last
	seenAt      time.Time
	incarnation uint32
	start       wal.LSN // where the slot was when the run began
	frame       atomic.Uint64
	durable     atomic.Uint64 // EndLSN of the last durable frame
	confirmed   atomic.Uint64
	atRisk      atomic.Uint64
	mode        atomic.Value // string
	acks        map[string]peerAck
	reopen      context.CancelCauseFunc // ends the run at hand
	newLife     bool                    // the next open starts a new incarnation
	lastRewind  time.Time
	extra       chan replicator.Extra
	stats       replicator.OutboundStats
	stamper     *replicator.Stamper
	seqs        seqIndex
}

type peerAck struct {
	broker.Ack
	received time.Time
}

// fail notes why the direction does not flow.
func (o *outboundState) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lastErr = &status.LastError{At: time.Now(), Message: publicMessage(err), SQLState: pg.Code(err)}
	if o.state != status.Gap {
		o.state, o.reason = status.Down, publicMessage(err)
	}
}

func (o *outboundState) set(state status.State, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state, o.reason = state, reason
	if state != status.Gap {
		o.gap = nil
	}
}

// publish is one run of the outbound pipe: find out where the stream ends, where the slot
// begins, whether that fits, and move.
func (s *Sidecar) publish(ctx context.Context) error {
	o := &s.out
	ctx, reopen := context.WithCancelCause(ctx)
	defer reopen(nil)
	o.mu.Lock()
	o.reopen = reopen
	if o.extra == nil {
		o.extra = make(chan replicator.Extra, 256)
	}
	o.mu.Unlock()
	var pipe *replicator.Outbound
	pub, err := s.newPublisher(func(h wire.Header, seq uint64) {
		o.seqs.add(h, seq)
		o.frame.Store(h.Number)
		o.durable.Store(max(o.durable.Load(), uint64(h.EndLSN)))
		pipe.Durable()
	})
	if err != nil {
		return err
	}
	tail, err := pub.Open(ctx)
	if err != nil {
		return err
	}
	begin, err := s.whereToBegin(ctx, tail)
	var busy *slotBusyError
	if errors.As(err, &busy) {
		o.set(status.Down, busy.Error())
		if err := sleep(ctx, 300*time.Millisecond); err != nil {
			return err
		}
		return errAgain
	}
	if err != nil {
		return err
	}
	if begin == nil {
		return s.awaitResync(ctx)
	}
	if err := pub.Start(begin.at, tail); err != nil {
		return err
	}
	slot := s.newSlot()
	o.stamper = replicator.NewStamper(s.stampPolicy, s.index, s.clock, s.stamps)
	o.stamper.Find(s.findGrave)
	policy := apply.PolicyFunc(s.policy)
	pipe = replicator.NewOutbound(replicator.OutboundConfig{
		Encoder: wire.EncoderConfig{
			Cluster: s.cfg.Cluster, Origin: s.cfg.Region, Epoch: s.epoch,
			Compress: s.cfg.Publish.Compress, MaxFrame: int(s.cfg.Publish.MaxFrame), Sign: s.signer(),
		},
		Tail: begin.at, TailSent: begin.sent, Resync: begin.resync,
		Stamper: o.stamper, FrameBytes: int(s.cfg.Publish.FrameBytes),
		Linger: s.cfg.Publish.Linger, Heartbeat: s.cfg.Publish.Heartbeat,
		NeedsMerge: func(tx *wal.Transaction, ch *wal.Change) bool { return apply.NeedsSelfMerge(policy, tx, ch) },
		Merge:      s.own.note,
		Decoded:    s.own.decodedTo,
		Changed:    s.watch.Changed,
		Extra:      o.extra, Log: s.log,
	}, stream{pub}, &o.stats)
	o.durable.Store(uint64(begin.at.EndLSN))
	if err := checkpoint.MustStart(max(begin.slot, begin.confirmed), begin.confirmed); err != nil {
		return &fatalError{err}
	}
	o.mu.Lock()
	o.start = begin.slot
	o.confirmed.Store(uint64(begin.slot))
	o.slot, o.publisher, o.pipe, o.incarnation = slot, pub, pipe, begin.at.Incarnation
	o.state, o.reason, o.gap, o.newLife = status.Replicating, "", nil, false
	o.mu.Unlock()
	s.own.reset(slot.Ping)
	s.log.Info("publishing", "slot", s.cfg.Postgres.Slot, "lsn", begin.slot.String(), "incarnation", begin.at.Incarnation, "frame", begin.at.Number)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return slot.Run(gctx, begin.slot) })
	g.Go(func() error { return pub.Run(gctx) })
	g.Go(func() error { return pipe.Run(gctx, slot) })
	err = g.Wait()
	switch {
	case errors.Is(context.Cause(ctx), errAgain):
		return errAgain
	case errors.Is(err, replicator.ErrForked):
		return s.fork(ctx, err)
	case errors.Is(err, publish.ErrStreamLost):
		s.log.Warn("the stream lost what was published; publishing again from the slot", "reason", publicMessage(err))
		return errAgain
	}
	return err
}

// stream gives the pipe what it needs of the publisher.
type stream struct{ *publish.Publisher }

func (p stream) InFlight() int { return p.State().InFlight }

func (s *Sidecar) newPublisher(durable func(wire.Header, uint64)) (*publish.Publisher, error) {
	js, err := s.broker.JS(s.cfg.Region)
	if err != nil {
		return nil, err
	}
	cfg := publish.Config{
		Cluster: s.cfg.Cluster, Origin: s.cfg.Region, Conn: s.broker.Conn(), JS: js,
		MaxBytes: int64(s.cfg.NATS.MaxBytes), Replicas: s.cfg.NATS.Replicas, PublicKey: s.publicKey(),
		OnDurable: durable, Log: s.log, Metrics: s.pubMetrics,
		OnForeign: func(f publish.ForeignMessage) {
			s.log.Warn("a message on our subject is not ours", "stream_seq", f.Seq, "reason", f.Reason)
		},
	}
	if s.broker.Embedded() {
		cfg.Repair = s.broker.Restart
	}
	return publish.New(cfg), nil
}

func (s *Sidecar) newSlot() *slot.Reader {
	return slot.New(slot.Config{
		Connect: s.connectSlot, Name: s.cfg.Postgres.Slot, Publications: []string{s.cfg.Postgres.Publication},
		Decoder: decoder.Config{
			MaxPart: maxPart, Marker: s.caps.token, ForwardOrigins: s.cfg.ForwardOrigins, PrimaryKey: s.primaryKey,
		},
		Confirm: s.confirm, StatusInterval: statusInterval,
	})
}

// maxPart is the size of the parts of a giant transaction in memory: some thousand rows.
const maxPart = 2 << 20

// statusInterval is how often positions are confirmed: a fraction of the smallest
// wal_sender_timeout that anybody sets.
const statusInterval = 500 * time.Millisecond

// primaryKey looks a table's primary key up for the decoder.
func (s *Sidecar) primaryKey(schema, name string, cols []wal.Column) []int {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var key []string
	err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, `select coalesce(pg_catalog.array_agg(a.attname::text order by k.n), '{}')
from pg_catalog.pg_class t join pg_catalog.pg_namespace n on n.oid = t.relnamespace
join pg_catalog.pg_index i on i.indrelid = t.oid and i.indisprimary
cross join lateral pg_catalog.unnest(i.indkey[0:i.indnkeyatts-1]) with ordinality as k(att, n)
join pg_catalog.pg_attribute a on a.attrelid = t.oid and a.attnum = k.att
where n.nspname = $1 and t.relname = $2`, schema, name).Scan(&key)
	})
	if err != nil || len(key) == 0 {
		return nil
	}
	pos := make([]int, 0, len(key))
	for _, k := range key {
		found := -1
		for i := range cols {
			if cols[i].Name == k {
				found = i
			}
		}
		if found < 0 {
			return nil
		}
		pos = append(pos, found)
	}
	return pos
}

// findGrave looks one grave up in the table, when the index is full.
func (s *Sidecar) findGrave(rel wal.RelationName, key string) (g tombstone.Grave, ok bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		found, err := tombstone.Find(ctx, c, rel, []string{key})
		if e, has := found[key]; has {
			g, ok = tombstone.Grave{Generation: e.Stamp.Generation, LSN: e.LSN}, true
		}
		return err
	})
	return g, ok, err
}

// slotBusyError says that somebody else reads the slot. It is free again when that process
// ends, or after wal_sender_timeout when it hangs.
type slotBusyError struct {
	slot string
	pid  int32
}

func (e *slotBusyError) Error() string {
	return fmt.Sprintf("replication slot %q is active for PID %d", e.slot, e.pid)
}

// beginning is where a run of the outbound pipe starts.
type beginning struct {
	at     wire.Position // of the stream
	slot   wal.LSN       // of the log
	sent   wal.Micros
	resync bool
	// confirmed is where the slot stands; nothing before it will ever come.
	confirmed wal.LSN
}

// whereToBegin compares the stream's end with the slot's start. nil means that there is a gap
// between them, which is noted; nothing may be published until it is resolved.
func (s *Sidecar) whereToBegin(ctx context.Context, tail publish.Tail) (*beginning, error) {
	var b *beginning
	err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		slot, err := pg.LoadSlot(ctx, c, s.cfg.Postgres.Slot)
		if err != nil {
			return err
		}
		row, err := loadStreamRow(ctx, c, s.cfg.Region)
		if err != nil {
			return err
		}
		var end string
		if err := c.QueryRow(ctx, `select pg_catalog.pg_current_wal_flush_lsn()::text`).Scan(&end); err != nil {
			return fmt.Errorf("read the end of the log: %w", err)
		}
		walEnd, err := wal.ParseLSN(end)
		if err != nil {
			return err
		}
		s.out.mu.Lock()
		s.out.row, s.out.seenAt = slot, time.Now()
		newLife := s.out.newLife
		s.out.mu.Unlock()
		b, err = s.begin(ctx, c, tail, slot, row, walEnd, newLife)
		return err
	})
	return b, err
}

func (s *Sidecar) begin(ctx context.Context, c *pgx.Conn, tail publish.Tail, slot *pg.Slot, row streamRow, walEnd wal.LSN, newLife bool) (*beginning, error) {
	if slot == nil || slot.Lost() {
		what := "the slot is missing"
		if slot != nil {
			what = "the slot is lost: the server removed log that it still needed (max_slot_wal_keep_size)"
		}
		return nil, s.gap(ctx, c, row.last(tail), walEnd, what, "run `pgwaltz resync -config FILE --recreate-slot`")
	}
	if slot.Active {
		return nil, &slotBusyError{s.cfg.Postgres.Slot, slot.ActivePID}
	}
	from := slot.ConfirmedFlushLSN
	known := tail.Found && tail.Header.Epoch.SameLog(s.epoch)
	// From here on the peers get to know of every number, so it is stored before it is used.
	fresh := func(resync bool) (*beginning, error) {
		n := max(row.incarnation, uint64(tail.Header.Incarnation)) + 1
		if err := saveStreamRow(ctx, c, s.cfg.Region, n, s.epoch); err != nil {
			return nil, err
		}
		return &beginning{at: wire.Position{Incarnation: uint32(n), EndLSN: from}, slot: from, resync: resync, confirmed: from}, nil
	}
	switch {
	case row.resync:
		// An operator accepted the gap: everything is copied again behind it.
		return fresh(true)
	case !tail.Found && row.incarnation == 0:
		return fresh(false)
	case tail.Found && !known:
		return nil, s.gap(ctx, c, tail.Header.EndLSN, from, "the server's log is another one than the stream's ("+tail.Header.Epoch.String()+"): failed over or restored",
			"run `pgwaltz resync -config FILE`")
	case !tail.Found || newLife || tail.Damaged || uint64(tail.Header.Incarnation) < row.incarnation:
		// The stream is gone, or a peer misses a piece of it: publish again what the slot holds.
		return fresh(false)
	case walEnd < tail.Header.EndLSN:
		return nil, s.gap(ctx, c, tail.Header.EndLSN, from, "the server's log ends before what was published: it was restored from an older state", "run `pgwaltz resync -config FILE`")
	case from > tail.Header.EndLSN:
		if s.appliedEverywhere(from) {
			return fresh(false)
		}
		return nil, s.gap(ctx, c, tail.Header.EndLSN, from, "the slot starts behind what was published", "run `pgwaltz resync -config FILE`")
	}
	return &beginning{at: tail.Header.Position(), slot: from, sent: tail.Header.SentAt, confirmed: from}, nil
}

// appliedEverywhere reports whether every peer has applied everything below at.
func (s *Sidecar) appliedEverywhere(at wal.LSN) bool {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	for _, p := range s.cfg.PeerNames() {
		a, ok := s.out.acks[p]
		if !ok || !a.Epoch.SameLog(s.epoch) || a.EndLSN < at {
			return false
		}
	}
	return len(s.cfg.PeerNames()) > 0
}

// fork reacts to a log that repeats positions with other contents.
func (s *Sidecar) fork(ctx context.Context, cause error) error {
	return s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		s.log.Error("the server was restored from an older state", "reason", publicMessage(cause))
		return s.gap(ctx, c, wal.LSN(s.out.durable.Load()), 0, cause.Error(), "run `pgwaltz resync -config FILE`")
	})
}

// gap records a hole between what was published and what the slot can give.
func (s *Sidecar) gap(ctx context.Context, c *pgx.Conn, from, to wal.LSN, why, remedy string) error {
	o := &s.out
	o.mu.Lock()
	if o.gap == nil {
		s.log.Error("gap: nothing is published until it is resolved", "from", from.String(), "to", to.String(), "reason", why, "remedy", remedy)
	}
	o.state, o.reason = status.Gap, why
	o.gap = &status.GapInfo{From: from.String(), To: to.String(), Since: time.Now(), Remedy: remedy}
	o.slot, o.pipe = nil, nil
	o.mu.Unlock()
	_, err := c.Exec(ctx, `insert into pgwaltz.stream (region, incarnation, gap_from, gap_to, gap_at) values ($1, 0, $2::text::pg_lsn, $3::text::pg_lsn, pg_catalog.now())
on conflict (region) do update set gap_from = excluded.gap_from, gap_to = excluded.gap_to, gap_at = coalesce(stream.gap_at, excluded.gap_at)`,
		s.cfg.Region, from.String(), to.String())
	if err != nil {
		return fmt.Errorf("record gap: %w", err)
	}
	return nil
}

// awaitResync looks for the operator's word, or for anything else that closes the gap.
func (s *Sidecar) awaitResync(ctx context.Context) error {
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	return errAgain
}

// streamRow is what the database remembers of the region's stream.
type streamRow struct {
	incarnation uint64
	resync      bool
}

func (r streamRow) last(t publish.Tail) wal.LSN {
	if t.Found {
		return t.Header.EndLSN
	}
	return 0
}

func loadStreamRow(ctx context.Context, c *pgx.Conn, region string) (streamRow, error) {
	var r streamRow
	var n int64
	err := c.QueryRow(ctx, `select incarnation, resync_requested_at is not null from pgwaltz.stream where region = $1`, region).Scan(&n, &r.resync)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("read stream row: %w", err)
	}
	r.incarnation = uint64(n)
	return r, nil
}

func saveStreamRow(ctx context.Context, c *pgx.Conn, region string, incarnation uint64, e wal.Epoch) error {
	_, err := c.Exec(ctx, `insert into pgwaltz.stream (region, incarnation, system_id, timeline, slot) values ($1, $2, $3, $4, $5)
on conflict (region) do update set incarnation = excluded.incarnation, system_id = excluded.system_id, timeline = excluded.timeline, slot = excluded.slot,
  gap_from = null, gap_to = null, gap_at = null, resync_requested_at = null`,
		region, int64(incarnation), fmt.Sprint(e.SystemID), int32(e.Timeline), e.Slot)
	if err != nil {
		return fmt.Errorf("save stream row: %w", err)
	}
	return nil
}

// acked takes a peer's word of how far it has durably applied.
func (s *Sidecar) acked(a broker.Ack) {
	o := &s.out
	o.mu.Lock()
	old := o.acks[a.Peer]
	if old.Epoch.SameLog(a.Epoch) && a.EndLSN < old.EndLSN && a.At < old.At {
		o.mu.Unlock()
		return // an older one, come late
	}
	o.acks[a.Peer] = peerAck{a, time.Now()}
	o.mu.Unlock()
}

// confirm is asked by the slot reader for the position that the server may forget.
func (s *Sidecar) confirm() wal.LSN {
	o := &s.out
	o.mu.Lock()
	peers := make([]checkpoint.Peer, 0, len(s.cfg.Peers))
	for _, p := range s.cfg.PeerNames() {
		a := o.acks[p]
		peer := checkpoint.Peer{Region: p, AckAge: time.Since(a.received), Reachable: s.broker.PeerReachable(p)}
		if a.Epoch.SameLog(s.epoch) {
			peer.Applied = a.EndLSN
		}
		peers = append(peers, peer)
	}
	retained := uint64(0)
	if o.row != nil {
		retained = uint64(max(o.row.RetainedBytes(), 0))
	}
	o.mu.Unlock()
	c := checkpoint.Confirm{
		Mode: checkpoint.Mode(s.cfg.Publish.Confirm), HoldMax: uint64(s.cfg.Publish.WALHoldMax), HoldMargin: uint64(s.cfg.Publish.HoldMargin),
	}
	lsn, mode, risk := c.LSN(checkpoint.Inputs{
		Published: wal.LSN(o.durable.Load()), Confirmed: wal.LSN(o.confirmed.Load()), Peers: peers, Retained: retained,
	})
	// Own deletes have to be recorded before the log that holds them may go.
	if m := s.own.safeLSN(); lsn > m {
		lsn = m
	}
	o.confirmed.Store(max(o.confirmed.Load(), uint64(lsn)))
	o.atRisk.Store(risk)
	o.mode.Store(string(mode))
	lsn = wal.LSN(o.confirmed.Load())
	s.stamps.Confirmed(lsn)
	if err := checkpoint.MustConfirm(checkpoint.Published, lsn, checkpoint.Inputs{Published: max(wal.LSN(o.durable.Load()), o.start)}); err != nil {
		s.log.Error("confirm slot", "error", err.Error())
		return 0 // nothing moves until somebody has looked
	}
	return lsn
}

// rewind answers a peer that misses frames: publish again from the slot, if it still holds
// what the peer needs.
func (s *Sidecar) rewind(ctx context.Context, data []byte) ([]byte, error) {
	var req subscribe.RewindRequest
	if err := json.Unmarshal(data, &req); err != nil {
		return nil, errors.New("the request cannot be read")
	}
	reply, err := s.grantRewind(ctx, req)
	if err != nil {
		return nil, errors.New(publicMessage(err))
	}
	return json.Marshal(reply)
}

func (s *Sidecar) grantRewind(ctx context.Context, req subscribe.RewindRequest) (subscribe.RewindReply, error) {
	var slot *pg.Slot
	err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		var err error
		slot, err = pg.LoadSlot(ctx, c, s.cfg.Postgres.Slot)
		return err
	})
	if err != nil {
		return subscribe.RewindReply{}, err
	}
	cp := req.Checkpoint
	switch {
	case slot == nil || slot.Lost():
		return subscribe.RewindReply{Reason: "the slot is lost"}, nil
	case cp.Epoch.SystemID != 0 && !cp.Epoch.SameLog(s.epoch):
		return subscribe.RewindReply{Available: slot.ConfirmedFlushLSN, Reason: "the server's log is another one now"}, nil
	case cp.Epoch.SystemID != 0 && cp.EndLSN < slot.ConfirmedFlushLSN:
		// Only a resync helps; it looks for this note.
		err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, `update pgwaltz.stream set gap_from = $2::text::pg_lsn, gap_to = $3::text::pg_lsn, gap_at = coalesce(gap_at, pg_catalog.now()) where region = $1`,
				s.cfg.Region, cp.EndLSN.String(), slot.ConfirmedFlushLSN.String())
			return err
		})
		if err != nil {
			return subscribe.RewindReply{}, err
		}
		return subscribe.RewindReply{Available: slot.ConfirmedFlushLSN,
			Reason: fmt.Sprintf("log before %s is gone; run `pgwaltz resync` at region %s", slot.ConfirmedFlushLSN, s.cfg.Region)}, nil
	}
	o := &s.out
	o.mu.Lock()
	defer o.mu.Unlock()
	reply := subscribe.RewindReply{Granted: true, Incarnation: o.incarnation + 1, Start: slot.ConfirmedFlushLSN, Available: slot.ConfirmedFlushLSN}
	if time.Since(o.lastRewind) < 3*time.Second {
		reply.Incarnation = o.incarnation
		return reply, nil
	}
	o.lastRewind = time.Now()
	o.newLife = true
	s.log.Warn("a peer misses frames; publishing again from the slot", "peer", req.Region, "lsn", slot.ConfirmedFlushLSN.String(), "reason", req.Reason)
	if o.reopen != nil {
		o.reopen(errAgain)
	}
	return reply, nil
}
