package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/wire"
)

// A region reads the stream of another one that has an embedded server through the gate of that region's process: it says its calls to the
// gate, and the gate hands on those of readCalls. The server itself may not be asked from outside: what answers there may say everything, to
// whatever subject the asker names, and so do consumers that deliver. Rights hold for what somebody says, and not for where the answer goes.

// gate is how the calls of reader for the stream of origin begin.
func gate(cluster, origin, reader string) string {
	return "pgwaltz." + cluster + ".api." + origin + "." + reader + "."
}

// serveGate hands calls of the peers on to the own embedded server. Answers come from the server itself, into the inboxes of the asker for this
// region.
func (b *Broker) serveGate() error {
	own := b.cfg.Region
	prefix := strings.TrimSuffix(gate(b.cfg.Cluster, own, ""), ".") // the reader follows
	_, err := b.far.Subscribe(prefix+"*.>", func(m *nats.Msg) {
		reader, call, _ := strings.Cut(strings.TrimPrefix(m.Subject, prefix), ".")
		data, err := b.handOn(reader, call, m)
		if err == nil {
			err = b.far.PublishRequest(api(own)+call, m.Reply, data)
		}
		if err != nil {
			b.refusals.say(b.log, "a call is refused", reader, err)
		}
	})
	if err != nil {
		return fmt.Errorf("open the gate: %w", err)
	}
	return nil
}

// handOn returns what a call of a reader says to the server; an error is why it is refused.
func (b *Broker) handOn(reader, call string, m *nats.Msg) ([]byte, error) {
	switch {
	case !slices.Contains(b.cfg.Peers, reader):
		return nil, errors.New("it comes from no peer")
	case !slices.Contains(readCalls(b.cfg.Cluster, "", b.cfg.Region, reader), call):
		return nil, errors.New("no reader has to ask that")
	case !answersTo(m.Reply, reader, b.cfg.Region):
		return nil, errElsewhere
	}
	if name, ok := strings.CutPrefix(call, "CONSUMER.CREATE."+wire.StreamName(b.cfg.Cluster, b.cfg.Region)+"."); ok {
		return plainConsumer(m.Data, name)
	}
	return m.Data, nil
}

var errElsewhere = errors.New("its answer is to go elsewhere")

// answersTo reports whether a subject is in the inboxes of the asker for what the asked region answers.
func answersTo(reply, asker, asked string) bool {
	return strings.HasPrefix(reply, inbox(asker, asked)+".")
}

// The bounds of what a reader asks for.
const (
	readerInactive = 10 * time.Minute
	readerWaiting  = 64
)

// plainConsumer is a request for a consumer of that name which is pulled from, without anything that a reader does not need.
func plainConsumer(data []byte, name string) ([]byte, error) {
	var asked struct {
		Stream string `json:"stream_name"`
		Config struct {
			Description       string                  `json:"description"`
			DeliverPolicy     jetstream.DeliverPolicy `json:"deliver_policy"`
			OptStartSeq       uint64                  `json:"opt_start_seq"`
			InactiveThreshold time.Duration           `json:"inactive_threshold"`
			MaxWaiting        int                     `json:"max_waiting"`
		} `json:"config"`
		Action string `json:"action"`
	}
	if err := json.Unmarshal(data, &asked); err != nil {
		return nil, errors.New("the consumer that it asks for cannot be read")
	}
	c := &asked.Config
	return json.Marshal(map[string]any{"stream_name": asked.Stream, "action": asked.Action, "config": jetstream.ConsumerConfig{
		Name: name, Description: c.Description[:min(len(c.Description), 200)], DeliverPolicy: c.DeliverPolicy, OptStartSeq: c.OptStartSeq,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1,
		InactiveThreshold: min(max(c.InactiveThreshold, time.Second), readerInactive), MaxWaiting: min(max(c.MaxWaiting, 1), readerWaiting),
	}})
}
