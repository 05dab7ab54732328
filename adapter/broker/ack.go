package broker

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

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
	Proved      wal.LSN    `json:"proved"`         // seen in the incarnation; below EndLSN while the origin repeats itself
	CommitTime  wal.Micros `json:"commit_time"`    // of the newest transaction applied, 0 for none
	Read        uint64     `json:"read,omitempty"` // frame up to which a transaction in parts is applied and not committed; 0 for none
	At          wal.Micros `json:"at"`             // the peer's clock
}

// PublishAck tells origin how far this region is; Peer is filled in. It is not stored
// anywhere and may be lost: the caller repeats the newest one every second or so.
func (b *Broker) PublishAck(origin string, a Ack) error {
	a.Peer = b.cfg.Region
	data, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode acknowledgement: %w", err)
	}
	if err := b.nc.Publish(wire.AckSubject(b.cfg.Cluster, origin, b.cfg.Region), data); err != nil {
		return fmt.Errorf("acknowledge to %s: %w", origin, err)
	}
	return nil
}

// SubscribeAcks calls fn for every acknowledgement of a configured peer, one at a time. They
// may come doubled or late, so fn keeps the furthest; ones that do not parse, or whose
// sender is another than the subject says, are dropped.
func (b *Broker) SubscribeAcks(fn func(Ack)) (stop func(), err error) {
	sub, err := b.nc.Subscribe(wire.AckSubject(b.cfg.Cluster, b.cfg.Region, "*"), func(m *nats.Msg) {
		var a Ack
		peer := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
		if err := json.Unmarshal(m.Data, &a); err != nil || a.Peer != peer || !slices.Contains(b.cfg.Peers, peer) {
			b.log.Warn("dropped an acknowledgement", "subject", m.Subject)
			return
		}
		fn(a)
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to acknowledgements: %w", err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}
