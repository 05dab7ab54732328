package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/pgwaltz/pgwaltz/adapter/guard"
	"github.com/pgwaltz/pgwaltz/wire"
)

// ErrUnreachable: the other region did not answer, or nobody there serves the verb.
var ErrUnreachable = errors.New("region is out of reach")

// RemoteError is the answer of a region that could not do what was asked.
type RemoteError struct{ Region, Verb, Message string }

func (e *RemoteError) Error() string {
	return fmt.Sprintf("region %s refuses %s: %s", e.Region, e.Verb, e.Message)
}

const errorHeader = "Pgwaltz-Error"

// maxHandlers is how many requests of one verb are answered at a time; others wait.
const maxHandlers = 8

// Handler answers one request. asker is the region that the server has let in as such. Its ctx ends with the broker. What it returns as error is
// sent to the asking region as text: no row values in it.
type Handler func(ctx context.Context, asker string, data []byte) ([]byte, error)

// Serve answers requests of other regions for verb, each in a goroutine of its own, until
// stop or Close. Answers go into the inboxes of the asker for this region, and nowhere else.
func (b *Broker) Serve(verb string, h Handler) (stop func(), err error) {
	slots := make(chan struct{}, maxHandlers) // one token for each running handler
	sub, err := b.far.Subscribe(wire.ControlSubject(b.cfg.Cluster, b.cfg.Region, verb, "*"), func(m *nats.Msg) {
		asker := lastToken(m.Subject)
		err := b.unseal(m, asker)
		switch {
		case !slices.Contains(b.cfg.Peers, asker):
			err = errors.New("it comes from no peer")
		case m.Reply != "" && !answersTo(m.Reply, asker, b.cfg.Region):
			err = errElsewhere // we may say what a peer may not: into our own stream, and to the server that holds it
		}
		if err != nil {
			b.refusals.say(b.log, "a request is refused", asker, err)
			return
		}
		select {
		case slots <- struct{}{}:
		case <-b.ctx.Done():
			return
		}
		b.run(func() {
			defer func() { <-slots }()
			b.answer(m, h)
		})
	})
	if err != nil {
		return nil, fmt.Errorf("serve %s: %w", verb, err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}

func (b *Broker) answer(m *nats.Msg, h Handler) {
	if b.ctx.Err() != nil || m.Reply == "" {
		return
	}
	var data []byte
	err := guard.Run("answering "+lastToken(m.Subject), func() (err error) {
		data, err = h(b.ctx, lastToken(m.Subject), m.Data)
		return err
	})
	reply := nats.NewMsg(m.Reply)
	reply.Data = data
	if err != nil {
		reply.Data = nil
		reply.Header.Set(errorHeader, err.Error())
	}
	if err := b.far.PublishMsg(reply); err != nil {
		b.log.Debug("answering a request", "subject", m.Subject, "error", err)
	}
}

func lastToken(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }

// Request asks a region and waits for its answer until ctx ends. Errors: ErrUnreachable,
// *RemoteError.
func (b *Broker) Request(ctx context.Context, region, verb string, data []byte) ([]byte, error) {
	req := nats.NewMsg(wire.ControlSubject(b.cfg.Cluster, region, verb, b.cfg.Region))
	req.Data = data
	b.seal(req)
	nc := b.to[region]
	if nc == nil {
		nc = b.far
	}
	m, err := nc.RequestMsgWithContext(ctx, req)
	if err != nil {
		if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("request %s of %s: %w (%w)", verb, region, ErrUnreachable, b.Explain(err))
	}
	if text := m.Header.Get(errorHeader); text != "" {
		return nil, &RemoteError{Region: region, Verb: verb, Message: text}
	}
	return m.Data, nil
}
