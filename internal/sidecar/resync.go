package sidecar

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
)

// Resync asks the region's sidecar, through the database, to copy tables again: the named
// ones, or all. All of them together also accept a gap of the stream. recreateSlot replaces a
// slot that the server has given up. It returns how many tables will be copied.
func Resync(ctx context.Context, cfg *config.Config, tables []string, recreateSlot bool) (int, error) {
	dsn := cfg.Postgres.AdminDSN
	if dsn.IsZero() {
		dsn = cfg.Postgres.DSN
	}
	conn, err := pg.Connect(ctx, dsn.Reveal(), pg.Options{Region: cfg.Region, Role: "resync"})
	if err != nil {
		return 0, err
	}
	defer closeConn(conn)
	slot, err := pg.LoadSlot(ctx, conn, cfg.Postgres.Slot)
	if err != nil {
		return 0, err
	}
	if slot == nil || slot.Lost() {
		if !recreateSlot && slot != nil {
			return 0, &hintError{fmt.Errorf("slot %q is lost: the server removed log that it needed", cfg.Postgres.Slot), "pgwaltz resync -recreate-slot"}
		}
		if slot != nil {
			if _, err := conn.Exec(ctx, `select pg_catalog.pg_drop_replication_slot($1)`, cfg.Postgres.Slot); err != nil {
				return 0, fmt.Errorf("drop lost slot %q: %w", cfg.Postgres.Slot, err)
			}
		}
		if _, err := conn.Exec(ctx, `select pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')`, cfg.Postgres.Slot); err != nil {
			return 0, fmt.Errorf("create slot %q: %w", cfg.Postgres.Slot, err)
		}
	}
	// The operator says that this server is the region's: another one may have been it before.
	if _, err := conn.Exec(ctx, `update pgwaltz.stream set system_id = null, gap_at = coalesce(gap_at, pg_catalog.now())
where region = $1 and system_id <> (select system_identifier::text from pg_catalog.pg_control_system())`, cfg.Region); err != nil {
		return 0, fmt.Errorf("request resync: %w", err)
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return 0, fmt.Errorf("request resync: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	n, err := tablecopy.Request(ctx, tx, cfg.Postgres.Publication, tables)
	if errors.Is(err, tablecopy.ErrNotPublished) {
		return 0, &hintError{err, "pgwaltz setup -config FILE"}
	}
	if err != nil {
		return 0, err
	}
	if len(tables) == 0 {
		if _, err := tx.Exec(ctx, `update pgwaltz.stream set resync_requested_at = pg_catalog.now() where region = $1 and gap_at is not null`, cfg.Region); err != nil {
			return 0, fmt.Errorf("request resync: %w", err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return 0, fmt.Errorf("request resync: %w", err)
	}
	return n, nil
}

// hintError is an error with a remedy.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }
func (e *hintError) Hint() string  { return e.hint }
