package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

const (
	verbPing = "ping"

	pingEvery   = time.Second
	pingTimeout = 3 * time.Second
	// pingMisses in a row make a peer unreachable. One lost answer behind a full link does not.
	pingMisses = 2
)

// Peer is what the pings say of another region.
type Peer struct {
	Region    string
	Reachable bool
	// SeenAt is when the last answer came.
	SeenAt time.Time
	RTT    time.Duration
	// Offset is the peer's clock minus ours, exact to half of RTT.
	Offset time.Duration
	// Position is what the peer last said of its own WAL; nil when it says nothing.
	Position *Position
	// Stuck is gap or down while the peer cannot apply this region's changes; "" while it can.
	Stuck string
	// Life names the peer's database among all that had its name; "" when it was not heard of.
	Life string

	misses int
	known  bool
	heard  time.Time // when anything else came from it
}

// Position is what an origin says of its own WAL, so that its peers know what it has committed
// and not only what has come to them. It is for status alone: nothing is decided by it.
type Position struct {
	Epoch       wal.Epoch `json:"epoch"`
	Incarnation uint32    `json:"incarnation"`
	// Frame is the last durable frame with changes, Last the last durable one of any kind.
	Frame uint64 `json:"frame"`
	Last  uint64 `json:"last"`
	// WALEnd is the end of the WAL. Who has applied Frame has all changes up to Through.
	WALEnd  wal.LSN `json:"wal_end"`
	Through wal.LSN `json:"through"`
	// Behind is how late the origin itself is with publishing, in seconds.
	Behind float64 `json:"behind"`
	// Copying is the number of tables whose copy is not yet applied everywhere.
	Copying int `json:"copying"`
	// Stands is gap or down while the origin publishes nothing, or not everything, until somebody
	// does something there; "" while it flows. Incarnation and frames are 0 where it has not begun.
	Stands string `json:"stands,omitempty"`
}

type pong struct {
	Region   string     `json:"region"`
	At       wal.Micros `json:"at"`
	Position *Position  `json:"position,omitempty"`
	Stuck    string     `json:"stuck,omitempty"`
	Life     string     `json:"life,omitempty"`
}

func (b *Broker) pong(_ context.Context, asker string, _ []byte) ([]byte, error) {
	p := pong{Region: b.cfg.Region, At: wal.MicrosOf(time.Now()), Life: b.cfg.Life}
	if b.cfg.Stuck != nil {
		p.Stuck = b.cfg.Stuck(asker)
	}
	if b.cfg.Position != nil {
		p.Position = b.cfg.Position()
	}
	return json.Marshal(p)
}

// Peer returns the state of a configured peer; the zero Peer for another name.
func (b *Broker) Peer(region string) Peer {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.peers[region]; p != nil {
		return *p
	}
	return Peer{}
}

// PeerReachable reports whether the peer answered lately.
func (b *Broker) PeerReachable(region string) bool { return b.Peer(region).Reachable }

// Heard takes note that something came from a region: a frame of its stream, an acknowledgement.
// On a slow link an answer to a ping is long under way behind these, which is no reason to call the
// region unreachable. Safe from anywhere.
func (b *Broker) Heard(region string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.peers[region]; p != nil {
		p.heard = time.Now()
	}
}

func (b *Broker) watchPeer(region string) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		b.ping(region)
		select {
		case <-tick.C:
		case <-b.ctx.Done():
			return
		}
	}
}

func (b *Broker) ping(region string) {
	ctx, cancel := context.WithTimeout(b.ctx, pingTimeout)
	defer cancel()
	sent := time.Now()
	data, err := b.Request(ctx, region, verbPing, nil)
	rtt := time.Since(sent)
	var answer pong
	if err == nil {
		if err = json.Unmarshal(data, &answer); err == nil && answer.Region != region {
			err = fmt.Errorf("region %s answers for %s", answer.Region, region)
		}
	}
	if b.ctx.Err() != nil {
		return
	}
	b.mu.Lock()
	p := b.peers[region]
	was, known := p.Reachable, p.known
	p.known = true
	if err != nil && p.heard.After(sent) {
		p.misses = 0
	} else if err != nil {
		p.misses++
		p.Reachable = p.Reachable && p.misses < pingMisses
	} else {
		p.misses, p.Reachable, p.SeenAt, p.RTT = 0, true, time.Now(), rtt
		p.Offset = answer.At.Time().Sub(sent.Add(rtt / 2))
		p.Position, p.Stuck = answer.Position, answer.Stuck
		if answer.Life != "" {
			p.Life = answer.Life
		}
	}
	now := p.Reachable
	b.mu.Unlock()
	if now == was && known {
		return
	}
	switch {
	case now:
		b.log.Info("peer is in reach", "peer", region, "rtt", rtt)
	case !known: // nobody was ever heard of: the link may just be coming up
		b.log.Info("peer is not in reach yet", "peer", region)
	default:
		b.log.Warn("peer is out of reach", "peer", region, "error", err)
	}
	b.changed()
}
