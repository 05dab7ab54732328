package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/pgwaltz/pgwaltz/adapter/guard"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// Ack says how far a peer has durably applied an origin's changes.
type Ack struct {
	Peer        string     `json:"peer"`
	Epoch       wal.Epoch  `json:"epoch"`
	Incarnation uint32     `json:"incarnation"`
	Frame       uint64     `json:"frame"`
	Chain       string     `json:"chain"` // of that frame, hexadecimal
	StreamSeq   uint64     `json:"stream_seq"`
	EndLSN      wal.LSN    `json:"end_lsn"`
	Proved      wal.LSN    `json:"proved"`      // seen in the incarnation; below EndLSN while the origin repeats itself
	CommitTime  wal.Micros `json:"commit_time"` // of the newest transaction applied, 0 for none
	// Read is the frame up to which a transaction in parts is applied and not committed, 0 for none, and
	// ReadIncarnation its incarnation: a later one than Incarnation when the transaction is the first of it.
	Read            uint64     `json:"read,omitempty"`
	ReadIncarnation uint32     `json:"read_incarnation,omitempty"`
	At              wal.Micros `json:"at"` // the peer's clock, for display
	// Parked is since when the peer has changes set aside, of whatever origin, by its clock; 0 for none.
	Parked wal.Micros `json:"parked,omitempty"`
	// Silent: the peer publishes nothing (direction: apply), so nothing is to be waited for from it.
	Silent bool `json:"silent,omitempty"`
	// Deaf: the peer applies nothing (direction: publish), so nobody waits for it. Such a word says no more.
	Deaf bool `json:"deaf,omitempty"`
	// Anew is the newest incarnation of the peer's own stream that admitted a gap, 0 for none; KnewIncarnation
	// and KnewFrame say how far the peer had applied the origin's stream when that gap was found.
	Anew            uint32 `json:"anew,omitempty"`
	KnewIncarnation uint32 `json:"knew_incarnation,omitempty"`
	KnewFrame       uint64 `json:"knew_frame,omitempty"`
	// Session names one run of the sender, and Number counts its acknowledgements in that run.
	Session uint64 `json:"session"`
	Number  uint64 `json:"number"`
}

// After reports whether a was said after old, by the same peer. No clock decides: within one run
// of the sender its numbers do. Of another run, a counts when it is not behind; when it is, the
// sender may have lost something, or a is an old message that came again, so that it counts only
// when old has not been repeated for a while (silent).
func (a *Ack) After(old *Ack, silent bool) bool {
	switch {
	case a.Session == old.Session:
		return a.Number > old.Number
	case !a.Epoch.SameWAL(old.Epoch), a.Incarnation > old.Incarnation, a.Incarnation == old.Incarnation && a.Frame >= old.Frame:
		return true
	}
	return silent
}

// PublishAck tells origin how far this region is; Peer is filled in. It is not stored
// anywhere and may be lost: the caller repeats the newest one every second or so.
func (b *Broker) PublishAck(origin string, a Ack) error {
	a.Peer, a.Session, a.Number = b.cfg.Region, b.session, b.acks.Add(1)
	data, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode acknowledgement: %w", err)
	}
	m := nats.NewMsg(wire.AckSubject(b.cfg.Cluster, origin, b.cfg.Region))
	m.Data = data
	b.seal(m)
	if err := b.far.PublishMsg(m); err != nil {
		return fmt.Errorf("acknowledge to %s: %w", origin, b.Explain(err))
	}
	return nil
}

// SubscribeAcks calls fn for every acknowledgement of a configured peer, one at a time. They
// may come doubled or late, see Ack.After; ones that do not parse, that are not signed by
// a peer whose key is known, or whose sender is another than the subject says, are dropped.
func (b *Broker) SubscribeAcks(fn func(Ack)) (stop func(), err error) {
	sub, err := b.far.Subscribe(wire.AckSubject(b.cfg.Cluster, b.cfg.Region, "*"), func(m *nats.Msg) {
		var a Ack
		peer := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
		if len(m.Data) == 0 {
			return // somebody tries whether he may say it, see Look
		}
		err := json.Unmarshal(m.Data, &a)
		switch {
		case !slices.Contains(b.cfg.Peers, peer):
			err = errors.New("it comes from no peer")
		case err != nil:
			err = errors.New("it cannot be read")
		case a.Peer != peer:
			err = errors.New("it is in the name of another region")
		default:
			err = b.unseal(m, peer)
		}
		if err == nil {
			err = guard.Run("taking an acknowledgement", func() error { fn(a); return nil })
		}
		if err != nil {
			b.refusals.say(b.log, "an acknowledgement is refused", peer, err)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to acknowledgements: %w", err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}
