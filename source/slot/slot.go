package slot

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/decoder"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Config says what to read and what to answer.
type Config struct {
	// Connect opens a connection in replication mode with the text settings pinned. It is
	// called once for each Run.
	// Frontend has to read its messages.
	Connect      func(ctx context.Context, frontend func(io.Reader, io.Writer) *pgproto3.Frontend) (*pgconn.PgConn, error)
	Name         string
	Publications []string
	// Binary asks for values in binary form.
	Binary  bool
	Decoder decoder.Config
	// Confirm returns the position below which everything is safe. It is asked before each
	// status message and may be called only from Run's goroutine.
	Confirm func() wal.LSN
	// Started is called once the server has begun to stream, when nobody else can move the
	// slot any more; its error ends Run. May be nil.
	Started func(ctx context.Context) error
	// StatusInterval is the longest time between two status messages; 0 means 1 s.
	StatusInterval time.Duration
	// QueueBytes bounds what is decoded and not yet taken; 0 means 16 MiB.
	QueueBytes int64
}

// Item is what the reader hands on: a batch of transactions in commit order, and then a
// position up to which the log was decoded with nothing left open.
type Item struct {
	Transactions []*wal.Transaction
	// Decoded is the position of the log up to which everything has been handed on with
	// this item or an earlier one; zero when a transaction is open.
	Decoded wal.LSN
	bytes   int64
}

// Reader reads one logical replication slot. Run owns the replication connection: the same
// goroutine reads it and writes every status message, whatever the back-pressure. The other
// methods may be called from anywhere.
type Reader struct {
	cfg      Config
	out      chan Item
	queued   atomic.Int64
	freed    chan struct{} // one token: somebody took an item
	received atomic.Uint64 // last position that the server sent
	walEnd   atomic.Uint64
	flushed  atomic.Uint64 // last position that we confirmed
	decoded  atomic.Uint64
	echoes   atomic.Uint64
	foreign  atomic.Uint64
	wake     atomic.Pointer[wakeup]
	draining atomic.Bool
}

// wakeup lets another goroutine interrupt the blocking read.
type wakeup struct {
	conn net.Conn
	ping atomic.Bool // ask the server for a keepalive
}

// New prepares a reader. It does not connect.
func New(cfg Config) *Reader {
	if cfg.StatusInterval <= 0 {
		cfg.StatusInterval = time.Second
	}
	if cfg.QueueBytes <= 0 {
		cfg.QueueBytes = 16 << 20
	}
	return &Reader{
		cfg: cfg,
		// Items are bounded by bytes (QueueBytes); the number only has to be large enough
		// that many small transactions do not wake the taker one by one.
		out:   make(chan Item, 256),
		freed: make(chan struct{}, 1),
	}
}

// Items is the channel of decoded transactions. The taker calls Taken for each item when it
// is done with it. It is closed when Run returns.
func (s *Reader) Items() <-chan Item { return s.out }

// Taken gives back the memory that an item held.
func (s *Reader) Taken(it Item) {
	s.queued.Add(-it.bytes)
	select {
	case s.freed <- struct{}{}:
	default:
	}
}

// Received is the position up to which the server has sent.
func (s *Reader) Received() wal.LSN { return wal.LSN(s.received.Load()) }

// WALEnd is the end of the server's log when it last told.
func (s *Reader) WALEnd() wal.LSN { return wal.LSN(s.walEnd.Load()) }

// Confirmed is the position last confirmed to the server.
func (s *Reader) Confirmed() wal.LSN { return wal.LSN(s.flushed.Load()) }

// Echoes is the number of transactions left out because they were applied, not made, here.
func (s *Reader) Echoes() uint64 { return s.echoes.Load() }

// Foreign is the number of logical messages that were ignored because they carry a prefix of
// ours and were not written by a sidecar of this region.
func (s *Reader) Foreign() uint64 { return s.foreign.Load() }

// Ping makes the server tell at once how far it has decoded; the answer comes as an Item.
func (s *Reader) Ping() {
	if w := s.wake.Load(); w != nil {
		w.ping.Store(true)
		w.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// Drain makes Run take nothing more from the server; it goes on confirming, until its context
// ends. It is the first step of an orderly stop.
func (s *Reader) Drain() {
	s.draining.Store(true)
	if w := s.wake.Load(); w != nil {
		w.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// Run streams from start until the context ends or the connection breaks, and always returns
// an error then (the context's cause, or what broke). The server begins at start or at the
// slot's confirmed position, whichever is later; the caller has compared them. After Run the
// Reader is spent.
func (s *Reader) Run(ctx context.Context, start wal.LSN) (err error) {
	defer close(s.out)
	r := &connection{slot: s, dec: decoder.New(s.cfg.Decoder)}
	conn, err := s.cfg.Connect(ctx, func(in io.Reader, out io.Writer) *pgproto3.Frontend {
		// The server sends small messages one by one; what has gathered is taken at once.
		r.in = bufio.NewReaderSize(in, readBuffer)
		return pgproto3.NewFrontend(r.in, out)
	})
	if err != nil {
		return fmt.Errorf("connect to slot %q: %w", s.cfg.Name, err)
	}
	r.conn = conn
	defer func() {
		s.wake.Store(nil)
		closing, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		conn.Close(closing)
	}()
	if err := r.start(ctx, start); err != nil {
		return fmt.Errorf("start replication from slot %q at %s: %w", s.cfg.Name, start, err)
	}
	if s.cfg.Started != nil {
		if err := s.cfg.Started(ctx); err != nil {
			return err
		}
	}
	w := &wakeup{conn: conn.Conn()}
	s.wake.Store(w)
	stop := context.AfterFunc(ctx, func() { w.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	return r.loop(ctx, w)
}

// readBuffer is how much is taken from the connection with one read.
const readBuffer = 256 << 10

// connection is the state of one connection.
type connection struct {
	slot    *Reader
	conn    *pgconn.PgConn
	in      *bufio.Reader
	dec     *decoder.Decoder
	pending Item
	status  time.Time // when the next status is due
	asked   int       // keepalives since askedAt that wanted an answer at once
	askedAt time.Time
	lastPos wal.LSN // flush position sent last; never goes back
	seen    wal.LSN // highest position that the server showed on this connection
	// leaving: the server asks in a tight loop, so it is shutting down and waits for us.
	leaving bool
}

func (r *connection) start(ctx context.Context, at wal.LSN) error {
	args := []string{
		"proto_version '1'",
		"publication_names '" + strings.ReplaceAll(strings.Join(quoteAll(r.slot.cfg.Publications), ","), "'", "''") + "'",
		"messages 'true'",
	}
	if r.slot.cfg.Binary {
		args = append(args, "binary 'true'")
	}
	// Never "origin 'none'" (16 and later): it would also leave out what applied transactions
	// have to tell.
	r.lastPos = at
	r.slot.flushed.Store(uint64(at))
	return pglogrepl.StartReplication(ctx, r.conn, `"`+r.slot.cfg.Name+`"`, pglogrepl.LSN(at),
		pglogrepl.StartReplicationOptions{Mode: pglogrepl.LogicalReplication, PluginArgs: args})
}

func quoteAll(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = `"` + strings.ReplaceAll(n, `"`, `""`) + `"`
	}
	return out
}

func (r *connection) loop(ctx context.Context, w *wakeup) error {
	fe, nc := r.conn.Frontend(), r.conn.Conn()
	r.status = time.Now()
	window, reads := r.status, 0
	for {
		if ctx.Err() != nil {
			// A last word, so that a restart repeats as little as possible.
			r.sendStatus(false)
			return context.Cause(ctx)
		}
		now := time.Now()
		if r.slot.draining.Load() {
			if err := r.drain(ctx); err != nil {
				return err
			}
			continue
		}
		if !now.Before(r.status) || w.ping.Load() {
			if err := r.sendStatus(w.ping.Swap(false)); err != nil {
				return err
			}
			r.status = now.Add(r.slot.cfg.StatusInterval)
		}
		nc.SetReadDeadline(r.status)
		if ctx.Err() != nil || w.ping.Load() {
			continue // came after the look above and was overwritten by the deadline
		}
		// Everything that is in the buffer is decoded before the clock is looked at again.
		got := 0
		for first := true; first || fe.ReadBufferLen() > 0 || r.in.Buffered() > 0; first = false {
			msg, err := fe.Receive()
			if err != nil {
				var ne net.Error
				if errors.As(err, &ne) && ne.Timeout() {
					break
				}
				return fmt.Errorf("read slot %q: %w", r.slot.cfg.Name, err)
			}
			if err := r.handle(ctx, msg); err != nil {
				return err
			}
			got++
			if time.Since(r.status) > 0 {
				break
			}
		}
		if err := r.flush(ctx); err != nil {
			return err
		}
		// The server sends each message by itself and would wake us for each. Under load a
		// short pause lets some gather; it never comes at a few hundred a second.
		reads++
		if end := time.Now(); got >= busyMessages || (reads > busyReads && end.Sub(window) < busyWindow) {
			time.Sleep(busyPause)
			window, reads = end, busyReads // one read in the next window is enough to stay
		} else if end.Sub(window) >= busyWindow {
			window, reads = end, 0
		}
	}
}

// Load is more than busyReads reads within busyWindow, or busyMessages with one read.
const (
	busyMessages = 24
	busyReads    = 8
	busyWindow   = 2 * time.Millisecond
	busyPause    = 200 * time.Microsecond
)

// drain confirms what becomes safe while nothing is read any more.
func (r *connection) drain(ctx context.Context) error {
	if err := r.sendStatus(false); err != nil {
		return err
	}
	t := time.NewTimer(20 * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	return nil
}

func (r *connection) handle(ctx context.Context, msg pgproto3.BackendMessage) error {
	switch m := msg.(type) {
	case *pgproto3.CopyData:
		return r.copyData(ctx, m.Data)
	case *pgproto3.ErrorResponse:
		return fmt.Errorf("read slot %q: %w", r.slot.cfg.Name, pgconn.ErrorResponseToPgError(m))
	case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		return nil
	case *pgproto3.CopyDone, *pgproto3.CommandComplete, *pgproto3.ReadyForQuery:
		return fmt.Errorf("read slot %q: the server ended the stream", r.slot.cfg.Name)
	default:
		return fmt.Errorf("read slot %q: unexpected message %T", r.slot.cfg.Name, msg)
	}
}

func (r *connection) copyData(ctx context.Context, d []byte) error {
	if len(d) == 0 {
		return fmt.Errorf("read slot %q: empty message", r.slot.cfg.Name)
	}
	switch d[0] {
	case pglogrepl.XLogDataByteID:
		if len(d) < 25 {
			return fmt.Errorf("read slot %q: short data message", r.slot.cfg.Name)
		}
		at := wal.LSN(binary.BigEndian.Uint64(d[1:]))
		end := wal.LSN(binary.BigEndian.Uint64(d[9:]))
		r.see(max(at, end), end)
		r.asked = 0
		r.leaving = false
		tx, err := r.dec.Feed(at, d[25:])
		if err != nil {
			return err
		}
		if tx == nil {
			return nil
		}
		if err := failpoint.Hit("slot_after_read"); err != nil {
			return err
		}
		r.slot.echoes.Store(r.dec.Suppressed())
		r.slot.foreign.Store(r.dec.Foreign())
		r.pending.Transactions = append(r.pending.Transactions, tx)
		r.pending.bytes += int64(tx.Size())
		if !tx.More {
			r.see(tx.EndLSN, 0)
			r.pending.Decoded = tx.EndLSN
		} else {
			r.pending.Decoded = 0
		}
		if r.pending.bytes >= 256<<10 || len(r.pending.Transactions) >= 2048 {
			return r.flush(ctx)
		}
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		if len(d) < 18 {
			return fmt.Errorf("read slot %q: short keepalive", r.slot.cfg.Name)
		}
		end := wal.LSN(binary.BigEndian.Uint64(d[1:]))
		r.see(end, end)
		if !r.dec.InTransaction() && end > r.pending.Decoded {
			r.pending.Decoded = end
		}
		if d[17] != 0 {
			// A running server asks once per half wal_sender_timeout. One that shuts down
			// asks in a loop until we have confirmed all it sent, which we may not do.
			if now := time.Now(); now.Sub(r.askedAt) > time.Second {
				r.asked, r.askedAt = 0, now
			}
			r.asked++
			r.leaving = r.leaving || r.asked > 8
			return r.sendStatus(false)
		}
	default:
		return fmt.Errorf("read slot %q: unknown stream message %q", r.slot.cfg.Name, d[0])
	}
	return nil
}

func (r *connection) see(at, end wal.LSN) {
	if at > r.seen {
		r.seen = at
		r.slot.received.Store(uint64(at))
	}
	if uint64(end) > r.slot.walEnd.Load() {
		r.slot.walEnd.Store(uint64(end))
	}
}

// flush hands the pending item on. While the queue is full it keeps the status going and reads
// nothing: the connection stays, and the server need not decode the same WAL again. A server
// that shuts down ends the sidecar's other sessions first, and with them Run's context. What
// is in hand at an orderly stop is left to the next start.
func (r *connection) flush(ctx context.Context) error {
	if len(r.pending.Transactions) == 0 && r.pending.Decoded <= wal.LSN(r.slot.decoded.Load()) {
		return nil
	}
	it := r.pending
	r.pending = Item{}
	var timer *time.Timer
	for !r.hand(it) {
		if timer == nil {
			timer = time.NewTimer(r.slot.cfg.StatusInterval)
			defer timer.Stop()
		} else {
			timer.Reset(r.slot.cfg.StatusInterval)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-r.slot.freed:
		case <-timer.C:
			if r.slot.draining.Load() {
				return nil
			}
			if err := r.sendStatus(false); err != nil {
				return err
			}
		}
	}
	return nil
}

// hand puts an item into the queue if there is room.
func (r *connection) hand(it Item) bool {
	if q := r.slot.queued.Load(); q != 0 && q+it.bytes > r.slot.cfg.QueueBytes {
		return false
	}
	select {
	case r.slot.out <- it:
	default:
		return false
	}
	r.slot.queued.Add(it.bytes)
	if it.Decoded != 0 {
		r.slot.decoded.Store(uint64(it.Decoded))
	}
	return true
}

// sendStatus writes a standby status update: all three positions, clamped to what this
// server showed and never going back. The message is built here because a zero flush
// position, the answer to a server that shuts down, must stay zero.
func (r *connection) sendStatus(reply bool) error {
	if err := failpoint.Hit("slot_before_status"); err != nil {
		return err
	}
	pos := r.slot.cfg.Confirm()
	if pos > r.seen {
		pos = max(r.lastPos, min(pos, r.seen))
	}
	pos = max(pos, r.lastPos)
	r.lastPos = pos
	flush := pos
	if r.leaving {
		flush = 0
	}
	buf := make([]byte, 0, 39)
	buf = append(buf, 'd', 0, 0, 0, 38, pglogrepl.StandbyStatusUpdateByteID)
	buf = binary.BigEndian.AppendUint64(buf, uint64(max(r.seen, pos)))
	buf = binary.BigEndian.AppendUint64(buf, uint64(flush))
	buf = binary.BigEndian.AppendUint64(buf, uint64(flush))
	buf = binary.BigEndian.AppendUint64(buf, uint64(time.Now().UnixMicro()-946684800*1000000))
	if reply {
		buf = append(buf, 1)
	} else {
		buf = append(buf, 0)
	}
	nc := r.conn.Conn()
	nc.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if _, err := nc.Write(buf); err != nil {
		return fmt.Errorf("confirm slot %q at %s: %w", r.slot.cfg.Name, pos, err)
	}
	r.slot.flushed.Store(uint64(pos))
	return failpoint.Hit("slot_after_status")
}
