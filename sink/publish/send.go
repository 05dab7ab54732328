package publish

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/wire"
)

// send hands one frame to the connection. The caller holds mu. The connection buffers
// nothing while it is down, so an error means that the frame did not leave.
func (p *Publisher) send(e *entry) {
	e.expect = p.next
	m := nats.NewMsg(p.subject)
	m.Reply = p.inbox + "." + strconv.FormatUint(p.attempt, 10) + "." + strconv.FormatUint(e.frame.Header.Number, 10)
	m.Data = e.frame.Data
	m.Header.Set(jetstream.ExpectedStreamHeader, p.name)
	m.Header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(e.expect, 10))
	if !e.noID {
		m.Header.Set(jetstream.MsgIDHeader, messageID(&e.frame))
	}
	if n := p.window.sent; n > 0 && !p.window.entries[n-1].noID {
		// The sequence alone does not keep the order: when somebody else stores k messages
		// while k frames of ours are under way, those are refused, and the next one's
		// expectation is true again.
		m.Header.Set(jetstream.ExpectedLastMsgIDHeader, messageID(&p.window.entries[n-1].frame))
	}
	if err := p.cfg.Conn.PublishMsg(m); err != nil {
		if errors.Is(err, nats.ErrMaxPayload) {
			p.die(fmt.Errorf("frame of %d bytes exceeds the server's max_payload of %d: lower publish.max_frame: %w",
				len(m.Data), p.cfg.Conn.MaxPayload(), err))
			return
		}
		p.breakOff(err)
		return
	}
	if p.window.sent == 0 {
		p.progress = time.Now()
	}
	e.sentAt = time.Now()
	p.window.sent++
	p.next++
}

// messageID tells frames with equal numbers apart: two publishers that go on after the same
// frame must not take each other's frames for their own.
func messageID(f *wire.Frame) string { return f.MsgID + "/" + hex.EncodeToString(f.Header.Chain[:8]) }

// breakOff stops sending until the stream has been read. The caller holds mu.
func (p *Publisher) breakOff(why error) {
	if p.mode != broken {
		p.since = time.Now()
		p.cfg.Log.Info("publishing is interrupted; reading the stream", "stream", p.name, "error", why)
	}
	if p.mode == full {
		p.metrics.streamFull.Set(0)
	}
	p.mode, p.problem = broken, why
	p.attempt++
	poke(p.wake)
}

// die ends the publisher. The caller holds mu.
func (p *Publisher) die(err error) {
	if p.fatal == nil {
		p.fatal, p.problem = err, err
	}
	poke(p.space)
	poke(p.wake)
}

// poke leaves a token, unless there is one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// token reads attempt and frame number from the subject of an acknowledgement.
func token(subject string) (attempt, number uint64) {
	parts := strings.Split(subject, ".")
	if len(parts) < 2 {
		return 0, 0
	}
	attempt, _ = strconv.ParseUint(parts[len(parts)-2], 10, 64)
	number, _ = strconv.ParseUint(parts[len(parts)-1], 10, 64)
	return attempt, number
}
