package sidecar

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/decoder"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/sink/publish"
	"github.com/pgwaltz/pgwaltz/source/slot"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// outboundState is what the rest of the process sees of the direction slot -> stream.
type outboundState struct {
	mu          sync.Mutex
	state       status.State
	reason      string
	gap         *status.GapInfo
	slot        *slot.Reader
	publisher   *publish.Publisher
	pipe        *replicator.Outbound
	row         *pg.Slot // as the catalog had it last
	seenAt      time.Time
	incarnation uint32
	// ownRead is how far the self-merge has applied a transaction in parts.
	ownRead, ownReadOf uint64
	// ownDone is the frame of incarnation ownDoneOf that the self-merge has committed last.
	ownDone   uint64
	ownDoneOf uint32
	// loose is the frame up to which frames were purged that not every peer has committed.
	loose    uint64
	reopened uint32                   // the newest incarnation that admitted a gap
	knew     map[string]pgstore.Place // how far each peer's stream was applied when that gap was found
	answered map[string]uint32        // the newest incarnation of each peer that admitted a gap and is answered
	start    wal.LSN                  // where the slot was when the run began
	begunAt  wal.LSN                  // where the stream was then
	failedAt wal.LSN                  // how far runs came that have failed, since one came further
	frame    atomic.Uint64
	content  atomic.Uint64 // the last stored frame with changes
	durable  atomic.Uint64 // EndLSN of the last frame that is stored
	synced   atomic.Uint64 // EndLSN of the last one that is on disk
	needs    atomic.Int32  // need: whether what is confirmed, or would be, stands in the stream alone
	deciding sync.Mutex    // held while that is found out, and a position is chosen
	ends     course        // of this server's WAL
	// echoes and foreign are those of slot readers that have ended.
	echoes, foreign uint64
	riskKnown       atomic.Bool
	confirmed       atomic.Uint64
	passed          atomic.Uint64 // of it, what every peer has applied (keepPassed)
	atRisk          atomic.Uint64
	mode            atomic.Value // string
	acks            map[string]peerAck
	reopen          context.CancelCauseFunc // ends the run at hand
	live            bool                    // a run is past its beginning
	anew            bool                    // the next run starts a new incarnation
	lastRewind      time.Time
	budgets         map[string]*budget // of rewinds, by peer
	extra           chan replicator.Extra
	stats           replicator.OutboundStats
	stamper         *replicator.Stamper
	seqs            seqIndex
	chains          checkpoint.Chains // of the newest stored frames
	prove           bool              // the WAL is read twice: it is proved first
}

// fail notes why the direction does not flow.
func (o *outboundState) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failedAt = max(o.failedAt, o.through())
	if o.state != status.Gap {
		o.state, o.reason = status.Down, publicMessage(err)
		if pg.Code(err) == undefinedObject {
			o.reason += unpublished
		}
	}
}

// undefinedObject is what a walsender says of a publication that is not there, or was not when the
// WAL was written that it has to decode: it looks into the catalogs as they were then.
const undefinedObject = "42704"

const unpublished = ", or did not when this WAL was written: run pgwaltz setup, and if this stays pgwaltz resync --recreate-slot"

func (o *outboundState) set(state status.State, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state, o.reason = state, reason
	if state != status.Gap {
		o.gap = nil
	}
}

// published takes note of a stored frame.
func (o *outboundState) published(h wire.Header) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.chains.Note(h.Number, h.Chain)
	o.frame.Store(h.Number)
}

// account keeps the counters of a slot reader that has ended.
func (o *outboundState) account(slot *slot.Reader) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.echoes, o.foreign = o.echoes+slot.Echoes(), o.foreign+slot.Foreign()
	if o.slot == slot {
		o.slot = nil
	}
}

// stream gives the pipe what it needs of the publisher.
type stream struct{ *publish.Publisher }

func (p stream) InFlight() int { return p.State().InFlight }

func (s *Sidecar) newPublisher(durable func(wire.Header, uint64)) (*publish.Publisher, error) {
	js, err := s.broker.OwnJS()
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

// newSlot makes a reader of a slot that has confirmed a position.
func (s *Sidecar) newSlot(confirmed wal.LSN) *slot.Reader {
	return slot.New(slot.Config{
		Connect: s.connectSlot, Name: s.cfg.Postgres.Slot, Publications: []string{s.cfg.Postgres.Publication},
		Decoder: decoder.Config{
			MaxPart: maxPart, Marker: s.caps.token, ForwardOrigins: s.cfg.ForwardOrigins, Key: s.describe, Number: s.number, OnNameless: s.members.Nameless,
		},
		Confirm: s.confirm, Confirmed: confirmed, StatusInterval: statusInterval,
		Started: func(ctx context.Context) error { return s.unmoved(ctx, confirmed) },
	})
}

// maxPart is the size of the parts of a giant transaction in memory: some thousand rows.
const maxPart = 2 << 20

// unmoved looks, once nobody else can move the slot any more, whether it is still where it was
// when the beginning was decided. PostgreSQL silently begins at its own position otherwise.
func (s *Sidecar) unmoved(ctx context.Context, confirmed wal.LSN) error {
	return s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		slot, err := pg.LoadSlot(ctx, c, s.cfg.Postgres.Slot)
		if err != nil {
			return err
		}
		if slot == nil || slot.ConfirmedFlushLSN > confirmed {
			return fmt.Errorf("begin at %s: slot %q was moved meanwhile", confirmed, s.cfg.Postgres.Slot)
		}
		return nil
	})
}

// statusInterval is how often positions are confirmed: a fraction of the smallest
// wal_sender_timeout that anybody sets.
const statusInterval = 500 * time.Millisecond
