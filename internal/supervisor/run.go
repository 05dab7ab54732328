package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/admin"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/fallback/native"
	"github.com/pgwaltz/pgwaltz/internal/fallback/pglogical"
	"github.com/pgwaltz/pgwaltz/internal/lead"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/internal/sidecar"
	"github.com/pgwaltz/pgwaltz/internal/status"
)

const (
	every      = time.Second            // between two looks
	askLead    = 300 * time.Millisecond // while another process has it
	connecting = 3 * time.Second        // with a peer's database
	stuckAfter = time.Minute
)

// Mode is the mode that is in effect for the region, asked of its database. A switch that was cut off is a
// *fallback.HalfDoneError.
func Mode(ctx context.Context, cfg *config.Config) (config.Mode, error) {
	conn, err := pg.Connect(ctx, cfg.Postgres.Fresh().Reveal(), pg.Options{Region: cfg.Region, Role: "mode"})
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
	row, err := fallback.Load(ctx, conn, cfg.Region)
	if err != nil {
		return "", err
	}
	if row != nil && !row.Settled {
		return "", &fallback.HalfDoneError{Mode: row.Mode}
	}
	return fallback.InEffect(cfg, row), nil
}

// Supervisor watches a region in a fallback mode. Run is called once.
type Supervisor struct {
	cfg      *config.Config
	mode     config.Mode
	watch    watcher
	log      *slog.Logger
	version  string
	started  time.Time
	more     []prometheus.Collector
	compared bool                 // behind the switch
	side     sync.WaitGroup       // what goes on beside the loop
	there    map[string]*pgx.Conn // sessions with the peers' databases; of the goroutine that looks

	mu        sync.Mutex
	seen      status.Status
	errors    map[string]int64 // of the subscriptions, by peer
	unknown   string           // what cannot be known of conflicts
	conflicts status.Conflicts
	turned    time.Time // when the loop turned last
}

// New prepares a supervisor of a region in mode native or pglogical; it does no I/O.
func New(cfg *config.Config, mode config.Mode, log *slog.Logger, version string) *Supervisor {
	s := &Supervisor{cfg: cfg, mode: mode, watch: newWatcher(cfg, mode), log: log, version: version, started: time.Now(), there: map[string]*pgx.Conn{}, errors: map[string]int64{}, turned: time.Now()}
	s.say(status.Down, nil, nil, nil)
	return s
}

// Register adds metrics to those that it serves; before Run.
func (s *Supervisor) Register(c prometheus.Collector) { s.more = append(s.more, c) }

// Run watches until the context ends, and then returns nil; an error is one that no waiting can mend. A region that
// was never switched is set up first.
func (s *Supervisor) Run(ctx context.Context) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(append(s.more, Collector(s))...)
	work, stop := context.WithCancel(ctx)
	defer s.side.Wait()
	defer stop()
	g, work := errgroup.WithContext(work)
	if s.cfg.HTTP.Listen != "" {
		srv := admin.New(admin.Config{Listen: s.cfg.HTTP.Listen, AddressFile: sidecar.AddressFile(s.cfg), Registry: registry, Status: s.Status, Alive: s.alive, Log: s.log})
		g.Go(func() error { return srv.Run(work) })
	}
	g.Go(func() error {
		defer stop()
		for {
			err := s.term(work)
			s.hangUp()
			var final *finalError
			switch {
			case work.Err() != nil:
				return nil
			case errors.As(err, &final):
				return final.err
			}
			s.log.Warn("not at work", "reason", err.Error(), "again_in", every)
			s.say(status.Down, nil, nil, err)
			if pause.For(work, every) != nil {
				return nil
			}
		}
	})
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// finalError is what no waiting can mend.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }

// term is one time at work: it sets up what was never set up, takes the lead, and looks until it is lost.
func (s *Supervisor) term(ctx context.Context) error {
	conn, err := pg.Connect(ctx, s.cfg.Postgres.Fresh().Reveal(), pg.Options{Region: s.cfg.Region, Role: "lead"})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // the lead ends with the session
	if err := own(ctx, conn, s.cfg, "postgres.dsn"); err != nil {
		return err
	}
	for {
		s.turn()
		row, err := s.ours(ctx, conn)
		if err != nil {
			return err
		}
		h, err := lead.Look(ctx, conn, s.cfg.Region)
		if err == nil && h.PID == 0 && row == nil {
			if err := s.setUp(ctx); err != nil {
				return err
			}
			continue
		}
		ok := false
		if err == nil && h.PID == 0 {
			ok, err = lead.Claim(ctx, conn, s.cfg.Region)
		}
		if pg.Code(err) == "42P01" || pg.Code(err) == "3F000" {
			return s.setUp(ctx) // says that setup is missing
		}
		if err != nil && pg.Code(err) != "55P03" {
			return fmt.Errorf("ask for the lead: %w", err)
		}
		if ok {
			break
		}
		s.say(status.Standby, nil, nil, nil)
		if err := pause.For(ctx, askLead); err != nil {
			return err
		}
	}
	if err := s.countConflicts(ctx, conn); err != nil {
		return err
	}
	s.log.Info("at work", "region", s.cfg.Region, "mode", string(s.mode), "direction", string(s.cfg.Direction))
	for {
		s.turn()
		if err := lead.Held(ctx, conn, s.cfg.Region); err != nil {
			return err
		}
		row, err := s.ours(ctx, conn)
		if err != nil {
			return err
		}
		if err := s.look(ctx, conn); err != nil {
			return err
		}
		s.compareOnce(ctx, row)
		said, err := hold.Overdue(ctx, conn)
		if said != "" {
			s.log.Warn("the write pause of a cutover was over its time: writes are given back", "said", said)
		}
		if err != nil {
			s.log.Warn("look at the write pause of a cutover", "reason", err.Error())
		}
		if err := pause.For(ctx, every); err != nil {
			return err
		}
	}
}

// ours is the region's row, as long as its mode is the one of this supervisor.
func (s *Supervisor) ours(ctx context.Context, conn *pgx.Conn) (*fallback.Row, error) {
	row, err := fallback.Load(ctx, conn, s.cfg.Region)
	switch {
	case err != nil:
		return nil, err
	case row != nil && !row.Settled:
		return nil, &finalError{&fallback.HalfDoneError{Mode: row.Mode}}
	case fallback.InEffect(s.cfg, row) != s.mode:
		return nil, &finalError{&fallback.SwitchedError{Mode: fallback.InEffect(s.cfg, row)}}
	}
	return row, nil
}

// setUp is the first switch of a region whose configuration says native. What may pass by itself is tried again: another
// process at work, a peer that is away, or that still reads its slot.
func (s *Supervisor) setUp(ctx context.Context) error {
	conn, err := Connect(ctx, s.cfg)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // the lead ends with the session
	ran := func(st fallback.Statement) { s.log.Info("set up", "why", st.Why) }
	if s.mode == config.ModePglogical { // so that two regions that wait for each other's node go on
		if _, err = Prepare(ctx, conn, s.cfg, pglogical.Names{}, ran); err == nil {
			_, err = Switch(ctx, conn, s.cfg, s.mode, pglogical.Names{}, ran)
		}
	} else {
		_, err = Switch(ctx, conn, s.cfg, s.mode, pglogical.Names{}, ran)
	}
	var no *preflight.Refusal
	if errors.As(err, &no) && !no.Only("sidecar_runs", "peer_unread", "slot_in_use", "peer_not_prepared") {
		return &finalError{err}
	}
	return err
}

// look asks both sides of every subscription, and notes it for the status.
func (s *Supervisor) look(ctx context.Context, conn *pgx.Conn) error {
	var out *status.Outbound
	if s.cfg.Publishes() {
		var err error
		if out, err = s.watch.outbound(ctx, conn); err != nil {
			return err
		}
	}
	var ins []status.Inbound
	var tables []status.Table
	if s.cfg.Applies() {
		for _, p := range s.cfg.Peers {
			if p.DSN.IsZero() {
				continue
			}
			there, why := s.session(ctx, p)
			v, err := s.watch.inbound(ctx, conn, there, why, p)
			if err != nil {
				return err
			}
			if v.peerErr != nil {
				s.drop(p.Region)
			}
			if v.auditErr != nil {
				s.log.Warn("audit", "reason", v.auditErr.Error())
			}
			s.counted(v.written)
			ins, tables = append(ins, v.in), append(tables, v.tables...)
			s.mu.Lock()
			s.errors[p.Region] = v.errors
			s.mu.Unlock()
		}
	}
	written, unknown, err := s.watch.reported(ctx, conn)
	if err != nil {
		s.log.Warn("audit", "reason", err.Error())
	}
	s.counted(written)
	s.tell(unknown)
	s.say("", out, ins, nil)
	s.mu.Lock()
	s.seen.Tables = s.since(tables)
	s.mu.Unlock()
	return nil
}

// tell notes what cannot be known of conflicts, and says it once.
func (s *Supervisor) tell(unknown string) {
	s.mu.Lock()
	was := s.unknown
	s.unknown = unknown
	s.mu.Unlock()
	if unknown != "" && unknown != was {
		s.log.Warn("audit", "reason", unknown)
	}
}

// session is the one with a peer's database, opened again after a loss.
func (s *Supervisor) session(ctx context.Context, p config.Peer) (*pgx.Conn, error) {
	if c := s.there[p.Region]; c != nil && !c.IsClosed() {
		return c, nil
	}
	c, err := native.DialPeer(ctx, s.cfg, p, false, pg.Options{Region: s.cfg.Region, Role: "watch", ConnectTimeout: connecting, Settings: map[string]string{"statement_timeout": "3s"}})
	if err != nil {
		return nil, err
	}
	s.there[p.Region] = c
	return c, nil
}

func (s *Supervisor) drop(peer string) {
	if c := s.there[peer]; c != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c.Close(ctx) //nolint:errcheck // it is given up
		delete(s.there, peer)
	}
}

func (s *Supervisor) hangUp() {
	for peer := range s.there {
		s.drop(peer)
	}
}

func (s *Supervisor) turn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turned = time.Now()
}

func (s *Supervisor) alive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if silent := time.Since(s.turned); silent > stuckAfter {
		return fmt.Errorf("the loop has not turned for %s", silent.Round(time.Second))
	}
	return nil
}

// say notes a status. state "" is the worst of the directions.
func (s *Supervisor) say(state status.State, out *status.Outbound, ins []status.Inbound, err error) {
	st := status.Status{
		Cluster: s.cfg.Cluster, Region: s.cfg.Region, Version: s.version, PID: os.Getpid(), StartedAt: s.started,
		Mode: string(s.mode), Weaker: Weaker(s.mode), State: state, Outbound: out, Inbound: append([]status.Inbound{}, ins...), Tables: []status.Table{},
	}
	if state == "" {
		st.State = status.Replicating
		if out != nil {
			st.State = worse(st.State, out.State)
		}
		for _, in := range ins {
			st.State = worse(st.State, in.State)
		}
	}
	if err != nil {
		st.LastError = &status.LastError{At: time.Now(), Since: time.Now(), Message: err.Error(), SQLState: pg.Code(err)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.seen.LastError; st.LastError != nil && before != nil {
		st.LastError.Since = before.Since
	}
	if was := s.seen.State; was != st.State {
		s.log.Info("state", "was", string(was), "is", string(st.State))
	}
	if s.unknown != "" {
		st.Weaker = append(slices.Clone(st.Weaker), s.unknown)
	}
	st.Conflicts = s.conflicts
	st.Tables, s.seen = s.seen.Tables, st
	if s.seen.Tables == nil {
		s.seen.Tables = []status.Table{}
	}
}

// since keeps the time at which a table was first reported so. The owner holds the lock.
func (s *Supervisor) since(tables []status.Table) []status.Table {
	out := []status.Table{}
	for _, t := range tables {
		t.Since = time.Now()
		for _, before := range s.seen.Tables {
			if t.Same(before) {
				t.Since = before.Since
			}
		}
		out = append(out, t)
	}
	return out
}

// Status is what was seen last.
func (s *Supervisor) Status() status.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// ranks orders the states from well to bad.
var ranks = map[status.State]int{status.Replicating: 0, status.CatchingUp: 1, status.Parked: 2, status.Partitioned: 3, status.Gap: 4, status.Down: 5}

func worse(a, b status.State) status.State {
	if ranks[b] > ranks[a] {
		return b
	}
	return a
}
