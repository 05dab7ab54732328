package keys

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/wal"
)

// ErrNotInStep says that a region has not applied in time what the other one had committed.
var ErrNotInStep = errors.New("the regions are not in step")

// InStep waits until each of two regions has applied what the other one has committed by now.
// Errors: ErrNotInStep.
func InStep(ctx context.Context, a, b *Database, limit time.Duration) error {
	waiting, cancel := context.WithTimeoutCause(ctx, limit, ErrNotInStep)
	defer cancel()
	for _, way := range [...][2]*Database{{a, b}, {b, a}} {
		if err := applied(waiting, way[0], way[1]); err != nil {
			if errors.Is(context.Cause(waiting), ErrNotInStep) {
				return fmt.Errorf("%s has not applied everything of %s: %w", way[1].region, way[0].region, ErrNotInStep)
			}
			return err
		}
	}
	return nil
}

// applied waits until the region to has applied what from has committed. A message of ours in
// the WAL gives that a position.
func applied(ctx context.Context, from, to *Database) error {
	var text string
	if err := from.conn.QueryRow(ctx, `select pg_catalog.pg_logical_emit_message(true, 'pgwaltz.sync', '')::text`).Scan(&text); err != nil {
		return fmt.Errorf("mark the WAL of %s: %w", from.region, err)
	}
	mark, err := wal.ParseLSN(text)
	if err != nil {
		return fmt.Errorf("mark the WAL of %s: %w", from.region, err)
	}
	for {
		cp, found, err := pgstore.Load(ctx, to.conn, from.region)
		if err != nil {
			return fmt.Errorf("ask %s how far it has applied %s: %w", to.region, from.region, err)
		}
		if found && cp.EndLSN >= mark {
			return nil
		}
		if err := pause.For(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}
