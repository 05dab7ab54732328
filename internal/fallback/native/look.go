package native

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/node"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Subscription is the one of this region to a peer, as the catalog has it.
type Subscription struct {
	Enabled  bool
	Slot     string  // "" once it has let go of it
	Progress wal.LSN // of its replication origin: what is applied here; 0 before the first
	Tables   map[wal.RelationName]byte
}

// Peer is another region, and what was found there.
type Peer struct {
	Region string
	DSN    config.DSN
	// Err says why its database could not be read; then only Sub, Checkpoint and Parked are known. A *node.WrongError: it is another
	// region's, or a standby; System and Place are known then.
	Err         error
	System      pg.System
	Place       node.Place
	Slot        *pg.Slot
	SlotName    string
	Publication *pg.Publication
	Replication bool                      // the role of DSN may read a slot
	Received    map[wal.RelationName]bool // tables that subscriptions there receive and would send on to us
	Copying     int                       // tables of which the stream's copy is not done
	Stale       *uint32                   // the newest incarnation of its stream that is of the time before its way back; nil: unknown

	Sub        *Subscription
	Checkpoint *checkpoint.Checkpoint // how far the stream is applied here; nil when it never was
	Parked     int64
}

// Local is this region's database.
type Local struct {
	System      pg.System
	Role        *pg.Role
	MayCreate   bool // subscriptions, and move their progress
	Ready       bool // setup was run
	Runtime     string
	Tables      []*pg.Table
	Filled      map[wal.RelationName]bool // tables with rows
	Publication *pg.Publication
	Slot        *pg.Slot
	Mode        *fallback.Row
	By          string // the region whose process switches by itself; "" for a person
	// ModeTable: pgwaltz.mode is there; ModeReadable: and Runtime may read it.
	ModeTable, ModeReadable bool
	Workers                 int // max_logical_replication_workers
	Origins                 int // max_replication_slots, which bounds replication origins up to 17
}

// Subscribed reports whether one of the subscriptions is there.
func Subscribed(peers []*Peer) bool {
	return slices.ContainsFunc(peers, func(p *Peer) bool { return p.Sub != nil })
}

// Region is what every plan has to know of it.
func (l *Local) Region(cfg *config.Config) fallback.Region {
	return fallback.Region{Name: cfg.Region, Ready: l.Ready, Mode: l.Mode, ModeTable: l.ModeTable, ModeReadable: l.ModeReadable, Role: l.Role.Name, Runtime: l.Runtime, By: l.By}
}

// Name is the name of the subscription to a peer.
func Name(cluster, peer string) string { return config.DefaultSlot(cluster, peer) }

// Look reads the local database over conn, and the database of each peer that has a dsn. A peer that cannot be
// read is no error.
func Look(ctx context.Context, conn *pgx.Conn, cfg *config.Config) (*Local, []*Peer, error) {
	l, err := lookHere(ctx, conn, cfg)
	if err != nil {
		return nil, nil, err
	}
	var peers []*Peer
	if !cfg.Applies() {
		return l, nil, nil
	}
	var counts map[string]int64
	if l.Ready {
		if counts, err = parked.Counts(ctx, conn); err != nil {
			return nil, nil, err
		}
	}
	for _, c := range cfg.Peers {
		p := &Peer{Region: c.Region, DSN: c.DSN, SlotName: config.DefaultSlot(cfg.Cluster, c.Region), Parked: counts[c.Region]}
		if l.Ready {
			cp, found, err := pgstore.Load(ctx, conn, c.Region)
			if err != nil {
				return nil, nil, err
			}
			if found {
				p.Checkpoint, p.SlotName = &cp, cp.Epoch.Slot
			}
		}
		if p.Sub, err = lookSubscription(ctx, conn, Name(cfg.Cluster, c.Region), l.MayCreate); err != nil {
			return nil, nil, err
		}
		if p.Sub != nil && p.Sub.Slot != "" {
			p.SlotName = p.Sub.Slot
		}
		if p.DSN.IsZero() && p.Sub == nil {
			continue // it sends nothing here
		}
		p.Err = p.look(ctx, cfg)
		peers = append(peers, p)
	}
	return l, peers, nil
}

func lookHere(ctx context.Context, conn *pgx.Conn, cfg *config.Config) (l *Local, err error) {
	l = &Local{Runtime: cfg.Postgres.Fresh().User(), Filled: map[wal.RelationName]bool{}}
	if l.System, err = pg.LoadSystem(ctx, conn); err != nil {
		return nil, err
	}
	if l.Role, err = pg.LoadRole(ctx, conn, ""); err != nil {
		return nil, err
	}
	if l.Tables, err = pg.LoadTables(ctx, conn); err != nil {
		return nil, err
	}
	if l.Publication, err = pg.LoadPublication(ctx, conn, cfg.Postgres.Publication); err != nil {
		return nil, err
	}
	if l.Slot, err = pg.LoadSlot(ctx, conn, cfg.Postgres.Slot); err != nil {
		return nil, err
	}
	if l.Mode, err = fallback.Load(ctx, conn, cfg.Region); err != nil {
		return nil, err
	}
	err = conn.QueryRow(ctx, `select pg_catalog.to_regclass('pgwaltz.node') is not null and pg_catalog.to_regclass('pgwaltz.lead') is not null,
  r.rolsuper or exists (select from pg_catalog.pg_roles s where s.rolname = 'pg_create_subscription' and pg_catalog.pg_has_role(r.oid, s.oid, 'usage'))
    and pg_catalog.has_function_privilege(r.oid, 'pg_catalog.pg_replication_origin_advance(text, pg_lsn)', 'execute')
    and pg_catalog.has_table_privilege(r.oid, 'pg_catalog.pg_replication_origin_status', 'select'),
  pg_catalog.current_setting('max_logical_replication_workers')::int, pg_catalog.current_setting('max_replication_slots')::int,
  exists (select from pg_catalog.pg_attribute where attrelid = pg_catalog.to_regclass('pgwaltz.mode') and attname = 'auto'),
  coalesce((select pg_catalog.has_table_privilege(u.oid, pg_catalog.to_regclass('pgwaltz.mode')::oid, 'select') from pg_catalog.pg_roles u where u.rolname = $1), false)
from pg_catalog.pg_roles r where r.rolname = current_user`, l.Runtime).Scan(&l.Ready, &l.MayCreate, &l.Workers, &l.Origins, &l.ModeTable, &l.ModeReadable)
	if err != nil {
		return nil, fmt.Errorf("read what the server allows: %w", err)
	}
	for _, t := range l.Tables {
		if !cfg.Selected(t.Schema, t.Name) || t.Partition {
			continue
		}
		var some bool
		if err := conn.QueryRow(ctx, "select exists (select from "+t.SQL()+")").Scan(&some); err != nil {
			return nil, fmt.Errorf("look into table %s: %w", t.Ref(), err)
		}
		l.Filled[t.Ref()] = some
	}
	return l, nil
}

// lookSubscription reads a subscription; nil where there is none. Its progress only some roles may read.
func lookSubscription(ctx context.Context, q pg.Querier, name string, withProgress bool) (*Subscription, error) {
	s := &Subscription{Tables: map[wal.RelationName]byte{}}
	var progress *string
	asked := "null::text"
	if withProgress {
		asked = `(select o.remote_lsn::text from pg_catalog.pg_replication_origin_status o where o.external_id = 'pg_' || s.oid)`
	}
	err := q.QueryRow(ctx, `select s.subenabled, coalesce(s.subslotname::text, ''), `+asked+`
from pg_catalog.pg_subscription s where s.subname = $1 and s.subdbid = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())`,
		name).Scan(&s.Enabled, &s.Slot, &progress)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read subscription %q: %w", name, err)
	}
	if progress != nil {
		if s.Progress, err = wal.ParseLSN(*progress); err != nil {
			return nil, err
		}
	}
	rows, err := q.Query(ctx, `select n.nspname::text, c.relname::text, r.srsubstate::text from pg_catalog.pg_subscription_rel r
join pg_catalog.pg_subscription s on s.oid = r.srsubid join pg_catalog.pg_class c on c.oid = r.srrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where s.subname = $1`, name)
	if err != nil {
		return nil, fmt.Errorf("read tables of subscription %q: %w", name, err)
	}
	var schema, table, state string
	if _, err := pgx.ForEachRow(rows, []any{&schema, &table, &state}, func() error {
		s.Tables[wal.RelationName{Schema: schema, Name: table}] = state[0]
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read tables of subscription %q: %w", name, err)
	}
	return s, nil
}

// look reads the peer's own database.
func (p *Peer) look(ctx context.Context, cfg *config.Config) error {
	if p.DSN.IsZero() {
		return errors.New("peers[].dsn is not given")
	}
	ctx, cancel := context.WithTimeout(ctx, fallback.PeerAnswers)
	defer cancel()
	conn, err := p.Dial(ctx, cfg)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
	role, err := pg.LoadRole(ctx, conn, "")
	if err != nil {
		return err
	}
	p.Replication = role.Replication || role.Superuser
	if p.Slot, err = pg.LoadSlot(ctx, conn, p.SlotName); err != nil {
		return err
	}
	if p.Publication, err = pg.LoadPublication(ctx, conn, cfg.Postgres.Publication); err != nil {
		return err
	}
	if p.Place.Hidden { // and so is the rest of schema pgwaltz, or may be
		return p.lookReceived(ctx, conn)
	}
	var ready bool
	if err := conn.QueryRow(ctx, `select pg_catalog.to_regclass('pgwaltz.copy') is not null and pg_catalog.has_schema_privilege('pgwaltz', 'usage')
  and pg_catalog.has_table_privilege('pgwaltz.copy', 'select')`).Scan(&ready); err != nil && pg.Code(err) != "3F000" && pg.Code(err) != "42P01" {
		return err
	}
	if ready {
		jobs, err := tablecopy.Load(ctx, conn)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			if j.Open() || j.State == tablecopy.Done && !j.Whole {
				p.Copying++
			}
		}
		if err := p.lookStream(ctx, conn); err != nil {
			return err
		}
	}
	return p.lookReceived(ctx, conn)
}

// Dial opens a session with the peer's database, for whoever works for the region of cfg, and asks it who it is: another region's, a standby, or another database
// than with the session before is a *node.WrongError. The caller closes it.
func (p *Peer) Dial(ctx context.Context, cfg *config.Config) (*pgx.Conn, error) {
	conn, place, err := dial(ctx, cfg, p.Region, p.DSN, pg.Options{Region: cfg.Region, Role: "mode"})
	if p.System.SystemID == 0 {
		p.System, p.Place = place.System, place
	}
	if err != nil {
		return nil, err
	}
	if err := place.Same(p.System, p.Region); err != nil {
		conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
		return nil, err
	}
	return conn, nil
}

// DialPeer opens a session with the database of a peer of cfg as Dial does. sure: one that does not say whose it is is a *node.WrongError too.
func DialPeer(ctx context.Context, cfg *config.Config, p config.Peer, sure bool, o pg.Options) (*pgx.Conn, error) {
	conn, place, err := dial(ctx, cfg, p.Region, p.DSN, o)
	if err != nil || !sure {
		return conn, err
	}
	if err := place.Is(node.Row{Region: p.Region, Cluster: cfg.Cluster}, peerSetting); err != nil {
		conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
		return nil, err
	}
	return conn, nil
}

// peerSetting is what leads to a peer's database.
const peerSetting = "peers[].dsn"

func dial(ctx context.Context, cfg *config.Config, region string, dsn config.DSN, o pg.Options) (conn *pgx.Conn, place node.Place, err error) {
	if conn, err = pg.Connect(ctx, dsn.Reveal(), o); err != nil {
		return nil, place, err
	}
	if place, err = node.LookAt(ctx, conn); err == nil {
		err = place.Contradicts(node.Row{Region: region, Cluster: cfg.Cluster}, peerSetting)
	}
	if err != nil {
		conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
		return nil, place, err
	}
	return conn, place, nil
}

// lookReceived finds the tables that the peer receives by subscription: what comes so it would send on to us, unless we ask
// for its own changes only (16 on both sides).
func (p *Peer) lookReceived(ctx context.Context, q pg.Querier) error {
	p.Received = map[wal.RelationName]bool{}
	rows, err := q.Query(ctx, `select n.nspname::text, c.relname::text from pg_catalog.pg_subscription_rel r
join pg_catalog.pg_class c on c.oid = r.srrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace`)
	if err != nil {
		return fmt.Errorf("read what peer %s receives: %w", p.Region, err)
	}
	var schema, table string
	if _, err := pgx.ForEachRow(rows, []any{&schema, &table}, func() error {
		p.Received[wal.RelationName{Schema: schema, Name: table}] = true
		return nil
	}); err != nil {
		return fmt.Errorf("read what peer %s receives: %w", p.Region, err)
	}
	return nil
}
