package pglogical

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback/native"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Seen is what both servers say of one subscription at one moment.
type Seen struct {
	At      time.Time
	Sub     *Subscription // nil: there is none
	Word    string        // of show_subscription_status
	PeerErr error         // why the peer's database could not be read; then what follows is unknown
	Slot    *pg.Slot      // its CurrentLSN is the end of the peer's WAL
}

// Watch reads what is known of the subscription to one peer. here and there are sessions; there is nil, with the reason
// in why, where the peer cannot be reached. The role of here must have been granted the schema, as the switch does. The
// error is one of here.
func Watch(ctx context.Context, here, there *pgx.Conn, why error, cfg *config.Config, peer config.Peer) (s Seen, err error) {
	s.At = time.Now()
	if s.Sub, err = lookSubscription(ctx, here, native.Name(cfg.Cluster, peer.Region), peer.DSN.Reveal(), false); err != nil || s.Sub == nil {
		return s, err
	}
	if err := here.QueryRow(ctx, `select coalesce((select status from pglogical.show_subscription_status($1)), 'unknown')`, s.Sub.Name).Scan(&s.Word); err != nil {
		return s, fmt.Errorf("read the status of subscription %q: %w", s.Sub.Name, err)
	}
	if s.PeerErr = why; there != nil {
		s.Slot, s.PeerErr = pg.LoadSlot(ctx, there, s.Sub.Slot)
	} else if why == nil {
		s.PeerErr = errors.New("peers[].dsn is not given")
	}
	return s, nil
}

// Follow keeps the stream's slot, which nobody reads in this mode, behind the subscriptions: it moves to what each of at least
// so many of them has confirmed. So its WAL is let go, and the way back to the stream stays.
func Follow(ctx context.Context, conn *pgx.Conn, slot string, subscriptions int) error {
	var from, to string
	err := conn.QueryRow(ctx, `select s.confirmed_flush_lsn::text, o.lsn::text from pg_catalog.pg_replication_slots s,
  (select pg_catalog.min(confirmed_flush_lsn) as lsn from pg_catalog.pg_replication_slots where plugin = 'pglogical_output' and database = pg_catalog.current_database() having pg_catalog.count(*) >= $2) o
where s.slot_name = $1 and not s.active and s.wal_status <> 'lost' and o.lsn - s.confirmed_flush_lsn > $3`, slot, subscriptions, follow).Scan(&from, &to)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err == nil {
		_, err = conn.Exec(ctx, `select pg_catalog.pg_replication_slot_advance($1, $2::text::pg_lsn)`, slot, to)
	}
	if err != nil {
		return fmt.Errorf("move slot %q behind the subscriptions: %w", slot, err)
	}
	return nil
}

// JudgeSlot says how the peers read what this region publishes: by slots of their own. slot is the stream's.
func JudgeSlot(name string, slot *pg.Slot, readers, active int) *status.Outbound {
	o := native.JudgeSlot(name, slot)
	if slot == nil || slot.Lost() {
		return o
	}
	o.SlotActive = active > 0
	switch {
	case readers == 0:
		o.State, o.Reason = status.Partitioned, "there is no subscription of pglogical to this region yet"
	case active < readers:
		o.State, o.Reason = status.Partitioned, fmt.Sprintf("%d of %d subscriptions do not read; their WAL is kept", readers-active, readers)
	case o.BacklogBytes > follow+native.Behind:
		o.State, o.Reason = status.CatchingUp, ""
	default:
		o.State, o.Reason = status.Replicating, ""
	}
	return o
}

// Readers counts the slots of subscriptions to this database, and those that are read.
func Readers(ctx context.Context, q pg.Querier) (all, active int, err error) {
	err = q.QueryRow(ctx, `select pg_catalog.count(*), pg_catalog.count(*) filter (where active) from pg_catalog.pg_replication_slots where plugin = 'pglogical_output' and database = pg_catalog.current_database()`).Scan(&all, &active)
	if err != nil {
		return 0, 0, fmt.Errorf("count the subscriptions to this region: %w", err)
	}
	return all, active, nil
}

const (
	// follow is the WAL, in bytes, that the stream's slot may hold beyond what the subscriptions hold.
	follow = 16 << 20
	// fallen is how long a worker that was down is remembered: one that stops at a change is started again every few seconds.
	fallen = 20 * time.Second
)

// History remembers when the worker of one subscription was down last.
type History struct{ down time.Time }

// Note takes what was seen, and reports whether the worker is down, or was a moment ago.
func (h *History) Note(s Seen) bool {
	if s.Sub != nil && s.Sub.Enabled && (s.Word == "down" || s.Word == "unknown") {
		h.down = s.At
	}
	return !h.down.IsZero() && s.At.Sub(h.down) < fallen
}

// Judge says it in the words of status. down is what History.Note returned. The tables are those that do not replicate as they
// should.
func Judge(peer, name string, s Seen, down bool) (status.Inbound, []status.Table) {
	in := status.Inbound{Origin: peer}
	if s.Slot != nil {
		in.OriginLSN, in.EndLSN = s.Slot.CurrentLSN.String(), s.Slot.ConfirmedFlushLSN.String()
		in.LagBytes = max(0, int64(s.Slot.CurrentLSN)-int64(s.Slot.ConfirmedFlushLSN))
	}
	if s.Sub == nil {
		in.State, in.Reason = status.Down, fmt.Sprintf("there is no subscription %s: pgwaltz mode switch pglogical", name)
		return in, nil
	}
	tables := judgeTables(s.Sub.Tables)
	gone := native.Gone(peer, s.Sub.Slot, s.Slot, s.PeerErr, "pgwaltz resync")
	switch {
	case gone != "" && (s.Slot != nil || s.Word != "initializing"):
		in.State, in.Reason = status.Gap, gone
	case !s.Sub.Enabled:
		in.State, in.Reason = status.Down, fmt.Sprintf("subscription %s is disabled: select pglogical.alter_subscription_enable(%s)", s.Sub.Name, pg.Literal(s.Sub.Name))
	case s.PeerErr != nil && s.Word != "replicating":
		in.State, in.Reason = status.Partitioned, fmt.Sprintf("peer %s is out of reach: %v", peer, s.PeerErr)
	case down:
		in.State, in.Reason = status.Down, fmt.Sprintf("the worker of subscription %s stops, and is started again for ever: the server's log names the change; mend the row here, or pgwaltz mode switch stream", s.Sub.Name)
	case s.Word != "replicating":
		in.State, in.Reason = status.CatchingUp, "pglogical says "+s.Word
	default:
		native.Moves(&in, len(tables), s.PeerErr)
	}
	return in, tables
}

func judgeTables(states map[wal.RelationName]byte) (out []status.Table) {
	for t, state := range states {
		if !ready(state) {
			out = append(out, status.Table{Table: t.String(), Code: "copying", Reason: "it is being copied", Remedy: "wait"})
		}
	}
	slices.SortFunc(out, func(a, b status.Table) int { return strings.Compare(a.Table, b.Table) })
	return out
}

// Weaker is what this mode does not promise, in words for the status. docs/fallback.md has the same list.
func Weaker() []string {
	return []string{
		"the newer commit wins, by the servers' clocks, and not the higher version",
		"a clash of another unique index than the primary key may stop the subscription",
		"deletes leave no tombstone",
		"conflicts are told by the server's log alone, and are in the audit log where run may read it",
	}
}
