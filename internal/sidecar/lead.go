package sidecar

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/guard"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint/streamstore"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wal"
)

// reconnect is the pace of every reconnect state: quick at first, then calm.
func reconnect() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(100*time.Millisecond), backoff.WithMultiplier(1.7),
		backoff.WithMaxInterval(5*time.Second), backoff.WithMaxElapsedTime(0))
}

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

// fatalError is what no waiting can mend.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }
func (e *fatalError) Unwrap() error { return e.err }

// setRole says whether this process is at work, and why it is not.
func (s *Sidecar) setRole(r status.State, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.role, s.why = r, why
	if r == status.Replicating {
		delete(s.troubles, "lead")
	}
}

// term is one time at work: from taking the lead to losing it.
func (s *Sidecar) term(ctx context.Context) error {
	lock, err := s.takeLead(ctx)
	if err != nil {
		return err
	}
	defer closeConn(lock)
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
	if err := s.loadOwn(ctx, conn); err != nil {
		return err
	}
	if err := s.parked.Load(ctx, conn); err != nil {
		return err
	}
	return s.countConflicts(ctx, conn)
}

// loadOwn begins a term with what the tables say. A former leader's apply transactions have
// ended before: what they commit later nobody would know of.
func (s *Sidecar) loadOwn(ctx context.Context, lock *pgx.Conn) error {
	for {
		var n int
		err := lock.QueryRow(ctx, `select count(pg_catalog.pg_terminate_backend(pid)) from pg_catalog.pg_stat_activity
where datname = pg_catalog.current_database() and usename = session_user and pid <> pg_catalog.pg_backend_pid()
  and pg_catalog.starts_with(application_name, $1)`, "pgwaltz_"+s.cfg.Region+"_apply_").Scan(&n)
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
	if err := tombstone.Adopt(ctx, lock, stored != 0 && stored != s.epoch.SystemID); err != nil {
		return err
	}
	if err := s.track(ctx, lock); err != nil {
		return err
	}
	if err := tombstone.Load(ctx, lock, s.own.Index); err != nil {
		return err
	}
	var end string
	if err := lock.QueryRow(ctx, `select pg_catalog.pg_current_wal_insert_lsn()::text`).Scan(&end); err != nil {
		return fmt.Errorf("read local WAL position: %w", err)
	}
	at, err := wal.ParseLSN(end)
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
	g.Go(func() error { return s.holdLead(ctx, lock) })
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
	return g.Wait()
}

// supervise runs one pipe again and again; it returns when the context ends, or on an error
// that no repetition can mend.
func (s *Sidecar) supervise(ctx context.Context, name string, note func(error), run func(context.Context) error) error {
	pace := reconnect()
	for {
		started := time.Now()
		// Directions say themselves when they move again.
		calm := time.AfterFunc(calmAfter, func() {
			if note == nil {
				s.over(name)
			}
		})
		err := s.broker.Explain(guard.Run(name, func() error { return run(ctx) }))
		calm.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && s.isStopping() {
			<-ctx.Done() // the others finish
			return ctx.Err()
		}
		if errors.Is(err, checkpoint.ErrInvariant) {
			err = &fatalError{fmt.Errorf("%s: %w", name, err)} // going on could lose or double a transaction
		}
		var stop *fatalError
		if errors.As(err, &stop) {
			return err
		}
		if time.Since(started) > 10*time.Second {
			pace.Reset()
		}
		wait := pace.NextBackOff()
		if errors.Is(err, errAgain) {
			wait, err = 0, nil
		} else if err != nil {
			var p *guard.PanicError
			if errors.As(err, &p) {
				s.log.Error("a pipe has panicked", "pipe", name, "reason", p.Error(), "stack", string(p.Stack))
			}
			s.failed(name, err)
			if note != nil {
				note(err)
			}
			s.log.Warn("pipe stopped", "pipe", name, "reason", publicMessage(err), "again_in", wait.Round(time.Millisecond))
		}
		if err := pause.For(ctx, wait); err != nil {
			return err
		}
	}
}

// calmAfter is how long a side pipe has to run before its last error counts as over.
const calmAfter = 10 * time.Second

// errAgain makes supervise run the pipe again at once: a wanted restart.
var errAgain = errors.New("the pipe is to be opened anew")

// takeLead returns the session that holds the lead. While another one holds it, this process
// is the standby. The lead is a lock on the view pgwaltz.lead, within a transaction that does
// nothing else: only who may write our tables can take it. (Everybody may take an advisory lock,
// and a lock on a table would keep it from being vacuumed.)
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
		h, err := s.holder(ctx, conn)
		if err != nil {
			s.log.Debug("look at the other sidecar", "reason", publicMessage(err))
		}
		if h.works {
			s.setRole(status.Standby, "another sidecar of this region is at work")
		} else {
			s.setRole(status.Down, "another session holds the lead and gives no sign of life")
		}
		if !said && h.pid != 0 {
			s.log.Info("standby: another sidecar of this region holds the lead", "region", s.cfg.Region, "pid", h.pid, "works", h.works)
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
	if _, err := conn.Exec(ctx, `select pg_catalog.set_config(name, '0', false) from pg_catalog.pg_settings
where name in ('idle_in_transaction_session_timeout', 'transaction_timeout', 'idle_session_timeout')`); err != nil {
		return false, fmt.Errorf("ask for the lead: %w", err)
	}
	if _, err := conn.Exec(ctx, "begin isolation level read committed"); err != nil {
		return false, fmt.Errorf("ask for the lead: %w", err)
	}
	_, err := conn.Exec(ctx, "lock table pgwaltz.lead in share row exclusive mode nowait")
	if err == nil {
		return true, nil
	}
	if _, rerr := conn.Exec(ctx, "rollback"); rerr != nil {
		return false, fmt.Errorf("ask for the lead: %w", errors.Join(err, rerr))
	}
	switch pg.Code(err) {
	case "55P03":
		return false, nil
	case "42P01", "3F000", "42501", "42809": // setup has not run, or for another role
		if perr := s.prepare(ctx, conn); perr != nil {
			return false, perr
		}
	}
	return false, fmt.Errorf("ask for the lead: %w", err)
}

// holder is the session that holds the lead.
type holder struct {
	pid   int
	works bool // it is one of ours, and has given a sign of life lately
}

const holderSQL = ` from pg_catalog.pg_locks l join pg_catalog.pg_class c on c.oid = l.relation and c.relname = 'lead'
join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname = 'pgwaltz'
join pg_catalog.pg_stat_activity a on a.pid = l.pid
where l.locktype = 'relation' and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
  and l.mode = 'ShareRowExclusiveLock' and l.granted and l.pid <> pg_catalog.pg_backend_pid()`

func (s *Sidecar) holder(ctx context.Context, conn *pgx.Conn) (h holder, err error) {
	err = conn.QueryRow(ctx, `select a.pid, coalesce(a.usename = session_user and pg_catalog.starts_with(a.application_name, 'pgwaltz_')
  and a.state_change > pg_catalog.clock_timestamp() - $1::interval, false)`+holderSQL+` limit 1`, frozenAfter).Scan(&h.pid, &h.works)
	if errors.Is(err, pgx.ErrNoRows) {
		return holder{works: true}, nil // it has just gone
	}
	return h, err
}

// deposeFrozen ends the session of a leader that does nothing any more: its slot is not read
// (the server has given its walsender up, by wal_sender_timeout), and the session that holds
// the lead, which asks every second, is silent. A leader that only waits, for an operator at a
// gap or for its broker, asks on.
func (s *Sidecar) deposeFrozen(ctx context.Context, conn *pgx.Conn, idle *time.Time) error {
	if !s.cfg.Publishes() {
		return nil
	}
	slot, err := pg.LoadSlot(ctx, conn, s.cfg.Postgres.Slot)
	if err != nil || slot == nil || slot.Active || slot.Lost() {
		*idle = time.Time{}
		return err
	}
	if idle.IsZero() {
		*idle = time.Now()
	}
	if time.Since(*idle) < frozenAfter {
		return nil
	}
	tag, err := conn.Exec(ctx, `select pg_catalog.pg_terminate_backend(l.pid)`+holderSQL+`
  and a.usename = current_user and a.state_change < pg_catalog.clock_timestamp() - $1::interval`, frozenAfter)
	if err == nil && tag.RowsAffected() > 0 {
		s.log.Warn("the sidecar that holds the lead is silent; taking over", "slot", s.cfg.Postgres.Slot, "silent_for", frozenAfter)
	}
	return err
}

// frozenAfter is how long a leader has to be silent before the standby ends its session.
const frozenAfter = 15 * time.Second

// holdLead watches the session that holds the lead.
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
	moved := pipe != nil && slot != nil && (pipe.Passed() != 0 || wal.LSN(o.durable.Load()) > o.begunAt)
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

// prepare looks at the server: what is missing stops the start, with a remedy.
func (s *Sidecar) prepare(ctx context.Context, conn *pgx.Conn) error {
	findings, err := preflight.Check(ctx, conn, s.cfg)
	if err != nil {
		return err
	}
	kept := findings[:0:0]
	for _, f := range findings {
		// A slot that is gone or lost is a state of a running sidecar, not a refusal: peers
		// are served from the stream, and status says what to do.
		if f.Code == "wal_unbounded" || f.Severity == preflight.Error && slices.Contains([]string{"slot_lost", "slot_missing"}, f.Code) && s.hasPublished(ctx, conn) {
			f.Severity = preflight.Warning
		}
		if f.Severity == preflight.Warning {
			s.log.Warn("preflight", "code", f.Code, "what", f.What, "remedy", f.Remedy)
		}
		kept = append(kept, f)
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

func (s *Sidecar) findCapabilities(ctx context.Context, conn *pgx.Conn) error {
	p, err := pg.LoadRole(ctx, conn, "")
	if err != nil {
		return err
	}
	s.caps.replica = p.SetReplicationRole && s.cfg.Apply.Privileges != config.PrivilegesRestorer
	s.caps.origin = p.Origins && s.originsExist(ctx, conn)
	var deadlock int64 // milliseconds
	if err := conn.QueryRow(ctx, `select setting::int8 from pg_catalog.pg_settings where name = 'deadlock_timeout'`).Scan(&deadlock); err != nil {
		return fmt.Errorf("read deadlock_timeout: %w", err)
	}
	s.caps.deadlock = time.Duration(deadlock) * time.Millisecond
	var token string
	if err := conn.QueryRow(ctx, `select token::text from pgwaltz.node where region = $1`, s.cfg.Region).Scan(&token); err != nil {
		return fmt.Errorf("read node row: %w", err)
	}
	s.caps.token = []byte(token)
	return nil
}

// originsExist reports whether setup made the replication origins of all peers.
func (s *Sidecar) originsExist(ctx context.Context, conn *pgx.Conn) bool {
	var names []string
	for _, p := range s.cfg.PeerNames() {
		names = append(names, config.OriginName(s.cfg.Cluster, p))
	}
	var n int
	err := conn.QueryRow(ctx, `select count(*) from pg_catalog.pg_replication_origin where roname = any($1)`, names).Scan(&n)
	return err == nil && n == len(names) && n > 0
}

// publicKeys are those by which peers sign.
func (s *Sidecar) publicKeys() map[string]ed25519.PublicKey {
	out := map[string]ed25519.PublicKey{}
	for _, p := range s.cfg.Peers {
		if key, err := p.Key(); err == nil && key != nil {
			out[p.Region] = key
		}
	}
	return out
}

// identities are what peers prove on a link.
func (s *Sidecar) identities() map[string]broker.Identity {
	out := map[string]broker.Identity{}
	for _, p := range s.cfg.Peers {
		if p.Identified() {
			out[p.Region] = broker.Identity{Certificate: p.Certificate, NKey: p.NKey, TokenFile: p.TokenFile}
		}
	}
	return out
}

func (s *Sidecar) brokerConfig() broker.Config {
	n := s.cfg.NATS
	c := broker.Config{
		Cluster: s.cfg.Cluster, Region: s.cfg.Region, Peers: s.cfg.PeerNames(),
		URL: n.URL, CredentialsFile: n.CredentialsFile, User: n.User, PasswordFile: n.PasswordFile, Password: n.Password.Reveal(), Identities: s.identities(), Sign: s.signer(), PublicKeys: s.publicKeys(),
		TLS:    broker.TLS{CertFile: n.TLS.CertFile, KeyFile: n.TLS.KeyFile, CAFile: n.TLS.CAFile},
		Listen: n.Listen, Dial: n.Dial, StoreDir: n.StoreDir, MaxBytes: int64(n.MaxBytes),
		AllowPlain: n.Insecure, Log: s.log.With("room", "broker"), Position: s.position,
	}
	if c.URL != "" {
		c.Listen, c.Dial = "", nil
	}
	return c
}
