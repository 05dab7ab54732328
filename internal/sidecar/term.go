package sidecar

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint/streamstore"
	"github.com/pgwaltz/pgwaltz/conflict/counterpart"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/node"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/source/names"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wal"
)

// term is one time at work: from taking the lead to losing it.
func (s *Sidecar) term(ctx context.Context) error {
	lock, err := s.takeLead(ctx)
	if err != nil {
		return err
	}
	defer closeConn(lock)
	if err := s.streams(ctx, lock); err != nil {
		return err
	}
	if err := s.beginTerm(ctx); err != nil {
		return err
	}
	b, err := broker.New(s.brokerConfig())
	if err != nil {
		return &fatalError{err}
	}
	if err := b.Start(ctx); err != nil {
		return fmt.Errorf("start broker: %w", err)
	}
	defer b.Close()
	s.broker = b
	s.view.Store(&view{b, s.epoch})
	defer s.view.Store(nil)
	s.setRole(status.Replicating, "")
	defer s.setRole(status.Down, "stopping")
	s.log.Info("at work", "region", s.cfg.Region, "epoch", s.epoch.String(), "direction", string(s.cfg.Direction))
	return s.work(ctx, lock)
}

// streams is an error where the region was switched to another mode: the stream would work beside it.
func (s *Sidecar) streams(ctx context.Context, lock *pgx.Conn) error {
	row, err := fallback.Load(ctx, lock, s.cfg.Region)
	switch {
	case err != nil:
		return err
	case row != nil && !row.Settled:
		return &fatalError{&fallback.HalfDoneError{Mode: row.Mode}}
	case row != nil && row.Mode != config.ModeStream:
		return &fatalError{&fallback.SwitchedError{Mode: row.Mode}}
	}
	return nil
}

// beginTerm looks at the server and loads what the tables say, in a session of its own: the one that
// holds the lead is in a transaction.
func (s *Sidecar) beginTerm(ctx context.Context) error {
	conn, err := s.connect(ctx, "begin")
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if err := s.prepare(ctx, conn); err != nil {
		return err
	}
	s.forget()
	if err := s.loadOwn(ctx, conn); err != nil {
		return err
	}
	if err := s.noteRemoved(ctx, conn); err != nil {
		return err
	}
	if err := s.loadCopies(ctx, conn); err != nil {
		return err
	}
	if err := s.loadLacking(ctx, conn); err != nil {
		return err
	}
	s.parkedAt.Store(parkedEver)
	if err := s.parked.Load(ctx, conn); err != nil {
		return err
	}
	if err := s.loadDue(ctx, conn); err != nil {
		return err
	}
	return s.loadNewest(ctx, conn)
}

// loadOwn begins a term with what the tables say. A former leader's sessions have ended before: of what they
// commit later nobody would know, and one that was frozen would note what it decided long ago.
func (s *Sidecar) loadOwn(ctx context.Context, lock *pgx.Conn) error {
	for {
		var n int
		err := lock.QueryRow(ctx, `select count(pg_catalog.pg_terminate_backend(pid)) from pg_catalog.pg_stat_activity
where datname = pg_catalog.current_database() and usename = session_user and pid <> pg_catalog.pg_backend_pid()
  and (pg_catalog.starts_with(application_name, $1 || 'apply_') or application_name in ($1 || 'status', $1 || 'catalog', $1 || 'wal', $1 || 'copy', $1 || 'cascade'))`,
			"pgwaltz_"+s.cfg.Region+"_").Scan(&n)
		if err != nil {
			return fmt.Errorf("end sessions of a former leader: %w", err)
		}
		if n == 0 {
			break
		}
		if err := pause.For(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	s.own.Reset()
	// Until the gap that this makes is accepted, nothing of this server's WAL is stamped.
	row, err := streamstore.Load(ctx, lock, s.cfg.Region)
	if err != nil {
		return err
	}
	stored := row.Epoch.SystemID
	elsewhere, err := node.Elsewhere(ctx, lock, s.epoch.SystemID)
	if err != nil {
		return err
	}
	moved := elsewhere || stored != 0 && stored != s.epoch.SystemID
	if err := tombstone.Adopt(ctx, lock, moved); err != nil {
		return err
	}
	if moved {
		if err := errors.Join(names.Adopt(ctx, lock), names.AdoptColumns(ctx, lock), counterpart.Adopt(ctx, lock), parked.Adopt(ctx, lock)); err != nil {
			return err
		}
	}
	if elsewhere {
		if err := tombstone.Untrack(ctx, lock); err != nil {
			return err
		}
		s.log.Warn("schema pgwaltz was in another database before: it was dumped and restored, or copied")
	}
	if err := node.Settle(ctx, lock, s.epoch.SystemID); err != nil {
		return err
	}
	if err := s.track(ctx, lock); err != nil {
		return err
	}
	if err := s.loadNoted(ctx, lock); err != nil {
		return err
	}
	if err := tombstone.Load(ctx, lock, s.own.Index); err != nil {
		return err
	}
	at, err := pg.WALEnd(ctx, lock)
	if err != nil {
		return err
	}
	s.own.Start(at)
	return nil
}

// track finds out of which rows the server knows when this region wrote them.
func (s *Sidecar) track(ctx context.Context, lock *pgx.Conn) error {
	s.tracked = tombstone.Tracked{}
	if !s.cfg.Publishes() {
		return nil
	}
	t, lost, err := tombstone.Track(ctx, lock, s.epoch.SystemID)
	if err != nil {
		return err
	}
	if lost {
		s.log.Warn("track_commit_timestamp was on and is off: rows of tables without stamp columns that were written meanwhile count as older than any other write")
	}
	if s.tracked = t; t.On {
		s.own.Track(t.Since)
	}
	return nil
}

// work runs the pipes until the session that holds the lead is gone or the context ends.
func (s *Sidecar) work(ctx context.Context, lock *pgx.Conn) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := s.holdLead(ctx, lock)
		if ctx.Err() == nil {
			s.setRole(status.Down, publicMessage(err)) // the pipes may take a while to end
		}
		return err
	})
	g.Go(func() error { return s.countLog(ctx) })
	stopRules, err := s.broker.Serve(verbRules, s.sayRules)
	if err != nil {
		return err
	}
	defer stopRules()
	if s.cfg.Publishes() {
		g.Go(func() error { return s.supervise(ctx, "outbound", s.out.fail, s.publish) })
		g.Go(func() error { return s.supervise(ctx, "self-merge", nil, s.merge) })
		g.Go(func() error { return s.supervise(ctx, "copy", nil, s.copyTables) })
		stopAcks, err := s.broker.SubscribeAcks(s.acked)
		if err != nil {
			return err
		}
		defer stopAcks()
		stopRewind, err := s.broker.Serve(subscribe.VerbRewind, s.rewind)
		if err != nil {
			return err
		}
		defer stopRewind()
		stopNames, err := s.broker.Serve(verbNames, s.sayFormer)
		if err != nil {
			return err
		}
		defer stopNames()
		stopCopies, err := s.broker.Serve(verbCopy, s.sayCopies)
		if err != nil {
			return err
		}
		defer stopCopies()
	}
	if !s.cfg.Applies() {
		g.Go(func() error { return s.supervise(ctx, "acknowledge", nil, s.saysDeaf) })
	}
	if s.cfg.Applies() {
		for _, p := range s.cfg.PeerNames() {
			in := s.in[p]
			g.Go(func() error {
				return s.supervise(ctx, "inbound "+in.origin, in.fail, func(ctx context.Context) error { return s.receive(ctx, in) })
			})
			g.Go(func() error {
				return s.supervise(ctx, "acknowledge", nil, func(ctx context.Context) error { return s.acknowledge(ctx, in) })
			})
		}
	}
	g.Go(func() error { return s.supervise(ctx, "parked", nil, s.retryParked) })
	g.Go(func() error { return s.supervise(ctx, "upkeep", nil, s.upkeep) })
	g.Go(func() error { return s.supervise(ctx, "tables", nil, s.watchTables) })
	return g.Wait()
}

// prepare looks at the server: what is missing stops the start, with a remedy.
func (s *Sidecar) prepare(ctx context.Context, conn *pgx.Conn) error {
	tables, findings, err := preflight.Start(ctx, conn, s.cfg)
	if err != nil {
		return err
	}
	s.noteTables(tables)
	kept := findings[:0:0]
	for _, f := range findings {
		// A slot that is gone or lost is a state of a running sidecar, not a refusal: peers
		// are served from the stream, and status says what to do.
		if f.Code == "wal_unbounded" || f.Severity == preflight.Error && slices.Contains([]string{"slot_lost", "slot_missing"}, f.Code) && s.hasPublished(ctx, conn) {
			f.Severity = preflight.Warning
		}
		kept = append(kept, f)
	}
	for _, f := range kept.Together("; pgwaltz check --all names them") {
		if f.Severity == preflight.Warning {
			s.log.Warn("preflight", "code", f.Code, "what", f.What, "remedy", f.Remedy)
		}
	}
	if err := preflight.Findings(kept).Err("start"); err != nil {
		return &fatalError{err}
	}
	sys, err := pg.LoadSystem(ctx, conn)
	if err != nil {
		return err
	}
	s.epoch = wal.Epoch{SystemID: sys.SystemID, Timeline: sys.Timeline, Slot: s.cfg.Postgres.Slot}
	s.server = pg.ServerVersion(conn.PgConn())
	return s.findCapabilities(ctx, conn)
}

// hasPublished reports whether this region has published before.
func (s *Sidecar) hasPublished(ctx context.Context, conn *pgx.Conn) bool {
	row, err := streamstore.Load(ctx, conn, s.cfg.Region)
	return err == nil && row.Incarnation > 0
}
