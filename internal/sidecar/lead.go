package sidecar

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/lead"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/wal"
)

// lead waits until this process is the one at work for its region, works, and waits again
// when it loses the lead with its session.
func (s *Sidecar) lead(ctx context.Context) error {
	pace := reconnect()
	for {
		s.turn()
		started := time.Now()
		err := s.term(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var stop *fatalError
		if errors.As(err, &stop) {
			return stop.err
		}
		if time.Since(started) > 30*time.Second {
			pace.Reset()
		}
		wait := pace.NextBackOff()
		s.setRole(status.Down, publicMessage(err))
		s.failed("lead", err)
		s.log.Warn("not at work", "reason", publicMessage(err), "again_in", wait.Round(time.Millisecond))
		if err := pause.For(ctx, wait); err != nil {
			return nil
		}
	}
}

// setRole says whether this process is at work, and why it is not.
func (s *Sidecar) setRole(r status.State, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.role, s.why = r, why
	if r == status.Replicating {
		delete(s.troubles, "lead")
	}
}

// takeLead returns the session that holds the lead. While another one holds it, this process
// is the standby. See package lead.
func (s *Sidecar) takeLead(ctx context.Context) (*pgx.Conn, error) {
	conn, err := s.connect(ctx, "lead")
	if err != nil {
		return nil, err
	}
	said, idle := false, time.Time{}
	for {
		s.turn()
		ok, err := s.tryLead(ctx, conn)
		if err != nil {
			closeConn(conn)
			return nil, err
		}
		if ok {
			return conn, nil
		}
		h, err := lead.Look(ctx, conn, s.cfg.Region)
		if err != nil {
			s.log.Debug("look at the other sidecar", "reason", publicMessage(err))
		}
		if h.Works {
			s.setRole(status.Standby, "another sidecar of this region is at work")
		} else {
			s.setRole(status.Down, "another session holds the lead and gives no sign of life")
		}
		if !said && h.PID != 0 {
			s.log.Info("standby: another sidecar of this region holds the lead", "region", s.cfg.Region, "pid", h.PID, "works", h.Works)
			said = true
		}
		if err := s.deposeFrozen(ctx, conn, &idle); err != nil {
			s.log.Debug("look at the other sidecar", "reason", publicMessage(err))
		}
		if err := pause.For(ctx, 300*time.Millisecond); err != nil {
			closeConn(conn)
			return nil, err
		}
	}
}

// tryLead takes the lead if nobody has it.
func (s *Sidecar) tryLead(ctx context.Context, conn *pgx.Conn) (bool, error) {
	if _, err := conn.Exec(ctx, `select pg_catalog.set_config(name, case name when 'lock_timeout' then '1s' else '0' end, false) from pg_catalog.pg_settings
where name in ('transaction_timeout', 'idle_session_timeout', 'lock_timeout')`); err != nil {
		return false, fmt.Errorf("ask for the lead: %w", err)
	}
	h, err := lead.Look(ctx, conn, s.cfg.Region)
	if err == nil && h.PID != 0 {
		return false, nil
	}
	ok := false
	if err == nil {
		ok, err = lead.Claim(ctx, conn, s.cfg.Region)
	}
	switch pg.Code(err) {
	case "55P03":
		return false, nil
	case "42P01", "42703", "3F000", "42501", "42809", "55000": // setup has not run, or for another role
		if perr := s.prepare(ctx, conn); perr != nil {
			return false, perr
		}
	}
	if err != nil {
		return false, fmt.Errorf("ask for the lead: %w", err)
	}
	return ok, nil
}

// deposeFrozen ends the session of a leader that does nothing any more: its slot is not read
// (the server has given its walsender up, by wal_sender_timeout, or there is no slot), and the session
// that holds the lead, which asks every second, is silent. A leader that only waits, for an operator at a
// gap or for its broker, asks on.
func (s *Sidecar) deposeFrozen(ctx context.Context, conn *pgx.Conn, idle *time.Time) error {
	if s.cfg.Publishes() {
		slot, err := pg.LoadSlot(ctx, conn, s.cfg.Postgres.Slot)
		if err != nil || slot != nil && slot.Active {
			*idle = time.Time{}
			return err
		}
	}
	if idle.IsZero() {
		*idle = time.Now()
	}
	if time.Since(*idle) < lead.FrozenAfter {
		return nil
	}
	deposed, err := lead.Depose(ctx, conn, s.cfg.Region)
	if deposed {
		s.log.Warn("the sidecar that holds the lead is silent; taking over", "slot", s.cfg.Postgres.Slot, "silent_for", lead.FrozenAfter)
	}
	return err
}

// holdLead watches the session that holds the lead, until it is lost or ctx ends. Its error says which.
func (s *Sidecar) holdLead(ctx context.Context, conn *pgx.Conn) error {
	for {
		s.turn()
		if err := pause.For(ctx, time.Second); err != nil {
			return err
		}
		asking, cancel := context.WithTimeout(ctx, 10*time.Second)
		// What is flushed is what the slot can be read up to.
		var end string
		err := conn.QueryRow(asking, "select pg_catalog.pg_current_wal_flush_lsn()::text").Scan(&end)
		cancel()
		if at, bad := wal.ParseLSN(end); err == nil && bad == nil {
			s.sighted(at)
		}
		if err == nil {
			err = lead.Held(ctx, conn, s.cfg.Region)
		}
		if err == nil && s.cfg.Fallback.On() {
			// That the row cannot be read just now takes nothing away.
			if e, final := s.streams(ctx, conn), (*fatalError)(nil); errors.As(e, &final) {
				err = e
			}
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("hold the lead: %w", err)
		}
	}
}

// sighted takes the end of the WAL, and asks the server how far it has decoded when that is not
// as far.
func (s *Sidecar) sighted(end wal.LSN) {
	o := &s.out
	o.ends.note(time.Now(), end)
	s.hear()
	o.mu.Lock()
	slot, pipe, behind := o.slot, o.pipe, o.through() < end
	moved := pipe != nil && slot != nil && o.live && (pipe.Passed() != 0 || wal.LSN(o.durable.Load()) > o.begunAt) && (o.through() > o.failedAt || !behind)
	if moved {
		o.failedAt = 0
	}
	o.mu.Unlock()
	if slot != nil && behind {
		slot.Ping()
	}
	if moved {
		s.over("outbound")
	}
}

func closeConn(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c.Close(ctx)
}
