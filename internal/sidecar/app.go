// Package sidecar wires the rooms into a running sidecar. It is the only place that knows all
// concrete types.
package sidecar

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/internal/admin"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/sink/publish"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/source/publication"
	"github.com/pgwaltz/pgwaltz/source/slot"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/source/subscribe/quarantine"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Sidecar is one region's replicator. Run is called once.
type Sidecar struct {
	cfg     *config.Config
	log     *slog.Logger
	version string
	started time.Time

	db      *db          // shared small session
	catalog *db          // session of the outbound pipe
	turned  atomic.Int64 // when the loop of the lead turned last, in nanoseconds
	// broker, epoch, server and caps are set at the begin of each term, before its
	// goroutines; view is the copy that the status reads at any time.
	broker *broker.Broker
	epoch  wal.Epoch
	view   atomic.Pointer[view]
	server int // server_version_num
	caps   capabilities
	// tracked is what the server knows of the time of this region's rows; set like caps.
	tracked tombstone.Tracked

	own      *replicator.LocalWAL
	clock    *replicator.ClockKeeper
	overdue  atomic.Bool // the last wait for own changes was in vain
	ownDB    *db         // its session
	parked   *parked.Index
	giants   *apply.Turns
	batches  *apply.Turns
	parkedAt atomic.Int64               // see parkedSince
	suspects map[string]*apply.Suspects // by origin
	members  *publication.Watch
	lives    lives
	met      metNames
	former   formerNames
	moved    displaced
	apart    apart
	rules    otherRules
	noted    noted
	strays   strays
	// straysDue is when origins are asked again for rows that went into other tables.
	straysDue time.Time
	named     time.Time    // when the names of tables were looked at last
	due       atomic.Int64 // tables to be copied when what they wait for has come
	// dueAt is when a copy was asked for last, in a transaction that may not have ended yet; in Unix nanoseconds.
	dueAt atomic.Int64
	// copyAsked is when a copy was asked for last, in Unix nanoseconds; see copying.
	copyAsked atomic.Int64
	// followDue is when parked changes may be looked at next for tables that were renamed.
	followDue time.Time
	// columnsDue is when what columns are called may be looked at next.
	columnsDue time.Time
	// takeInDue is when origins may be asked next for tables that were left out.
	takeInDue  time.Time
	takeInOf   int64 // when the term began, in nanoseconds
	exclusions exclusions
	granted    granted // copies that peers have asked for so
	watch      tablecopy.Watch
	arrived    tablecopy.Arrived
	redactor   *audit.Redactor
	refused    quarantine.Store // used on db

	vouched    vouched
	stopping   chan struct{} // closed when an orderly stop begins
	out        outboundState
	in         map[string]*inboundState
	mu         sync.Mutex
	role       status.State // Replicating while it leads
	why        string       // why it does not, in words
	troubles   troubles
	lastErrAt  time.Time
	conf       status.Conflicts
	uncounted  counting
	copy       []status.Copy
	waits      []status.Copy  // of the tables of due
	tables     []status.Table // that are not replicated as they should be
	registry   *prometheus.Registry
	pubMetrics *publish.Metrics
	subMetrics map[string]*subscribe.Metrics
	key        ed25519.PrivateKey
}

// view is what the status may see of a term.
type view struct {
	broker *broker.Broker
	epoch  wal.Epoch
}

// New prepares a sidecar.
func New(cfg *config.Config, log *slog.Logger, version string) (*Sidecar, error) {
	s := &Sidecar{
		cfg: cfg, log: log, version: version, started: time.Now(),
		subMetrics: map[string]*subscribe.Metrics{},
		parked:     parked.NewIndex(), giants: apply.NewTurns(), batches: apply.NewTurns(), suspects: map[string]*apply.Suspects{}, stopping: make(chan struct{}), in: map[string]*inboundState{}, role: status.Down, why: "starting", troubles: troubles{}, registry: prometheus.NewRegistry(),
	}
	s.db = &db{connect: func(ctx context.Context) (*pgx.Conn, error) { return s.connect(ctx, "status") }}
	s.catalog = &db{connect: func(ctx context.Context) (*pgx.Conn, error) { return s.connect(ctx, "catalog") }}
	s.ownDB = &db{connect: func(ctx context.Context) (*pgx.Conn, error) { return s.connect(ctx, "wal") }}
	s.members = s.watchPublication()
	s.own = replicator.NewLocalWAL(localDB{s.ownDB, s.log})
	s.clock = replicator.NewClockKeeper(s.own, localDB{s.ownDB, s.log})
	s.lives.forget()
	s.redactor = audit.NewRedactor(cfg.Audit.Redact)
	s.refused.Redact, s.refused.Selection = len(cfg.Audit.Redact) > 0, cfg.Selection()
	s.pubMetrics = publish.NewMetrics(s.registry)
	s.conf.ByType = map[string]uint64{}
	for _, p := range cfg.PeerNames() {
		s.in[p] = &inboundState{origin: p}
	}
	s.out.acks, s.out.answered = map[string]peerAck{}, map[string]uint32{}
	if err := s.loadSigningKey(); err != nil {
		return nil, err
	}
	return s, nil
}

// Run replicates until the context ends, and then stops in order: nothing more is read from
// the slot, what was read is published and confirmed, the batch in hand is committed; what
// takes longer than the shutdown timeout is left to the next start. Before it leads it waits.
// It returns nil after an orderly stop, and an error for what no waiting can mend.
func (s *Sidecar) Run(ctx context.Context) error {
	defer s.db.close()
	defer s.catalog.close()
	defer s.ownDB.close()
	s.registry.MustRegister(newCollector(s))
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	release := context.AfterFunc(ctx, func() {
		s.drain()
		stop()
	})
	defer release()
	g, work := errgroup.WithContext(work)
	if s.cfg.HTTP.Listen != "" {
		srv := admin.New(admin.Config{Listen: s.cfg.HTTP.Listen, AddressFile: AddressFile(s.cfg), Registry: s.registry, Status: s.Status, Alive: s.alive, Log: s.log})
		g.Go(func() error { return ignoreStop(work, srv.Run(work)) })
	}
	g.Go(func() error { return ignoreStop(work, s.lead(work)) })
	return g.Wait()
}

// drain is the first step of a stop.
func (s *Sidecar) drain() {
	close(s.stopping)
	s.mu.Lock()
	working := s.role == status.Replicating
	s.mu.Unlock()
	if !working {
		return
	}
	s.log.Info("stopping")
	s.out.mu.Lock()
	slot := s.out.slot
	s.out.mu.Unlock()
	if slot != nil {
		slot.Drain()
	}
	// Half of the time is for the peers; the other half for closing everything.
	deadline := time.Now().Add(min(s.cfg.ShutdownTimeout/2, 5*time.Second))
	for time.Now().Before(deadline) && !s.drained(slot) {
		time.Sleep(20 * time.Millisecond)
	}
}

// drained reports whether nothing is under way any more that is worth waiting for.
func (s *Sidecar) drained(slot *slot.Reader) bool {
	for _, in := range s.in {
		in.mu.Lock()
		busy := in.applier != nil
		in.mu.Unlock()
		if busy {
			return false
		}
	}
	if slot == nil {
		return true
	}
	durable := wal.LSN(s.out.durable.Load())
	if durable < wal.LSN(s.out.stats.Published.Load()) {
		return false
	}
	v := s.view.Load()
	for _, p := range s.cfg.PeerNames() {
		if v == nil || !v.broker.PeerReachable(p) {
			return true // it may take for ever
		}
	}
	return slot.Confirmed() >= durable
}

func (s *Sidecar) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// ignoreStop makes nil of the error of an orderly stop.
func ignoreStop(ctx context.Context, err error) error {
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		return nil
	}
	return err
}

func (s *Sidecar) connect(ctx context.Context, role string) (*pgx.Conn, error) {
	return pg.Connect(ctx, s.cfg.Postgres.Fresh().Reveal(), pg.Options{Region: s.cfg.Region, Role: role})
}

func (s *Sidecar) connectSlot(ctx context.Context, frontend func(io.Reader, io.Writer) *pgproto3.Frontend) (*pgconn.PgConn, error) {
	conn, err := pg.ConnectReplication(ctx, s.cfg.Postgres.Fresh().Reveal(), pg.Options{Region: s.cfg.Region, Role: "slot", Frontend: frontend, Dial: pg.DialQuiet})
	if err == nil {
		s.vouched.reads.Store(conn.PID())
	}
	return conn, err
}

// connectYielding opens a session that writes rows of the application, and gives way to it: it waits for a
// lock for a short time only (lockWait), and of two that wait for each other it is the one that is ended.
func (s *Sidecar) connectYielding(ctx context.Context, role string) (*pgx.Conn, error) {
	conn, err := pg.Connect(ctx, s.cfg.Postgres.Fresh().Reveal(), pg.Options{Region: s.cfg.Region, Role: role, LockTimeout: s.lockWait()})
	if err != nil {
		return nil, err
	}
	// Where we wait for each other, we look first, and are the victim: at once, because a session that has waited for
	// us for long looks at any moment. What log_lock_waits would say of us then, many times a second, is nothing that an
	// operator has to know: no wait of ours is as long as the server's own deadlock_timeout. Not every role may set
	// these; who tries nevertheless leaves an error in the server's log.
	for _, set := range [][2]string{{"log_lock_waits", "off"}, {"deadlock_timeout", strconv.FormatInt(max(s.lockWait().Milliseconds()/lookFirst, 1), 10) + "ms"}} {
		may := `(select r.rolsuper from pg_catalog.pg_roles r where r.rolname = current_user)`
		if pg.ServerVersion(conn.PgConn()) >= 150000 {
			may = `pg_catalog.has_parameter_privilege('` + set[0] + `', 'set')`
		}
		if _, err := conn.Exec(ctx, `select pg_catalog.set_config('`+set[0]+`', '`+set[1]+`', false) where `+may); err != nil {
			conn.Close(ctx)
			return nil, fmt.Errorf("prepare %s session: %w", role, err)
		}
	}
	return conn, nil
}

// lookFirst is the share of lockWait after which a session of ours looks for a deadlock, where it may set that.
const lookFirst = 100

// connectApply opens an apply session for the changes of origin.
func (s *Sidecar) connectApply(origin string) func(ctx context.Context) (*pgx.Conn, error) {
	return func(ctx context.Context) (*pgx.Conn, error) {
		conn, err := s.connectYielding(ctx, "apply_"+origin)
		if err != nil {
			return nil, err
		}
		sql := `select pg_catalog.set_config('pgwaltz.apply', 'on', false), pg_catalog.set_config('synchronous_commit', 'off', false),
  pg_catalog.set_config('enable_seqscan', 'off', false), pg_catalog.set_config('enable_hashjoin', 'off', false),
  pg_catalog.set_config('enable_mergejoin', 'off', false), pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', false)`
		if s.caps.replica {
			sql += `, pg_catalog.set_config('session_replication_role', 'replica', false)`
		}
		if s.caps.origin && origin != s.cfg.Region {
			sql += `, pg_catalog.pg_replication_origin_session_setup('` + config.OriginName(s.cfg.Cluster, origin) + `')`
		}
		if _, err := conn.Exec(ctx, sql); err != nil {
			conn.Close(ctx)
			return nil, fmt.Errorf("prepare apply session: %w", err)
		}
		return conn, nil
	}
}

// lockWait bounds each wait of an applier for a lock: a quarter of the server's deadlock_timeout.
// Of two sessions that wait for each other the one is ended that looks for a deadlock first, after
// that time. A session of the application never gets so far while we wait.
func (s *Sidecar) lockWait() time.Duration {
	wait := max(s.caps.deadlock/4, time.Millisecond)
	if limit := s.cfg.Postgres.LockTimeout; limit > 0 {
		wait = min(wait, limit)
	}
	return wait
}

// lockTimeout is how long a batch waits for locks in all.
func (s *Sidecar) lockTimeout() time.Duration {
	if limit := s.cfg.Postgres.LockTimeout; limit > 0 {
		return limit
	}
	return math.MaxInt64
}

// marker is what marks an apply transaction; nil when a replication origin does. The
// self-merge has no origin of its own and is always marked.
func (s *Sidecar) marker(origin string) []byte {
	if s.caps.origin && origin != s.cfg.Region {
		return nil
	}
	return s.caps.token
}

// policy is the merge policy of one table.
func (s *Sidecar) policy(n wal.RelationName) apply.TablePolicy {
	t := s.cfg.Table(n.Schema, n.Name)
	order := conflict.VersionFirst
	if t.Order == config.OrderTime {
		order = conflict.TimeFirst
	}
	return apply.TablePolicy{
		Version: t.Version, UpdatedAt: t.UpdatedAt, Order: order,
		Resolve: conflict.Policy{
			Order:       order,
			ForgetAfter: wal.Micros(s.cfg.Tombstones.MinAge.Microseconds() / 2),
			MaxSkew:     wal.Micros(s.cfg.MaxClockSkew.Microseconds()),
		},
	}
}

func (s *Sidecar) stampPolicy(n wal.RelationName) replicator.TablePolicy {
	p := s.policy(n)
	return replicator.TablePolicy{Version: p.Version, UpdatedAt: p.UpdatedAt, Resolve: p.Resolve}
}

// publicMessage is an error's text without what PostgreSQL may quote of a row.
func publicMessage(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		text := fmt.Sprintf("%s (SQLSTATE %s)", pe.Message, pe.Code)
		switch pe.Code[:2] {
		case "22", "23", "P0":
			text = "SQLSTATE " + pe.Code
			if pe.TableName != "" {
				text += " in " + pe.SchemaName + "." + pe.TableName
			}
		}
		return text
	}
	return err.Error()
}

// AddressFile is where a sidecar writes the address of its HTTP side.
func AddressFile(cfg *config.Config) string {
	if cfg.NATS.StoreDir == "" {
		return ""
	}
	return filepath.Join(cfg.NATS.StoreDir, "http.addr")
}
