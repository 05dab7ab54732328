package subscribe

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/wire"
)

const (
	// apiTimeout is short because a call under way when a link dies is never answered.
	apiTimeout = 3 * time.Second
	// Two pulls are under way, so that the server has the next one while we take the messages of
	// the last; on a slow link (pacing) one.
	pulls     = 2
	pullBatch = 2048
	pullFor   = 30 * time.Second
	// inactive is when the server forgets a consumer that nobody pulls from: also one whose messages
	// wait here, because they are applied slowly.
	inactive = 5 * time.Minute
)

var (
	errSilent = errors.New("no sign of life from the stream")
	errEnded  = errors.New("the server ended the consumer")
	// errReread asks for a session that starts behind the last good frame again.
	errReread = errors.New("reading again from the last good frame")
)

// session is one consumer on the stream, ours alone: a cursor at the server that is thrown
// away at the first doubt.
type session struct {
	r        *follower
	msgs     chan *nats.Msg
	sub      *nats.Subscription
	inbox    string
	next     string               // subject of pull requests
	pulls    map[string]time.Time // under way, and when their time is over
	count    map[string]int       // messages that each brought
	turn     time.Time            // since when the oldest pull is the one being answered
	beating  string               // the pull that has heartbeats; one is enough
	issued   uint64
	consumer uint64                 // last consumer sequence
	last     uint64                 // last stream sequence that came, or before the first
	end      func() (uint64, error) // asks for the stream's last sequence; nil: the server is asked
}

// open makes a consumer that starts at sequence start.
func (r *follower) open(ctx context.Context, start uint64) (*session, error) {
	cfg := &r.s.cfg
	name := wire.ConsumerName(cfg.Region, r.opened%wire.Consumers)
	r.opened++
	stream := wire.StreamName(cfg.Cluster, cfg.Origin)
	call, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	config := jetstream.ConsumerConfig{
		Name: name, Description: "region " + cfg.Region + ", session " + rand.Text()[:8],
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(start, 1), AckPolicy: jetstream.AckNonePolicy,
		MemoryStorage: true, Replicas: 1, InactiveThreshold: inactive, MaxWaiting: 2 * pulls,
	}
	_, err := cfg.JS.CreateConsumer(call, stream, config)
	if apiErr := new(jetstream.APIError); errors.As(err, &apiErr) && apiErr.Code == 400 {
		// An earlier session of this region has left one of the name, which cannot be moved.
		if err := cfg.JS.DeleteConsumer(call, stream, name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return nil, fmt.Errorf("delete consumer of an earlier session on %s: %w", stream, err)
		}
		_, err = cfg.JS.CreateConsumer(call, stream, config)
	}
	if err != nil {
		return nil, fmt.Errorf("create consumer on %s: %w", stream, err)
	}
	s := &session{
		r: r, last: max(start, 1) - 1, inbox: cfg.Conn.NewInbox(), pulls: map[string]time.Time{}, count: map[string]int{},
		// Room for every message of all pulls, and for heartbeats while the queue is full.
		msgs: make(chan *nats.Msg, (pulls+1)*pullBatch),
	}
	prefix := "$JS.API."
	switch o := cfg.JS.Options(); {
	case o.Domain != "":
		prefix = "$JS." + o.Domain + ".API."
	case o.APIPrefix != "":
		prefix = strings.TrimSuffix(o.APIPrefix, ".") + "."
	}
	s.next = prefix + "CONSUMER.MSG.NEXT." + stream + "." + name
	if s.sub, err = cfg.Conn.ChanSubscribe(s.inbox+".*", s.msgs); err != nil {
		return nil, fmt.Errorf("subscribe to messages of %s: %w", stream, err)
	}
	return s, nil
}

func (s *session) close() { _ = s.sub.Unsubscribe() }

// fill keeps the pulls under way; one whose time is over counts as ended, whatever became of it.
func (s *session) fill() error {
	now := time.Now()
	for id, end := range s.pulls {
		if now.After(end) {
			delete(s.pulls, id)
		}
	}
	cfg := &s.r.s.cfg
	for len(s.pulls) < s.r.pace.pulls() {
		s.issued++
		id := strconv.FormatUint(s.issued, 10)
		req, err := json.Marshal(struct {
			Expires   time.Duration `json:"expires"`
			Batch     int           `json:"batch"`
			MaxBytes  int           `json:"max_bytes"`
			Heartbeat time.Duration `json:"idle_heartbeat,omitempty"`
		}{pullFor, pullBatch, s.r.pace.size(), s.heartbeat(id)})
		if err != nil {
			return err
		}
		if err := cfg.Conn.PublishRequest(s.next, s.inbox+"."+id, req); err != nil {
			return fmt.Errorf("pull: %w", err)
		}
		if len(s.pulls) == 0 {
			s.turn = now
		}
		s.pulls[id], s.count[id] = now.Add(pullFor+time.Second), 0
	}
	return nil
}

// heartbeat is that of a new pull: none while another pull has one. When that ends, the next pull is
// issued at once and has it.
func (s *session) heartbeat(id string) time.Duration {
	if _, beats := s.pulls[s.beating]; beats {
		return 0
	}
	s.beating = id
	return s.r.s.cfg.Heartbeat
}

// run reads until something is in doubt.
func (s *session) run(ctx context.Context) error {
	pace := &s.r.pace
	watchdog := time.NewTimer(pace.patience)
	defer watchdog.Stop()
	var tending gapTick
	defer tending.stop()
	probe := time.NewTimer(probeEvery)
	defer probe.Stop()
	quiet, last := quietness{since: time.Now()}, time.Now()
	for {
		if err := s.fill(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m := <-s.msgs:
			pace.came(time.Since(last))
			if err := s.take(ctx, m); err != nil {
				return err
			}
			watchdog.Reset(pace.patience)
			last = time.Now()
		case <-probe.C:
			wait, err := s.probe(ctx, &quiet)
			if err != nil {
				return err
			}
			probe.Reset(wait)
		case <-tending.during(s.r.seeking()):
			if err := s.r.tend(ctx); err != nil {
				return err
			}
		case <-watchdog.C:
			switch {
			case len(s.msgs) > 0: // tend may have waited for an answer meanwhile
				watchdog.Reset(pace.patience)
			case s.moving() && time.Since(last) < maxMoving:
				watchdog.Reset(pace.shortest)
			default:
				pace.silent()
				return errSilent
			}
		}
	}
}

// maxMoving bounds how long bytes may come without a message.
const maxMoving = 5 * time.Minute

// moving reports whether bytes come, though no message is whole.
func (s *session) moving() bool {
	f := s.r.s.cfg.LastByte
	if f == nil {
		return false
	}
	at, known := f()
	return known && time.Since(at) < s.r.pace.shortest
}

// gapTick fires while a gap is open, and does not exist otherwise.
type gapTick struct{ t *time.Ticker }

// tendEvery is how often an open gap is looked after.
const tendEvery = 100 * time.Millisecond

func (g *gapTick) during(open bool) <-chan time.Time {
	if !open {
		g.stop()
		return nil
	}
	if g.t == nil {
		g.t = time.NewTicker(tendEvery)
	}
	return g.t.C
}

func (g *gapTick) stop() {
	if g.t != nil {
		g.t.Stop()
		g.t = nil
	}
}

// quietness is how long a session had nothing to read, and what the stream was asked meanwhile.
type quietness struct {
	last   uint64 // stream sequence that came last
	since  time.Time
	behind int           // answers in a row that named a later end
	wait   time.Duration // until the next question
}

// A stream that was quiet for probeEvery is asked for its end, and then less and less often, down to
// every probeRest.
const (
	probeEvery = 400 * time.Millisecond
	probeRest  = 4 * time.Second
)

// probe asks a quiet stream for its end. Lost messages are mostly found by a heartbeat, which says what was
// delivered; this finds what the server holds and does not deliver. It returns when to come again. Errors: errReread.
func (s *session) probe(ctx context.Context, q *quietness) (time.Duration, error) {
	if s.last != q.last || len(s.msgs) > 0 {
		*q = quietness{last: s.last, since: time.Now()}
	}
	if d := time.Since(q.since); d < probeEvery {
		return probeEvery - d, nil
	}
	if !s.lacks(ctx) {
		q.behind, q.wait = 0, min(max(2*q.wait, probeEvery), probeRest)
		return q.wait, nil
	}
	if q.behind++; q.behind > 1 && len(s.msgs) == 0 {
		return 0, fmt.Errorf("the stream has more than was delivered: %w", errReread)
	}
	return probeEvery, nil
}

// undelivered reports whether a heartbeat counts more messages as delivered than came. Messages that were
// under way when a link died are lost that way, while heartbeats come again as if nothing had happened.
// What comes is in the order in which the server sent it, so none of them can still be under way.
func (s *session) undelivered(m *nats.Msg) bool {
	n, err := strconv.ParseUint(m.Header.Get("Nats-Last-Consumer"), 10, 64)
	return err == nil && n > s.consumer
}

// lacks reports whether the stream holds messages behind the last one that came.
func (s *session) lacks(ctx context.Context) bool {
	cfg := &s.r.s.cfg
	ask := s.end
	if ask == nil {
		ask = func() (uint64, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			stream, err := cfg.JS.Stream(ctx, wire.StreamName(cfg.Cluster, cfg.Origin))
			if err != nil {
				return 0, err
			}
			return stream.CachedInfo().State.LastSeq, nil
		}
	}
	end, err := ask()
	return err == nil && end > s.last
}

// take handles one message from the server.
func (s *session) take(ctx context.Context, m *nats.Msg) error {
	id := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
	if status := m.Header.Get("Status"); status != "" && len(m.Data) == 0 && !strings.HasPrefix(m.Reply, "$JS.ACK.") {
		if status == "100" && s.undelivered(m) {
			return fmt.Errorf("the server has delivered more than came: %w", errReread)
		}
		return s.status(id, status, m.Header.Get("Description"))
	}
	meta, err := m.Metadata()
	if err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	if s.count[id] == 0 && s.r.pending == 0 {
		s.turn = time.Now() // the pull waited for something to be written, not for the link
	}
	if s.count[id]++; s.count[id] >= pullBatch {
		s.ended(id, true)
	}
	if meta.Sequence.Consumer != s.consumer+1 {
		return fmt.Errorf("message %d came after %d: %w", meta.Sequence.Consumer, s.consumer, errReread)
	}
	s.consumer, s.last = meta.Sequence.Consumer, meta.Sequence.Stream
	s.r.pace.fitted()
	s.r.seen(meta.Sequence.Stream, meta.NumPending)
	return s.r.message(ctx, meta.Sequence.Stream, m.Data)
}

// ended forgets a pull. full: it ended because it was full.
func (s *session) ended(id string, full bool) {
	if _, ours := s.pulls[id]; !ours {
		return
	}
	delete(s.pulls, id)
	delete(s.count, id)
	now := time.Now()
	if full {
		s.r.pace.full(now.Sub(s.turn))
	}
	s.turn = now
}

func (s *session) status(id, code, text string) error {
	switch {
	case code == "100": // heartbeat
		s.r.alive()
		return nil
	case code == "404", code == "408", code == "409" && (strings.Contains(text, "MaxBytes") || strings.Contains(text, "Batch Completed")):
		s.r.alive()
		full := code == "409"
		if _, ours := s.pulls[id]; ours && full && s.count[id] == 0 {
			s.r.pace.tooSmall()
			full = false
		}
		s.ended(id, full)
		return nil
	case code == "503":
		return nats.ErrNoResponders
	}
	return fmt.Errorf("%w: %s %s", errEnded, code, text)
}
