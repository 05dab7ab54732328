package broker

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// askPeers links to the listeners that answer, with a server of its own that nobody can connect to
// and that keeps nothing, and asks every peer for a sign of life.
func askPeers(ctx context.Context, c *Config, dial []string) []Probe {
	const about = "nats.dial"
	heard := &linkLog{}
	// The name is its own: a listener ends the older one of two links of one name.
	o := &server.Options{ServerName: fmt.Sprintf("pgwaltz-%s-%s-check-%s", c.Cluster, c.Region, rand.Text()), DontListen: true, NoSigs: true}
	o.LeafNode.ReconnectInterval = 300 * time.Millisecond
	o.LeafNode.TLSTimeout = probeTimeout.Seconds()
	for _, d := range dial {
		r, err := (&embedded{cfg: c}).remote(d)
		if err != nil {
			return []Probe{{about, Fails, err.Error(), "make the file readable for this user"}}
		}
		o.LeafNode.Remotes = append(o.LeafNode.Remotes, r)
	}
	srv, err := server.NewServer(o)
	if err != nil {
		return []Probe{{about, Fails, err.Error(), ""}}
	}
	srv.SetLogger(heard, false, false)
	srv.Start()
	defer func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	}()
	out := []Probe{}
	if why := linked(ctx, srv, len(dial), heard); why != nil {
		out = append(out, unreachable(about, strings.Join(dial, ", "), why, c))
		if srv.NumLeafNodes() == 0 {
			return out
		}
	} else {
		out = append(out, Probe{about, Works, "the link is let in", ""})
	}
	return append(out, ask(ctx, c, func(peer string) (*nats.Conn, error) {
		return nats.Connect("", nats.InProcessServer(srv), nats.CustomInboxPrefix(inbox(c.Region, peer)))
	})...)
}

// ask pings every peer, as the sidecar does, each on a connection of its own.
func ask(ctx context.Context, c *Config, dial func(peer string) (*nats.Conn, error)) []Probe {
	out := make([]Probe, len(c.Peers))
	var group sync.WaitGroup
	for i, p := range c.Peers {
		group.Go(func() {
			nc, err := dial(p)
			if err != nil {
				out[i] = Probe{"peers." + p, Fails, "connect: " + err.Error(), ""}
				return
			}
			defer nc.Close()
			out[i] = askPeer(ctx, &Broker{cfg: *c, far: nc}, p)
		})
	}
	group.Wait()
	return out
}

func askPeer(ctx context.Context, b *Broker, peer string) Probe {
	about := "peers." + peer
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	for {
		sent := time.Now()
		once, stop := context.WithTimeout(ctx, peerTimeout/4)
		data, err := b.Request(once, peer, verbPing, nil)
		stop()
		var answer pong
		switch {
		case err == nil && json.Unmarshal(data, &answer) == nil && answer.Region == peer:
			rtt := time.Since(sent)
			offset := answer.At.Time().Sub(sent.Add(rtt / 2)).Abs()
			return Probe{about, Works, fmt.Sprintf("the sidecar of %s answers within %s; the clocks differ by %s", peer, rtt.Round(time.Millisecond), offset.Round(time.Millisecond)), ""}
		case err == nil:
			return Probe{about, Fails, fmt.Sprintf("who answers for %s is another region", peer), "look at cluster and region on both sides"}
		}
		var said *RemoteError
		if errors.As(err, &said) {
			return Probe{about, Doubtful, said.Error(), "look at the log of the other side"}
		}
		select {
		case <-ctx.Done():
			return Probe{about, Doubtful, fmt.Sprintf("no sidecar of %s answers", peer),
				"start it; where it runs, compare cluster, regions and peers[].public_key of both sides: its log names what it refuses"}
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// linked waits for the links. The error is the last thing that the server has said of one that
// is not there.
func linked(ctx context.Context, srv *server.Server, want int, heard *linkLog) error {
	end := time.Now().Add(probeTimeout)
	for time.Now().Before(end) && ctx.Err() == nil {
		if srv.NumLeafNodes() >= want {
			return nil
		}
		if text := heard.refusal(); text != "" {
			return errors.New(text)
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	if text := heard.text(); text != "" {
		return errors.New(text)
	}
	return nats.ErrTimeout
}

// linkLog keeps what the server says of its links.
type linkLog struct {
	mu   sync.Mutex
	last string
}

func (l *linkLog) note(format string, v []any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = strings.TrimSpace(fmt.Sprintf(format, v...))
}

func (l *linkLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// refusal is what it said when that is final.
func (l *linkLog) refusal() string {
	if text := l.text(); strings.Contains(text, "Authorization Violation") || strings.Contains(text, "remote error: tls") {
		return text
	}
	return ""
}

func (l *linkLog) Errorf(format string, v ...any) { l.note(format, v) }
func (l *linkLog) Fatalf(format string, v ...any) { l.note(format, v) }
func (l *linkLog) Warnf(string, ...any)           {}
func (l *linkLog) Noticef(string, ...any)         {}
func (l *linkLog) Debugf(string, ...any)          {}
func (l *linkLog) Tracef(string, ...any)          {}

var _ server.Logger = (*linkLog)(nil)
