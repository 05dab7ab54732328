package pglogical

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/fallback/native"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Set is the replication set that a region publishes.
const Set = "rep_all"

// Names are what somebody has called things; what is empty has the default of docs/fallback.md.
type Names struct {
	Node         string     // this region's node
	NodeDSN      config.DSN // its database as the others reach it
	Subscription string     // with one peer only
}

// Local is this region's database.
type Local struct {
	*native.Local
	Available, Extension bool   // it can be made; it is there
	Preload              string // shared_preload_libraries
	Loaded               bool   // pglogical is among them
	CommitTimestamps     bool
	Workers              int    // max_worker_processes
	Resolution           string // of conflicts, as the database sets it
	Node                 string // "" for none
	Set                  bool
	Members              map[wal.RelationName]bool
	Prepared             wal.LSN
	Readable, Granted    bool // the role of this session, and Runtime, may use the schema
	Slots                int  // of subscriptions to this database
	Collector            bool // the server collects its log
	Reader               bool // Runtime may read the conflicts in the server's log
}

// Peer is another region.
type Peer struct {
	*native.Peer
	Node     string // "" for none
	Members  map[wal.RelationName]bool
	Prepared wal.LSN
	Sub      *Subscription
	OwnSlot  *pg.Slot       // of Sub; nil where there is none
	cfg      *config.Config // of this process
}

// Subscription is the one of this region to a peer.
type Subscription struct {
	Name, Slot string
	Enabled    bool
	Progress   wal.LSN // of its replication origin
	Tables     map[wal.RelationName]byte
}

// Subscribed reports whether one of the subscriptions is there.
func Subscribed(peers []*Peer) bool {
	return slices.ContainsFunc(peers, func(p *Peer) bool { return p.Sub != nil })
}

// ready reports whether a table's state is one of those in which changes are applied.
func ready(state byte) bool { return state == 'r' || state == 'y' }

// Look reads the local database over conn, whose role is a superuser or sees little, and the database of each peer that has a
// dsn. A peer that cannot be read is no error.
func Look(ctx context.Context, conn *pgx.Conn, cfg *config.Config, n Names) (*Local, []*Peer, error) {
	here, there, err := native.Look(ctx, conn, cfg)
	if err != nil {
		return nil, nil, err
	}
	l := &Local{Local: here, Members: map[wal.RelationName]bool{}}
	if err := l.look(ctx, conn, cfg); err != nil {
		return nil, nil, err
	}
	var peers []*Peer
	for _, p := range there {
		q := &Peer{Peer: p, Members: map[wal.RelationName]bool{}, cfg: cfg}
		if l.Extension && l.Readable {
			name := n.Subscription
			if name == "" {
				name = native.Name(cfg.Cluster, p.Region)
			}
			if q.Sub, err = lookSubscription(ctx, conn, name, p.DSN.Reveal(), l.Role.Superuser); err != nil {
				return nil, nil, err
			}
		}
		if p.Err == nil {
			p.Err = q.look(ctx, cfg)
		}
		peers = append(peers, q)
	}
	return l, peers, nil
}

func (l *Local) look(ctx context.Context, conn *pgx.Conn, cfg *config.Config) error {
	err := conn.QueryRow(ctx, `select exists (select from pg_catalog.pg_available_extensions where name = 'pglogical'),
  exists (select from pg_catalog.pg_extension where extname = 'pglogical'), coalesce(p.setting, ''),
  exists (select from pg_catalog.regexp_split_to_table(p.setting, '[ ,]+') w where pg_catalog.btrim(w, '"') = 'pglogical'),
  pg_catalog.current_setting('logging_collector')::bool, pg_catalog.current_setting('track_commit_timestamp')::bool, pg_catalog.current_setting('max_worker_processes')::int,
  coalesce((select pg_catalog.split_part(c, '=', 2) from pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c
    where s.setrole = 0 and s.setdatabase = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()) and c like 'pglogical.conflict_resolution=%'), ''),
  (select pg_catalog.count(*) from pg_catalog.pg_replication_slots where plugin = 'pglogical_output' and database = pg_catalog.current_database())
from (select) one left join pg_catalog.pg_settings p on p.name = 'shared_preload_libraries' -- which not every role may see`).
		Scan(&l.Available, &l.Extension, &l.Preload, &l.Loaded, &l.Collector, &l.CommitTimestamps, &l.Workers, &l.Resolution, &l.Slots)
	if err != nil {
		return fmt.Errorf("look for pglogical: %w", err)
	}
	if l.ModeTable {
		if l.Prepared, err = fallback.Prepared(ctx, conn, cfg.Region); err != nil {
			return err
		}
	}
	if err := l.lookReader(ctx, conn); err != nil {
		return err
	}
	if !l.Extension {
		return nil
	}
	if err := conn.QueryRow(ctx, "select "+readable).Scan(&l.Readable); err != nil {
		return fmt.Errorf("look for pglogical: %w", err)
	}
	if !l.Readable {
		return nil
	}
	l.Node, l.Set, err = lookNode(ctx, conn, l.Members)
	if l.Granted = l.Readable; err != nil || l.Runtime == l.Role.Name {
		return err
	}
	err = conn.QueryRow(ctx, `select coalesce((select pg_catalog.has_schema_privilege(oid, 'pglogical', 'usage') and pg_catalog.has_table_privilege(oid, 'pglogical.subscription', 'select')
  from pg_catalog.pg_roles where rolname = $1), false)`, l.Runtime).Scan(&l.Granted)
	if err != nil {
		return fmt.Errorf("look for pglogical: %w", err)
	}
	return nil
}

// readable: the role may read what is looked for. The extension must be there.
const readable = `pg_catalog.has_schema_privilege('pglogical', 'usage') and pg_catalog.has_table_privilege('pglogical.replication_set_table', 'select')
  and pg_catalog.has_table_privilege('pglogical.local_node', 'select') and pg_catalog.has_table_privilege('pglogical.subscription', 'select')`

// lookNode reads the node of a database that has the extension, and what its set has.
func lookNode(ctx context.Context, q pg.Querier, members map[wal.RelationName]bool) (node string, set bool, err error) {
	err = q.QueryRow(ctx, `select coalesce((select n.node_name::text from pglogical.local_node l join pglogical.node n using (node_id)), ''),
  exists (select from pglogical.replication_set where set_name = $1 and set_nodeid in (select node_id from pglogical.local_node))`, Set).Scan(&node, &set)
	if err != nil {
		return "", false, fmt.Errorf("read the node of pglogical: %w", err)
	}
	list, err := published(ctx, q)
	for _, name := range list {
		members[name] = true
	}
	return node, set, err
}

// published are the tables of the set.
func published(ctx context.Context, q pg.Querier) (out []wal.RelationName, err error) {
	rows, err := q.Query(ctx, `select n.nspname::text, c.relname::text from pglogical.replication_set_table t join pglogical.replication_set s using (set_id)
join pg_catalog.pg_class c on c.oid = t.set_reloid join pg_catalog.pg_namespace n on n.oid = c.relnamespace where s.set_name = $1 order by 1, 2`, Set)
	if err != nil {
		return nil, fmt.Errorf("read the replication set: %w", err)
	}
	var name wal.RelationName
	_, err = pgx.ForEachRow(rows, []any{&name.Schema, &name.Name}, func() error {
		out = append(out, name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the replication set: %w", err)
	}
	return out, nil
}

// lookSubscription reads the subscription of a name, or to a database; nil where there is none.
func lookSubscription(ctx context.Context, q pg.Querier, name, dsn string, withProgress bool) (*Subscription, error) {
	s := &Subscription{Tables: map[wal.RelationName]byte{}}
	progress := "'0/0'::text"
	if withProgress {
		progress = `coalesce((select o.remote_lsn::text from pg_catalog.pg_replication_origin_status o where o.external_id = s.sub_slot_name), '0/0')`
	}
	var at string
	err := q.QueryRow(ctx, `select s.sub_name::text, s.sub_slot_name::text, s.sub_enabled, `+progress+`
from pglogical.subscription s join pglogical.node_interface i on i.if_id = s.sub_origin_if where s.sub_name = $1 or i.if_dsn = $2 order by s.sub_name = $1 desc limit 1`,
		name, dsn).Scan(&s.Name, &s.Slot, &s.Enabled, &at)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read subscription %q: %w", name, err)
	}
	if s.Progress, err = wal.ParseLSN(at); err != nil {
		return nil, err
	}
	rows, err := q.Query(ctx, `select y.sync_nspname::text, y.sync_relname::text, y.sync_status::text from pglogical.local_sync_status y join pglogical.subscription s on s.sub_id = y.sync_subid
where s.sub_name = $1 and y.sync_relname is not null`, s.Name)
	if err != nil {
		return nil, fmt.Errorf("read tables of subscription %q: %w", name, err)
	}
	var schema, table, state string
	_, err = pgx.ForEachRow(rows, []any{&schema, &table, &state}, func() error {
		s.Tables[wal.RelationName{Schema: schema, Name: table}] = state[0]
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read tables of subscription %q: %w", name, err)
	}
	return s, nil
}

// look reads what the peer has of pglogical.
func (p *Peer) look(ctx context.Context, cfg *config.Config) error {
	ctx, cancel := context.WithTimeout(ctx, fallback.PeerAnswers)
	defer cancel()
	conn, err := p.Dial(ctx, cfg)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
	var extension, mode bool
	err = conn.QueryRow(ctx, `select exists (select from pg_catalog.pg_extension where extname = 'pglogical'),
  exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = 'pgwaltz' and c.relname = 'mode'
    and pg_catalog.has_table_privilege(c.oid, 'select') and pg_catalog.has_schema_privilege(n.oid, 'usage'))`).Scan(&extension, &mode)
	if err == nil && extension {
		err = conn.QueryRow(ctx, "select "+readable).Scan(&extension)
	}
	if err != nil {
		return fmt.Errorf("look for pglogical at peer %s: %w", p.Region, err)
	}
	if extension {
		if p.Node, _, err = lookNode(ctx, conn, p.Members); err != nil {
			return err
		}
	}
	if mode {
		if p.Prepared, err = fallback.Prepared(ctx, conn, p.Region); err != nil {
			return err
		}
	}
	if p.Sub != nil {
		if p.OwnSlot, err = pg.LoadSlot(ctx, conn, p.Sub.Slot); err != nil {
			return err
		}
	}
	return nil
}
