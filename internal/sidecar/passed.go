package sidecar

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/checkpoint/streamstore"
	"github.com/pgwaltz/pgwaltz/wal"
)

// What every peer has passed is stored this often, once it has moved by so many bytes. A store that is lost costs at
// most that much, and what was applied meanwhile, to be published once more.
const (
	passedEvery = 500 * time.Millisecond
	passedStep  = 1 << 20
)

// keepPassed stores how far every peer has applied what was confirmed (checkpoint.Stored.Passed), until the context
// ends. The server itself saves what the slot was told with its checkpoints only.
func (s *Sidecar) keepPassed(ctx context.Context, incarnation uint32) error {
	stored := wal.LSN(0)
	for {
		if err := pause.For(ctx, passedEvery); err != nil {
			return err
		}
		at := wal.LSN(s.out.passed.Load())
		if at < stored+passedStep {
			continue
		}
		if err := s.notePassed(ctx, incarnation, at); err != nil {
			return err
		}
		stored = at
	}
}

// notePassed stores the position without waiting for the disk.
func (s *Sidecar) notePassed(ctx context.Context, incarnation uint32, at wal.LSN) error {
	return s.db.untilTaken(ctx, s.log, "store what every peer has", func(ctx context.Context, c *pgx.Conn) error {
		tx, err := c.Begin(ctx)
		if err != nil {
			return fmt.Errorf("store what every peer has: %w", err)
		}
		defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // after a commit it does nothing
		if _, err := tx.Exec(ctx, "set local synchronous_commit = off; "+briefly); err != nil {
			return fmt.Errorf("store what every peer has: %w", err)
		}
		if err := streamstore.NotePassed(ctx, tx, s.cfg.Region, incarnation, at); err != nil {
			return err
		}
		if err := tx.Commit(ctx); err != nil {
			return fmt.Errorf("store what every peer has: %w", err)
		}
		return nil
	})
}
