package pgsync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/conflict/counterpart"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/source/poll"
)

// Forget gives up a job of a file: its slot and publication in the source, and in the destination all that is remembered of it but the rows
// and the audit log, into which go the changes that are still parked. It may be run again. No worker may be at work on the job.
func Forget(ctx context.Context, path, job string, log *slog.Logger) error {
	file, err := Load(path)
	if err != nil {
		return err
	}
	j, err := file.pick(job)
	if err != nil {
		return err
	}
	p := newPass(j, false, log.With("job", j.Name))
	defer p.close()
	err = p.open(ctx)
	if errors.Is(err, errBusy) {
		return &ConfigError{"job " + j.Name, "has a worker that is at work", "take its line out of the crontab, and wait for its end"}
	}
	if err != nil {
		return err
	}
	name := p.slotName()
	if err := dropSlot(ctx, p.source, name); err != nil {
		return err
	}
	drop := `drop publication if exists ` + pg.Quote(name)
	if _, err := p.source.Exec(ctx, drop); pg.Code(err) == "42501" {
		p.log.Warn("the publication is of another role, and stays", "try", "as a superuser, in the source: "+drop)
	} else if err != nil {
		return fmt.Errorf("drop the publication: %w", err)
	}
	origin := originOf(j.Name)
	discarded := 0
	err = pgx.BeginFunc(ctx, p.destination, func(tx pgx.Tx) error {
		var err error
		if discarded, err = parked.Discard(ctx, tx, parked.Filter{Origin: origin}, hereName, audit.DiscardInto); err != nil {
			return err
		}
		if err := tombstone.Forget(ctx, tx, origin); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, counterpart.ForgetSQL, origin); err != nil {
			return fmt.Errorf("forget columns of %s: %w", origin, err)
		}
		if err := pgstore.Forget(ctx, tx, origin); err != nil {
			return err
		}
		return poll.Forget(ctx, tx, j.Name)
	})
	if err != nil {
		return err
	}
	if p.role.CreateOrigin {
		if _, err := p.destination.Exec(ctx, `select pg_catalog.pg_replication_origin_drop(roname) from pg_catalog.pg_replication_origin where roname = $1`, origin); err != nil {
			return fmt.Errorf("drop the replication origin: %w", err)
		}
	}
	p.log.Info("the job is forgotten", "slot", name, "discarded", discarded)
	return nil
}
