package broker

import (
	"net"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// A large frame takes a slow link many seconds, and everything else on its connection comes behind it: pongs
// and heartbeats too. So what shows that an external server is there is not what has come
// whole, but that bytes come.

const (
	// deadAfter is how long not one byte may come, pongs included, before a connection is given up.
	deadAfter = time.Minute
	// manyPings keeps the client from giving a connection up by itself.
	manyPings = 1 << 20

	movingEvery = 5 * time.Second
)

// movement is a dialer whose connections take note of bytes. The last of them counts.
type movement struct {
	last atomic.Int64 // unix nanoseconds
}

// Dial implements nats.CustomDialer.
func (m *movement) Dial(network, address string) (net.Conn, error) {
	c, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	m.note()
	return &movingConn{c, m}, nil
}

func (m *movement) note() { m.last.Store(time.Now().UnixNano()) }

func (m *movement) at() time.Time { return time.Unix(0, m.last.Load()) }

type movingConn struct {
	net.Conn
	m *movement
}

func (c *movingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.m.note()
	}
	return n, err
}

// LastByte is when the last byte came on the connection for reading the stream of a region. ok is
// false where that is not known: the server is inside of this process.
func (b *Broker) LastByte(region string) (at time.Time, ok bool) {
	if m := b.moves[b.ConnOf(region)]; m != nil {
		return m.at(), true
	}
	return time.Time{}, false
}

// watchMoves gives up connections to an external server on which nothing comes.
func (b *Broker) watchMoves() {
	b.every(movingEvery, func() bool {
		for nc, m := range b.moves {
			if nc.IsConnected() && time.Since(m.at()) > deadAfter {
				b.log.Info("a connection to NATS is given up: nothing comes", "since", m.at())
				m.note()
				if err := nc.ForceReconnect(); err != nil {
					b.log.Warn("reconnect to NATS", "error", err)
				}
			}
		}
		return true
	})
}

var _ nats.CustomDialer = (*movement)(nil)
