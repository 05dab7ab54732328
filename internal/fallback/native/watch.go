package native

import (
	"context"
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
		err = here.QueryRow(ctx, `select coalesce(pg_catalog.sum(apply_error_count + sync_error_count), 0)::int8 from pg_catalog.pg_stat_subscription_stats where subname = $1`, name).Scan(&s.Errors)
		if err != nil {
			return s, fmt.Errorf("read errors of subscription %q: %w", name, err)
		}
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
