package supervisor

import (
	"context"
	"time"

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
