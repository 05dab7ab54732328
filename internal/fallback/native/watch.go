package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Seen is what both servers say of one subscription at one moment.
type Seen struct {
	At      time.Time
	Sub     *Subscription // nil: there is none
	Worker  bool          // the worker that applies runs
	Applied wal.LSN       // what it has last reported to the peer
	Heard   time.Time     // when it last got a message of the peer; zero for never
	Counted bool          // the server counts errors (15)
	Errors  int64         // of applying and copying, since the statistics were reset
	// Counts is all that the server counts of the subscription, errors and from 18 on conflicts, by the names of
	// pg_stat_subscription_stats; Since names the subscription, and when it began to count.
	Counts map[string]int64
	Since  string

	PeerErr   error    // why the peer's database could not be read; then what follows is unknown
	Slot      *pg.Slot // its CurrentLSN is the end of the peer's WAL
	Published []wal.RelationName
}

// Watch reads what is known of the subscription to one peer. here and there are sessions; there is nil, with the reason
// in why, where the peer cannot be reached. Every role may read all of it. The error is one of here.
func Watch(ctx context.Context, here, there *pgx.Conn, why error, cfg *config.Config, peer string) (s Seen, err error) {
	name := Name(cfg.Cluster, peer)
	s.At = time.Now()
	if s.Sub, err = lookSubscription(ctx, here, name, false); err != nil || s.Sub == nil {
		return s, err
	}
	var applied *string
	var heard *time.Time
	err = here.QueryRow(ctx, `select w.pid is not null, w.latest_end_lsn::text, w.last_msg_receipt_time
from pg_catalog.pg_subscription s left join pg_catalog.pg_stat_subscription w on w.subid = s.oid and w.relid is null and pg_catalog.to_jsonb(w) ->> 'leader_pid' is null
where s.subname = $1`, name).Scan(&s.Worker, &applied, &heard)
	if err != nil {
		return s, fmt.Errorf("read the worker of subscription %q: %w", name, err)
	}
	if heard != nil {
		s.Heard = *heard
	}
	if applied != nil {
		if s.Applied, err = wal.ParseLSN(*applied); err != nil {
			return s, err
		}
	}
	if s.Counted = pg.ServerVersion(here.PgConn()) >= 150000; s.Counted {
		var counts []byte
		err = here.QueryRow(ctx, `select (pg_catalog.to_jsonb(c) - 'subid' - 'subname' - 'stats_reset')::text, c.subid || ' ' || coalesce(c.stats_reset::text, '') from pg_catalog.pg_stat_subscription_stats c
join pg_catalog.pg_subscription s on s.oid = c.subid where s.subname = $1 and s.subdbid = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())`, name).Scan(&counts, &s.Since)
		if err == nil {
			err = json.Unmarshal(counts, &s.Counts)
		}
		if err != nil {
			return s, fmt.Errorf("read what the server counts of subscription %q: %w", name, err)
		}
		s.Errors = s.Counts["apply_error_count"] + s.Counts["sync_error_count"]
	}
	if s.PeerErr = why; there != nil {
		s.PeerErr = s.watchPeer(ctx, there, cfg)
	} else if why == nil {
		s.PeerErr = errors.New("peers[].dsn is not given")
	}
	return s, nil
}

func (s *Seen) watchPeer(ctx context.Context, there *pgx.Conn, cfg *config.Config) error {
	var err error
	if s.Slot, err = pg.LoadSlot(ctx, there, s.Sub.Slot); err != nil {
		return err
	}
	rows, err := there.Query(ctx, `select schemaname::text, tablename::text from pg_catalog.pg_publication_tables where pubname = $1 order by 1, 2`, cfg.Postgres.Publication)
	if err != nil {
		return fmt.Errorf("read publication of the peer: %w", err)
	}
	var n wal.RelationName
	_, err = pgx.ForEachRow(rows, []any{&n.Schema, &n.Name}, func() error {
		s.Published = append(s.Published, n)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read publication of the peer: %w", err)
	}
	return nil
}
