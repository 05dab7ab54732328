package harness

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// Forgery says how a captured frame is changed before it is published again.
type Forgery struct {
	Value    string // replaces the value of every text column that is no key
	Origin   string // replaces the origin in the header
	Cluster  string // replaces the cluster in the header
	Relation string // replaces schema and table, "schema" or "schema.table"
	Version  byte   // replaces the format version
	Next     bool   // continue the chain instead of repeating the captured number
}

// Forge takes the newest data frame of the stream, changes it, seals it correctly (CRC
// and chain fit; there is no signature) and publishes it.
func (s *Stream) Forge(ctx context.Context, f Forgery) error {
	raw, last, err := s.captured(ctx)
	if err != nil {
		return err
	}
	p, err := wire.ParsePacket(raw.Payload)
	if err != nil {
		return fmt.Errorf("read captured frame: %w", err)
	}
	for _, tx := range p.Transactions {
		for i := range tx.Changes {
			f.change(&tx.Changes[i])
		}
	}
	origin, cluster := raw.Origin, raw.Cluster
	if f.Origin != "" {
		origin = f.Origin
	}
	if f.Cluster != "" {
		cluster = f.Cluster
	}
	at := wire.Position{Incarnation: raw.Incarnation, Number: raw.Number - 1, EndLSN: raw.PrevEndLSN, Chain: raw.PrevChain}
	end := raw.EndLSN
	if f.Next {
		at = last.Position()
		end = last.EndLSN + 8
		for _, tx := range p.Transactions {
			tx.EndLSN, tx.CommitLSN = end, end-1
		}
	}
	e := wire.NewEncoder(wire.EncoderConfig{Cluster: cluster, Origin: origin, Epoch: raw.Epoch, Compress: raw.Flags.Has(wire.Compressed)}, at)
	for _, tx := range p.Transactions {
		if err := e.Add(tx); err != nil {
			return fmt.Errorf("forge frame: %w", err)
		}
	}
	for i, fr := range e.Cut(wire.Data, 0, end, wal.Micros(time.Now().UnixMicro())) {
		data := append([]byte(nil), fr.Data...)
		if f.Version != 0 {
			data[4] = f.Version
		}
		h := nats.Header{}
		h.Set(nats.MsgIdHdr, fmt.Sprintf("forged-%d-%d", time.Now().UnixNano(), i))
		if err := s.Publish(ctx, data, h); err != nil {
			return err
		}
	}
	return nil
}

func (f Forgery) change(c *wal.Change) {
	if f.Relation != "" {
		rel := *c.Relation
		rel.Schema, rel.Name, _ = strings.Cut(f.Relation, ".")
		if rel.Name == "" {
			rel.Name = c.Relation.Name
		}
		c.Relation = &rel
	}
	if f.Value == "" {
		return
	}
	c.Stamp.UpdatedAt += 1_000_000
	for i := range c.New {
		if c.New[i].Kind == wal.Text && c.Relation.Columns[i].OID == 25 && !c.Relation.Columns[i].Key {
			c.New[i].Bytes = []byte(f.Value)
		}
	}
}

// captured returns the newest unfragmented data frame and the header of the last frame.
func (s *Stream) captured(ctx context.Context) (*wire.RawFrame, *wire.Header, error) {
	msgs, err := s.Messages(ctx, 1)
	if err != nil {
		return nil, nil, err
	}
	var last *wire.Header
	for i := len(msgs) - 1; i >= 0; i-- {
		raw, err := wire.Parse(msgs[i].Data)
		if err != nil {
			continue // what an earlier step has planted
		}
		if last == nil {
			last = &raw.Header
		}
		if raw.Kind == wire.Data && raw.Flags.Has(wire.First|wire.Last) && raw.Changes > 0 {
			return raw, last, nil
		}
	}
	return nil, nil, errors.New("capture a frame: the stream holds no data frame")
}

// Overlap tries to create a second stream over the same subjects; NATS must refuse.
func (s *Stream) Overlap(ctx context.Context) error {
	_, err := s.js.CreateStream(ctx, jetstream.StreamConfig{Name: "OVERLAP", Subjects: []string{s.Subject}, Storage: jetstream.MemoryStorage})
	if err == nil {
		_ = s.js.DeleteStream(ctx, "OVERLAP")
		return errors.New("create overlapping stream: it was accepted")
	}
	return nil
}

// StalePublish publishes with a wrong expected stream and a wrong expected sequence; both
// must be refused.
func (s *Stream) StalePublish(ctx context.Context) error {
	for want, opt := range map[jetstream.ErrorCode]jetstream.PublishOpt{
		jetstream.JSErrCodeStreamWrongLastSequence: jetstream.WithExpectLastSequence(1 << 40),
		10060: jetstream.WithExpectStream("ANOTHER"),
	} {
		_, err := s.js.Publish(ctx, s.Subject, []byte("stale"), opt)
		var api *jetstream.APIError
		if !errors.As(err, &api) || api.ErrorCode != want {
			return fmt.Errorf("publish with a wrong expectation: got %v, want error %d", err, want)
		}
	}
	return nil
}
