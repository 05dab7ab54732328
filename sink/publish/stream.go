package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// apiTimeout bounds one call of the JetStream API. It is short because a call that is under
// way when a connection dies is never answered.
const apiTimeout = 3 * time.Second

// openStream creates the stream or brings it into the form that our guarantees need.
func (p *Publisher) openStream(ctx context.Context) (jetstream.Stream, error) {
	s, err := p.lookup(ctx)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		ctx, cancel := context.WithTimeout(ctx, apiTimeout)
		defer cancel()
		s, err = p.cfg.JS.CreateStream(ctx, p.streamConfig())
		if err != nil {
			return nil, fmt.Errorf("create stream %s: %w", p.name, err)
		}
		p.cfg.Log.Info("stream created", "stream", p.name, "max_bytes", p.cfg.MaxBytes)
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	have := s.CachedInfo().Config
	want, err := p.corrected(have)
	if err != nil {
		return nil, err
	}
	if changes := difference(have, want); len(changes) > 0 {
		ctx, cancel := context.WithTimeout(ctx, apiTimeout)
		defer cancel()
		if s, err = p.cfg.JS.UpdateStream(ctx, want); err != nil {
			return nil, fmt.Errorf("correct stream %s: %w", p.name, err)
		}
		p.cfg.Log.Warn("corrected settings of the stream that could lose frames", "stream", p.name, "settings", changes)
	}
	return s, nil
}

func (p *Publisher) lookup(ctx context.Context) (jetstream.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	s, err := p.cfg.JS.Stream(ctx, p.name)
	if err != nil {
		return nil, fmt.Errorf("look up stream %s: %w", p.name, err)
	}
	return s, nil
}

func (p *Publisher) streamConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: p.name, Subjects: []string{p.subject},
		Description: "changes of region " + p.cfg.Origin + ", written by pgwaltz",
		Storage:     jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
		MaxBytes: p.cfg.MaxBytes, MaxMsgs: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1, MaxConsumers: -1,
		Duplicates: p.cfg.Duplicates, DenyDelete: true, Replicas: p.cfg.Replicas,
		Metadata: map[string]string{"pgwaltz.cluster": p.cfg.Cluster, "pgwaltz.origin": p.cfg.Origin},
	}
}

// corrected returns the form that the stream should have, or a *StreamError where only a
// human can help. A limit on the number of messages may stay: together with DiscardNew it
// makes publishing wait, and loses nothing.
func (p *Publisher) corrected(have jetstream.StreamConfig) (jetstream.StreamConfig, error) {
	refuse := func(setting, breaks string) (jetstream.StreamConfig, error) {
		return have, &StreamError{Stream: p.name, Setting: setting, Breaks: breaks,
			Remedy: fmt.Sprintf("stop the sidecars, delete the stream (nats stream rm %s) and start again; what it held comes again from the slot", p.name)}
	}
	switch {
	case have.Storage != jetstream.FileStorage:
		return refuse("memory storage", "a restart of the server loses what was acknowledged")
	case have.Retention != jetstream.LimitsPolicy:
		return refuse("retention "+have.Retention.String(), "the server removes frames that a peer has not applied")
	case have.Sealed:
		return refuse("sealed", "nothing can be published")
	case have.Mirror != nil || len(have.Sources) > 0:
		return refuse("mirror or sources", "frames of another stream would be taken for ours")
	case !slices.Equal(have.Subjects, []string{p.subject}):
		return refuse(fmt.Sprintf("subjects %q", have.Subjects), "messages of other subjects would take part in the order of frames")
	case have.PersistMode == jetstream.AsyncPersistMode:
		return refuse("persist mode async", "the server acknowledges before it writes")
	}
	want := have
	want.Discard, want.DiscardNewPerSubject = jetstream.DiscardNew, false
	want.MaxAge = 0
	want.MaxMsgsPerSubject, want.MaxMsgSize = -1, -1
	want.NoAck, want.AllowRollup = false, false
	want.DenyDelete = true
	want.Duplicates = max(have.Duplicates, p.cfg.Duplicates)
	if have.MaxBytes > 0 && have.MaxBytes < p.cfg.MaxBytes || have.MaxBytes <= 0 {
		want.MaxBytes = p.cfg.MaxBytes
	}
	return want, nil
}

// difference names the settings that corrected changed.
func difference(have, want jetstream.StreamConfig) []string {
	var names []string
	note := func(name string, differs bool) {
		if differs {
			names = append(names, name)
		}
	}
	note("discard", have.Discard != want.Discard || have.DiscardNewPerSubject != want.DiscardNewPerSubject)
	note("max_age", have.MaxAge != want.MaxAge)
	note("max_msgs_per_subject", have.MaxMsgsPerSubject != want.MaxMsgsPerSubject)
	note("max_msg_size", have.MaxMsgSize != want.MaxMsgSize)
	note("no_ack", have.NoAck != want.NoAck)
	note("allow_rollup", have.AllowRollup != want.AllowRollup)
	note("deny_delete", have.DenyDelete != want.DenyDelete)
	note("duplicate_window", have.Duplicates != want.Duplicates)
	note("max_bytes", have.MaxBytes != want.MaxBytes)
	return names
}
