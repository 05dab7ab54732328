// Package pause waits for time to pass.
package pause

import (
	"context"
	"time"
)

// For returns nil after d, or the cause of ctx as soon as that ends. Any goroutine may call it.
func For(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
