package broker

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/wire"
)

const sweepEvery = 2 * time.Second

// sweep deletes consumers on the region's own stream that nobody may have: an external server may not
// forbid them to anybody.
func (b *Broker) sweep() {
	known := map[string]bool{}
	for _, r := range append([]string{b.cfg.Region}, b.cfg.Peers...) {
		for n := range wire.Consumers {
			known[wire.ConsumerName(r, n)] = true
		}
	}
	b.every(sweepEvery, func() bool {
		if err := b.sweepOnce(known); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			b.log.Debug("look for foreign consumers", "error", err)
		}
		return true
	})
}

func (b *Broker) sweepOnce(known map[string]bool) error {
	if !b.nc.IsConnected() {
		return nil
	}
	js, err := b.JS(b.cfg.Region)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	name := wire.StreamName(b.cfg.Cluster, b.cfg.Region)
	s, err := js.Stream(ctx, name)
	if err != nil || s.CachedInfo().State.Consumers == 0 {
		return err
	}
	list := s.ConsumerNames(ctx)
	var foreign []string
	for n := range list.Name() {
		if !known[n] {
			foreign = append(foreign, n)
		}
	}
	for _, n := range foreign {
		if err := s.DeleteConsumer(ctx, n); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return err
		}
	}
	if len(foreign) > 0 {
		b.log.Warn("consumers that are none of a region's were deleted", "stream", name, "consumers", len(foreign), "first", foreign[0])
	}
	return list.Err()
}
