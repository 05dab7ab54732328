package slot

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

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
	// Confirmed is what was confirmed before; it is said again until Confirm says more. 0: where Run
	// begins.
	Confirmed wal.LSN
	// Started is called once the server has begun to stream, when nobody else can move the
	// slot any more; its error ends Run. May be nil.
	Started func(ctx context.Context) error
	// StatusInterval is the longest time between two status messages; 0 means 1 s.
	StatusInterval time.Duration
	// QueueBytes bounds what is decoded and not yet taken; 0 means 16 MiB.
	QueueBytes int64
}

// Item is what the reader hands on: a batch of transactions in commit order, and then a
// position up to which the WAL was decoded with nothing left open.
type Item struct {
	Transactions []*wal.Transaction
	// Decoded is the position of the WAL up to which everything has been handed on with
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

// WALEnd is the end of the server's WAL when it last told.
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
	r.conn, r.below = conn, bufferOf(conn.Conn())
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
