package supervisor

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
)

// Agree is agree, for the tests.
func (a *Auto) Agree(ctx context.Context) bool { return a.agree(ctx) }

// FinishSince is finish of a process that has begun to switch away at a time; zero has not yet.
func (a *Auto) FinishSince(ctx context.Context, began time.Time, row *fallback.Row) error {
	a.began = began
	return a.finish(ctx, row)
}

// CallBack is callBack, for the tests.
func (a *Auto) CallBack(ctx context.Context) error { return a.callBack(ctx) }

// PeerIsBack is peerIsBack, for the tests.
func (a *Auto) PeerIsBack(ctx context.Context) bool { return a.peerIsBack(ctx) }

// Turn is turn of a process that streams and hears nothing of its peer.
func (a *Auto) Turn(ctx context.Context) config.Mode {
	a.agrees = true
	return a.turn(ctx, config.ModeStream, false, false)
}

// Due reports whether the stream has been impossible for long enough.
func (a *Auto) Due(at time.Time) bool { return a.decide.Stream(at, false) }

// Refused is the metric.
func (a *Auto) Refused(t *testing.T) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(a.refused)
	families, err := registry.Gather()
	if err != nil || len(families) != 1 {
		t.Fatal(families, err)
	}
	return families[0].GetMetric()[0].GetGauge().GetValue()
}
