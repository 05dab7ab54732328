package harness

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	Shape    string // makes the changes senseless, see reshape and outlandish
	Next     bool   // continue the chain instead of repeating the captured number
	To       string // the region that reads it
	// With Next:
	Incarnation uint32  // begin this one; 0 stays in the present one
	Resync      bool    // and admit a gap
	System      uint64  // replaces the system identifier
	End         wal.LSN // where the frame and its transactions end; 0 just behind the last frame
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
		if f.Shape != "" {
			if outlandish(tx, f.Shape, f.To) {
				continue
			}
			if err := reshape(tx, f.Shape); err != nil {
				return err
			}
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
	end, flags, epoch := raw.EndLSN, wire.Flags(0), raw.Epoch
	if f.Next {
		at = last.Position()
		end = last.EndLSN + 8
		if f.End != 0 {
			end = f.End
		}
		for _, tx := range p.Transactions {
			tx.EndLSN, tx.CommitLSN = end, end-1
			if tx.More {
				tx.EndLSN = 0
			}
		}
	}
	if f.Incarnation != 0 {
		at = wire.Position{Incarnation: f.Incarnation, EndLSN: at.EndLSN}
	}
	if f.Resync {
		flags = wire.Resync
	}
	if f.System != 0 {
		epoch.SystemID = f.System
	}
	e := wire.NewEncoder(wire.EncoderConfig{Cluster: cluster, Origin: origin, Epoch: epoch, Compress: raw.Flags.Has(wire.Compressed)}, at)
	for _, tx := range p.Transactions {
		if err := e.Add(tx); err != nil {
			return fmt.Errorf("forge frame: %w", err)
		}
	}
	for i, fr := range e.Cut(wire.Data, flags, end, wal.Micros(time.Now().UnixMicro())) {
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

// reshape makes a transaction well formed and without sense.
func reshape(tx *wal.Transaction, shape string) error {
	for i := range tx.Changes {
		c := &tx.Changes[i]
		rel := *c.Relation
		switch shape {
		case "no-row":
			c.New = nil
		case "no-old":
			c.Op, c.New, c.Old = wal.Delete, nil, nil
		case "null-key":
			c.New = slices.Clone(c.New)
			for _, k := range rel.KeyColumns() {
				c.New[k] = wal.Value{Kind: wal.Null}
			}
		case "unchanged":
			c.New = make(wal.Tuple, len(rel.Columns))
			for k := range c.New {
				c.New[k].Kind = wal.Unchanged
			}
		case "empty-key":
			rel.PrimaryKey = []int{}
			c.Relation = &rel
		case "twice-key":
			rel.PrimaryKey = []int{0, 0}
			c.Relation = &rel
		case "truncate-row":
			c.Op = wal.Truncate
		case "repair-truncate":
			c.Op, c.New, c.Repair = wal.Truncate, nil, true
		case "no-name":
			rel.Schema, rel.Name = "", ""
			c.Relation = &rel
		case "backwards":
			tx.EndLSN = tx.CommitLSN - 1
		default:
			return fmt.Errorf("forge frame: unknown shape %s", shape)
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
		if err != nil || wire.StreamName(raw.Cluster, raw.Origin) != s.Name {
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
