package slot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/pgwaltz/pgwaltz/decoder"
	"github.com/pgwaltz/pgwaltz/wal"
)

// readBuffer is how much is taken from the connection with one read.
const readBuffer = 256 << 10

// connection is the state of one connection.
type connection struct {
	slot    *Reader
	conn    *pgconn.PgConn
	in      *bufio.Reader
	below   buffer // what the connection holds below TLS
	dec     *decoder.Decoder
	pending Item
	spent   bool      // something in hand was left to the next start: nothing more is handed on
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
	if r.slot.cfg.Confirmed != 0 {
		r.lastPos = min(at, r.slot.cfg.Confirmed)
	}
	r.slot.flushed.Store(uint64(r.lastPos))
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
	r.status = time.Now()
	pace := pace{window: r.status}
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
		r.conn.Conn().SetReadDeadline(r.status)
		if ctx.Err() != nil || w.ping.Load() {
			continue // came after the look above and was overwritten by the deadline
		}
		got, err := r.receive(ctx)
		if err != nil {
			return err
		}
		if err := r.flush(ctx); err != nil {
			return err
		}
		if r.below.Drained() {
			pace.breathe(got)
		}
	}
}

// receive decodes everything that is in the buffer before the clock is looked at again, and
// returns how many messages it took.
func (r *connection) receive(ctx context.Context) (got int, err error) {
	fe := r.conn.Frontend()
	for first := true; first || fe.ReadBufferLen() > 0 || r.in.Buffered() > 0 || r.below.Buffered() > 0; first = false {
		msg, err := fe.Receive()
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				break
			}
			return got, fmt.Errorf("read slot %q: %w", r.slot.cfg.Name, err)
		}
		if err := r.handle(ctx, msg); err != nil {
			return got, err
		}
		got++
		if time.Since(r.status) > 0 {
			break
		}
	}
	return got, nil
}

// buffer is what a connection of pg.DialQuiet tells of itself.
type buffer interface {
	Buffered() int // bytes that were taken from the socket and not read
	Drained() bool // nothing is left in the socket, as far as is known
}

// bufferOf finds it below TLS. Other connections are drained by every read.
func bufferOf(conn net.Conn) buffer {
	for {
		switch c := conn.(type) {
		case buffer:
			return c
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return unbuffered{}
		}
	}
}

type unbuffered struct{}

func (unbuffered) Buffered() int { return 0 }
func (unbuffered) Drained() bool { return true }

// pace makes the reader wait a moment when messages come one by one: the server sends each by
// itself and would wake us for each. It never comes at a few hundred a second, nor when one read
// took many, nor while something waits in the socket: a pause may last much longer than
// it should, and then the server waits for the reader.
type pace struct {
	window time.Time
	reads  int
	pauses int
}

func (p *pace) breathe(got int) {
	p.reads++
	end := time.Now()
	switch {
	case got < busyMessages && p.reads > busyReads && end.Sub(p.window) < busyWindow:
		time.Sleep(busyPause)
		p.pauses++
		p.window, p.reads = end, busyReads // one read in the next window is enough to stay
	case end.Sub(p.window) >= busyWindow:
		p.window, p.reads = end, 0
	}
}

// Load is more than busyReads reads within busyWindow, of fewer than busyMessages each.
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
