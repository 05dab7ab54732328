package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Broker is one region's access to NATS. After Start its methods may be called from any
// goroutine; Close ends everything, the embedded server last.
type Broker struct {
	cfg Config
	log *slog.Logger
	emb *embedded  // nil with an external server
	nc  *nats.Conn // for the own stream: to the own embedded server, or the external one
	far *nats.Conn // for what is said to peers, and what they ask
	// to has a connection for each stream that is read, of peers and with an external server the
	// own one. What comes in on it only the stream's origin may send, beside the server.
	to    map[string]*nats.Conn
	moves map[*nats.Conn]*movement // of an external server; set by start

	ctx    context.Context // from Start to Close, for the goroutines and handlers
	cancel context.CancelFunc
	wg     sync.WaitGroup

	session  uint64        // of the acknowledgements
	acks     atomic.Uint64 // sent
	refusals refusals

	mu      sync.Mutex
	closed  bool // no goroutine may be started any more
	js      map[string]jetstream.JetStream
	peers   map[string]*Peer
	lastErr error

	restartMu sync.Mutex
	restarted time.Time
	refused   time.Time // when Rely had no success last
}

// New checks the configuration. Errors: ConfigErrors, joined.
func New(cfg Config) (*Broker, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &Broker{cfg: cfg, log: cfg.Log, session: rand.Uint64(), js: map[string]jetstream.JetStream{}, peers: map[string]*Peer{}, to: map[string]*nats.Conn{}, moves: map[*nats.Conn]*movement{}}
	for _, p := range cfg.Peers {
		b.peers[p] = &Peer{Region: p}
	}
	return b, nil
}

// Start starts the embedded server, if that is configured, and connects. With an external
// server it returns without waiting for the connection: that is retried for ever.
// Errors: ErrStoreInUse while another process holds the store; files that cannot be read;
// addresses that cannot be taken. ctx bounds the start only.
func (b *Broker) Start(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.ctx, b.cancel = context.WithCancel(context.WithoutCancel(ctx))
	files := b.cfg.files() // before they are used: a change meanwhile is one
	if err := b.start(); err != nil {
		b.Close()
		return fmt.Errorf("start broker: %w", err)
	}
	for _, p := range b.cfg.Peers {
		b.run(func() { b.watchPeer(p) })
	}
	b.run(b.sweep)
	b.run(func() { b.watchFiles(files) })
	if b.emb != nil {
		b.run(b.watchStore)
	} else {
		b.run(b.watchMoves)
	}
	return nil
}

func (b *Broker) start() error {
	if b.cfg.embedded() {
		emb, err := newEmbedded(&b.cfg, &serverLog{log: b.log})
		if err != nil {
			return err
		}
		if err := emb.start(); err != nil {
			return err
		}
		b.emb = emb
	}
	opts, err := b.connOptions()
	if err != nil {
		return err
	}
	connect := func(prefix string) (*nats.Conn, error) {
		list, m := append(slices.Clone(opts), nats.CustomInboxPrefix(prefix)), &movement{}
		if b.emb == nil {
			list = append(list, nats.SetCustomDialer(m), nats.MaxPingsOutstanding(manyPings))
		}
		nc, err := nats.Connect(b.cfg.URL, list...)
		if err != nil {
			return nil, fmt.Errorf("connect to NATS: %w", err)
		}
		if b.emb == nil {
			b.moves[nc] = m
		}
		return nc, nil
	}
	// Answers of the own server come in where no peer can put one.
	own := localInbox
	if b.emb == nil {
		own = inbox(b.cfg.Region, b.cfg.Region)
		if b.to[b.cfg.Region], err = connect(own); err != nil {
			return err
		}
	}
	nc, err := connect(own)
	if err != nil {
		return err
	}
	// A connection reports its state as soon as it has one, and State reads this one.
	b.mu.Lock()
	b.nc = nc
	b.mu.Unlock()
	if b.far, err = connect(own); err != nil {
		return err
	}
	for _, p := range b.cfg.Peers {
		if b.to[p], err = connect(inbox(b.cfg.Region, p)); err != nil {
			return err
		}
	}
	if b.emb != nil {
		if err := b.serveGate(); err != nil {
			return err
		}
	}
	_, err = b.Serve(verbPing, b.pong)
	return err
}

// conns are all connections that there are.
func (b *Broker) conns() []*nats.Conn {
	list := append([]*nats.Conn{b.far, b.nc}, slices.Collect(maps.Values(b.to))...)
	return slices.DeleteFunc(list, func(nc *nats.Conn) bool { return nc == nil })
}

// Close ends the connection, waits for handlers and goroutines, and stops the embedded
// server; it returns when the store is on disk.
func (b *Broker) Close() {
	if b.cancel == nil {
		return
	}
	b.cancel()
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	if b.far != nil {
		_ = b.far.FlushTimeout(time.Second) // last acknowledgements; they are sent again anyway
	}
	for _, nc := range b.conns() {
		nc.Close()
	}
	b.wg.Wait()
	if b.emb != nil {
		b.emb.stop()
	}
}

// run starts fn in a goroutine that Close waits for, unless the broker is closing.
func (b *Broker) run(fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.wg.Go(fn)
	}
}

// every calls fn in intervals until it returns false or the broker closes.
func (b *Broker) every(d time.Duration, fn func() bool) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-b.ctx.Done():
			return
		}
		if !fn() {
			return
		}
	}
}

// connOptions: reconnect for ever, and buffer nothing meanwhile. What a disconnect leaves
// undecided is decided by reading the stream, never by replaying a buffer.
func (b *Broker) connOptions() ([]nats.Option, error) {
	opts := []nats.Option{
		nats.Name(fmt.Sprintf("pgwaltz-%s-%s", b.cfg.Cluster, b.cfg.Region)),
		nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.RetryOnFailedConnect(true), nats.IgnoreAuthErrorAbort(),
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(maxPings), nats.Timeout(5 * time.Second),
		nats.ConnectHandler(func(*nats.Conn) { b.connState(nil) }),
		nats.ReconnectHandler(func(*nats.Conn) { b.connState(nil) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { b.connState(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { b.connState(err) }),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			subject := ""
			if s != nil {
				subject = s.Subject
			}
			b.log.Warn("NATS reports an error", "error", err, "subject", subject)
			b.noteError(err)
		}),
	}
	if b.emb != nil {
		return append(opts, nats.InProcessServer(b.emb), nats.UserInfo(localUser, b.emb.password),
			nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(0, 0)), nil
	}
	opts = append(opts, nats.ReconnectWait(500*time.Millisecond))
	who, err := b.cfg.login(b.log)
	return append(opts, who...), err
}

// Conn is the connection for the region's own stream. Its buffer for disconnected times is
// off: publishing while it is down is an error.
func (b *Broker) Conn() *nats.Conn { return b.nc }

// ConnOf is the connection for reading the stream of a region, this one or another.
func (b *Broker) ConnOf(region string) *nats.Conn {
	if nc := b.to[region]; nc != nil {
		return nc
	}
	return b.nc
}

// JS is JetStream of a region: of the own domain, of another region through its gate; an external server has one for all.
func (b *Broker) JS(region string) (jetstream.JetStream, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if js := b.js[region]; js != nil {
		return js, nil
	}
	js, err := b.jetStream(b.ConnOf(region), region)
	if err == nil {
		b.js[region] = js
	}
	return js, err
}

// OwnJS is JetStream of the own domain on the connection Conn: what is asked on it does not wait
// behind frames that are read.
func (b *Broker) OwnJS() (jetstream.JetStream, error) { return b.jetStream(b.nc, b.cfg.Region) }

// jetStream is JetStream of a region's domain on a connection.
func (b *Broker) jetStream(nc *nats.Conn, region string) (js jetstream.JetStream, err error) {
	switch {
	case b.emb == nil:
		js, err = jetstream.New(nc)
	case region == b.cfg.Region:
		js, err = jetstream.NewWithDomain(nc, Domain(region))
	default:
		js, err = jetstream.NewWithAPIPrefix(nc, gate(b.cfg.Cluster, region, b.cfg.Region))
	}
	if err != nil {
		return nil, fmt.Errorf("open JetStream of %s: %w", region, err)
	}
	return js, nil
}

// Region is the region that the broker belongs to.
func (b *Broker) Region() string { return b.cfg.Region }

// Embedded reports whether the server is inside this process.
func (b *Broker) Embedded() bool { return b.cfg.embedded() }

// LinkAddr is the address of the link listener with its actual port; "" without one.
func (b *Broker) LinkAddr() string {
	if b.emb == nil {
		return ""
	}
	return b.emb.listen
}

// ClientAddr is the address of the client port for operators; "" without one.
func (b *Broker) ClientAddr() string {
	if b.emb == nil {
		return ""
	}
	return b.emb.client
}

// State is the present state.
func (b *Broker) State() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := State{Connected: b.nc != nil && b.nc.IsConnected(), Peers: map[string]bool{}}
	if !s.Connected {
		s.Err = b.lastErr
	}
	for r, p := range maps.All(b.peers) {
		s.Peers[r] = p.Reachable
	}
	return s
}

func (b *Broker) connState(err error) {
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		b.log.Info("NATS connection lost", "error", err)
	}
	b.noteError(err)
	b.changed()
}

func (b *Broker) noteError(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.lastErr = err
	}
}

// Explain puts the reason into an error that only says that there is no connection: a login that
// was refused, an address that does not answer. Any other error is returned as it is.
func (b *Broker) Explain(err error) error {
	if err == nil || !errors.Is(err, nats.ErrReconnectBufExceeded) && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrDisconnected) {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lastErr == nil {
		return fmt.Errorf("there is no connection to NATS: %w", err)
	}
	return fmt.Errorf("there is no connection to NATS: %w", b.lastErr)
}

func (b *Broker) changed() {
	if b.cfg.OnState != nil && b.ctx.Err() == nil {
		b.cfg.OnState(b.State())
	}
}
