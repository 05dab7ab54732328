package sidecar

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// localDB is what replicator.LocalWAL asks of the local server.
type localDB struct {
	*db
	log *slog.Logger
}

func (d localDB) InsertLSN(ctx context.Context) (wal.LSN, error) {
	var end wal.LSN
	err := d.do(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
		end, err = pg.WALEnd(ctx, c)
		return err
	})
	return end, err
}

func (d localDB) Lookup(ctx context.Context, at wal.LSN, refs []tombstone.Ref) (items []conflict.Item, err error) {
	err = d.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		items, err = tombstone.Lookup(ctx, c, at, refs)
		return err
	})
	return items, err
}

func (d localDB) Snapshot(ctx context.Context) (s *tombstone.Snapshot, err error) {
	err = d.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		s, err = tombstone.ReadSnapshot(ctx, c)
		return err
	})
	return s, err
}

func (d localDB) Terminate(ctx context.Context, pid uint32) error {
	return d.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, `select pg_catalog.pg_terminate_backend($1)`, int32(pid))
		if err != nil {
			return fmt.Errorf("end a session: %w", err)
		}
		return nil
	})
}

// Flush writes a message that is on disk, with everything before it, when it returns. A
// standby is not waited for.
func (d localDB) Flush(ctx context.Context) error {
	return d.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		b := &pgx.Batch{}
		b.Queue(`set local synchronous_commit = local`)
		b.Queue(`select pg_catalog.pg_logical_emit_message(true, 'pgwaltz.flush', '')`)
		tx, err := c.Begin(ctx)
		if err != nil {
			return fmt.Errorf("flush the WAL: %w", err)
		}
		defer tx.Rollback(ctx)
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return fmt.Errorf("flush the WAL: %w", err)
		}
		if err := tx.Commit(ctx); err != nil {
			return fmt.Errorf("flush the WAL: %w", err)
		}
		return nil
	})
}

func (d localDB) SaveClock(ctx context.Context, at wal.LSN, high wal.Micros) error {
	return d.untilTaken(ctx, d.log, "store the clock of the WAL", func(ctx context.Context, c *pgx.Conn) error {
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "set local synchronous_commit = local; "+briefly); err != nil {
				return fmt.Errorf("store the clock of the WAL: %w", err)
			}
			return tombstone.SaveClock(ctx, tx, at, high)
		})
	})
}
