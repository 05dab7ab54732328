package harness

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Stream is the surgeon's view of one origin's stream, past every proxy. External
// topology and cluster only.
type Stream struct {
	Name, Subject string
	nc            *nats.Conn
	js            jetstream.JetStream
}

// Stream opens the stream of a region; the caller closes it.
func (p *Pair) Stream(r *Region) (*Stream, error) {
	if p.Topology == Embedded {
		return nil, errors.New("open stream: stream surgery needs the external topology or a cluster")
	}
	addrs := p.nodeAddrs()
	if p.NATS != nil {
		addrs = p.NATS.Addr()
	}
	nc, js, err := natsClient(addrs)
	if err != nil {
		return nil, err
	}
	return StreamOver(nc, js, r.settings["cluster"].(string), r.Name), nil
}

// StreamOver is the stream of a region as a client of the caller's sees it.
func StreamOver(nc *nats.Conn, js jetstream.JetStream, cluster, region string) *Stream {
	return &Stream{
		Name:    "PGWALTZ_" + cluster + "_" + region,
		Subject: "pgwaltz." + cluster + "." + region + ".f",
		nc:      nc, js: js,
	}
}

// Close ends the connection.
func (s *Stream) Close() { s.nc.Close() }

// Info is the state and configuration of the stream.
func (s *Stream) Info(ctx context.Context) (*jetstream.StreamInfo, error) {
	st, err := s.js.Stream(ctx, s.Name)
	if err != nil {
		return nil, fmt.Errorf("look up stream %s: %w", s.Name, err)
	}
	info, err := st.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at stream %s: %w", s.Name, err)
	}
	return info, nil
}

// Leader is the number of the node of the cluster that leads the stream.
func (s *Stream) Leader(ctx context.Context) (string, error) {
	info, err := s.Info(ctx)
	if err != nil {
		return "", err
	}
	if info.Cluster == nil || info.Cluster.Leader == "" {
		return "", fmt.Errorf("look for the leader of stream %s: it has none", s.Name)
	}
	return strings.TrimPrefix(info.Cluster.Leader, "n"), nil
}

// Purge removes every message.
func (s *Stream) Purge(ctx context.Context) error {
	st, err := s.js.Stream(ctx, s.Name)
	if err != nil {
		return fmt.Errorf("look up stream %s: %w", s.Name, err)
	}
	return st.Purge(ctx)
}

// Delete removes the stream.
func (s *Stream) Delete(ctx context.Context) error { return s.js.DeleteStream(ctx, s.Name) }

// DeleteMessage removes one message; a number below 1 counts from the end, 0 being the last.
func (s *Stream) DeleteMessage(ctx context.Context, seq int64) error {
	st, err := s.js.Stream(ctx, s.Name)
	if err != nil {
		return fmt.Errorf("look up stream %s: %w", s.Name, err)
	}
	if seq < 1 {
		info, err := st.Info(ctx)
		if err != nil {
			return fmt.Errorf("look at stream %s: %w", s.Name, err)
		}
		seq += int64(info.State.LastSeq)
	}
	err = st.DeleteMsg(ctx, uint64(seq))
	if err == nil || !isDenied(err) {
		return err
	}
	if err := s.restore(ctx, nil); err != nil {
		return err
	}
	if st, err = s.js.Stream(ctx, s.Name); err != nil {
		return fmt.Errorf("look up stream %s: %w", s.Name, err)
	}
	return st.DeleteMsg(ctx, uint64(seq))
}

func isDenied(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == 10057
}

// restore makes the stream anew with the same settings, first sequence and messages, but
// open for deletion. change, when set, may rearrange the messages.
func (s *Stream) restore(ctx context.Context, change func([]*jetstream.RawStreamMsg) ([]*jetstream.RawStreamMsg, error)) error {
	info, err := s.Info(ctx)
	if err != nil {
		return err
	}
	msgs, err := s.Messages(ctx, 1)
	if err != nil {
		return err
	}
	if change != nil {
		if msgs, err = change(msgs); err != nil {
			return err
		}
	}
	if err := s.Delete(ctx); err != nil {
		return fmt.Errorf("delete stream %s: %w", s.Name, err)
	}
	conf := info.Config
	conf.DenyDelete, conf.FirstSeq = false, info.State.FirstSeq
	if _, err := s.js.CreateStream(ctx, conf); err != nil {
		return fmt.Errorf("make stream %s anew: %w", s.Name, err)
	}
	for _, m := range msgs {
		h := nats.Header{}
		for k, v := range m.Header {
			if !strings.HasPrefix(k, "Nats-Expected-") {
				h[k] = v
			}
		}
		if err := s.Publish(ctx, m.Data, h); err != nil {
			return err
		}
	}
	return nil
}

// Configure changes the stream's settings, or creates the stream with them when there is
// none yet (file storage, the product's subject).
func (s *Stream) Configure(ctx context.Context, change func(*jetstream.StreamConfig)) error {
	conf := jetstream.StreamConfig{Name: s.Name, Subjects: []string{s.Subject}, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, Duplicates: 2 * time.Minute}
	info, err := s.Info(ctx)
	switch {
	case err == nil:
		conf = info.Config
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return err
	}
	change(&conf)
	if _, err := s.js.CreateOrUpdateStream(ctx, conf); err != nil {
		return fmt.Errorf("configure stream %s: %w", s.Name, err)
	}
	return nil
}

// Messages reads every message from a sequence on.
func (s *Stream) Messages(ctx context.Context, from uint64) ([]*jetstream.RawStreamMsg, error) {
	st, err := s.js.Stream(ctx, s.Name)
	if err != nil {
		return nil, fmt.Errorf("look up stream %s: %w", s.Name, err)
	}
	info, err := st.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at stream %s: %w", s.Name, err)
	}
	var out []*jetstream.RawStreamMsg
	for seq := max(from, info.State.FirstSeq); seq <= info.State.LastSeq; seq++ {
		m, err := st.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read message %d of %s: %w", seq, s.Name, err)
		}
		out = append(out, m)
	}
	return out, nil
}

// Publish stores raw bytes on the stream's subject.
func (s *Stream) Publish(ctx context.Context, data []byte, header nats.Header) error {
	m := &nats.Msg{Subject: s.Subject, Data: data, Header: header}
	if _, err := s.js.PublishMsg(ctx, m); err != nil {
		return fmt.Errorf("publish to %s: %w", s.Subject, err)
	}
	return nil
}

// Replay publishes messages again, byte for byte, under new message ids.
func (s *Stream) Replay(ctx context.Context, msgs []*jetstream.RawStreamMsg, change func([]byte) []byte) error {
	for i, m := range msgs {
		data := append([]byte(nil), m.Data...)
		if change != nil {
			data = change(data)
		}
		h := nats.Header{}
		for k, v := range m.Header {
			if k != nats.MsgIdHdr && k != nats.ExpectedLastSeqHdr && k != nats.ExpectedStreamHdr && k != nats.ExpectedLastMsgIdHdr && k != nats.ExpectedLastSubjSeqHdr {
				h[k] = v
			}
		}
		h.Set(nats.MsgIdHdr, fmt.Sprintf("replay-%d-%d", time.Now().UnixNano(), i))
		if err := s.Publish(ctx, data, h); err != nil {
			return err
		}
	}
	return nil
}

// Reorder makes the stream anew with its last messages in another order. The order counts
// from 1 within the last len(order) messages.
func (s *Stream) Reorder(ctx context.Context, order []int) error {
	return s.restore(ctx, func(msgs []*jetstream.RawStreamMsg) ([]*jetstream.RawStreamMsg, error) {
		first := len(msgs) - len(order)
		if first < 0 {
			return nil, fmt.Errorf("reorder %s: it holds %d messages, %d wanted", s.Name, len(msgs), len(order))
		}
		out := append([]*jetstream.RawStreamMsg(nil), msgs[:first]...)
		for _, i := range order {
			if i < 1 || i > len(order) {
				return nil, fmt.Errorf("reorder %s: no message %d", s.Name, i)
			}
			out = append(out, msgs[first+i-1])
		}
		return out, nil
	})
}

// DuplicateIDs counts messages whose id another message of the stream has too.
func (s *Stream) DuplicateIDs(ctx context.Context) (int, error) {
	msgs, err := s.Messages(ctx, 1)
	if err != nil {
		return 0, err
	}
	seen, dup := map[string]bool{}, 0
	for _, m := range msgs {
		id := m.Header.Get(nats.MsgIdHdr)
		if id == "" {
			continue
		}
		if seen[id] {
			dup++
		}
		seen[id] = true
	}
	return dup, nil
}
