package pglogical

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
)

// step is a statement that is more than one.
type step func(ctx context.Context, conn *pgx.Conn) error

// oldOnes is how long notePrepared waits for transactions that began before the set was made.
const oldOnes = 2 * time.Minute

// notePrepared notes the end of the WAL, once no transaction is open that may have changed something before the set was there:
// the plugin could not read what it has done.
func notePrepared(region string) step {
	return func(ctx context.Context, conn *pgx.Conn) error {
		var mine string
		if err := conn.QueryRow(ctx, `select pg_catalog.pg_current_xact_id()::text`).Scan(&mine); err != nil {
			return err
		}
		for end := time.Now().Add(oldOnes); ; {
			var open bool
			if err := conn.QueryRow(ctx, `select pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) <= $1::text::xid8`, mine).Scan(&open); err != nil {
				return err
			}
			if !open {
				break
			}
			if time.Now().After(end) {
				return errors.New("transactions are open that began before the replication set was made: end them (pg_stat_activity, pg_prepared_xacts), and run this again")
			}
			if err := pause.For(ctx, 100*time.Millisecond); err != nil {
				return err
			}
		}
		_, err := conn.Exec(ctx, fallback.PreparedSQL(region))
		return err
	}
}

// copySlot gives the subscription a copy of the stream's slot.
func copySlot(p *Peer, subscription string) step {
	return func(ctx context.Context, conn *pgx.Conn) error {
		var slot string
		if err := conn.QueryRow(ctx, `select sub_slot_name::text from pglogical.subscription where sub_name = $1`, subscription).Scan(&slot); err != nil {
			return fmt.Errorf("read subscription %q: %w", subscription, err)
		}
		return p.at(ctx, func(there *pgx.Conn) error {
			_, err := there.Exec(ctx, `select pg_catalog.pg_copy_logical_replication_slot($1, $2, false, 'pglogical_output')
where not exists (select from pg_catalog.pg_replication_slots where slot_name = $2)`, p.SlotName, slot)
			return err
		})
	}
}

// moveSlot puts the stream's slot to where the subscription's was confirmed, which is never beyond what is applied here.
func moveSlot(p *Peer) step {
	return func(ctx context.Context, _ *pgx.Conn) error {
		return p.at(ctx, func(there *pgx.Conn) error {
			_, err := there.Exec(ctx, advanceSQL, p.SlotName, p.Sub.Slot)
			return err
		})
	}
}

// advanceSQL moves slot $1 to where slot $2 was confirmed; never back.
const advanceSQL = `select pg_catalog.pg_replication_slot_advance(s.slot_name, o.confirmed_flush_lsn) from pg_catalog.pg_replication_slots s, pg_catalog.pg_replication_slots o
where s.slot_name = $1 and o.slot_name = $2 and o.confirmed_flush_lsn > s.confirmed_flush_lsn`

// at works in a session with the peer's database.
func (p *Peer) at(ctx context.Context, work func(*pgx.Conn) error) error {
	conn, err := p.Dial(ctx, p.cfg)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it is over
	if err := work(conn); err != nil {
		return fmt.Errorf("at peer %s: %w", p.Region, err)
	}
	return nil
}
