package supervisor

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/fallback/pglogical"
	"github.com/pgwaltz/pgwaltz/internal/node"
	"github.com/pgwaltz/pgwaltz/source/names"
)

// Uninstall removes what setup and run have made in the database, and tells ran behind each statement. It holds the region's lead meanwhile. It
// may be run again, and finishes what was cut off.
func Uninstall(ctx context.Context, conn *pgx.Conn, cfg *config.Config, ran func(fallback.Statement)) (*fallback.Plan, error) {
	if _, err := conn.Exec(ctx, "set "+names.Quiet); err != nil {
		return nil, fmt.Errorf("prepare to uninstall: %w", err)
	}
	if busy, err := claim(ctx, conn, cfg, &fallback.Plan{Doing: "uninstall"}); err != nil || busy != nil {
		return busy, err
	}
	p, err := PlanUninstall(ctx, conn, cfg)
	if err != nil {
		return nil, err
	}
	return p, p.Run(ctx, conn, ran)
}

// outsideSQL finds what would go with schema pgwaltz and is somebody else's: views, functions, columns, constraints, defaults, policies. Our own triggers go with it.
const outsideSQL = `with inside as (
  select classid, objid from pg_catalog.pg_depend where refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass and refobjid = pg_catalog.to_regnamespace('pgwaltz')
), all_of_it as (
  select classid, objid from inside union select d.classid, d.objid from pg_catalog.pg_depend d join inside i on d.refclassid = i.classid and d.refobjid = i.objid and d.deptype in ('i', 'a')
)
select distinct coalesce((select 'view ' || w.ev_class::pg_catalog.regclass from pg_catalog.pg_rewrite w where d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and w.oid = d.objid),
  (pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid)).type || ' ' || (pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid)).identity)
from pg_catalog.pg_depend d join all_of_it i on d.refclassid = i.classid and d.refobjid = i.objid
where d.deptype = 'n' and d.classid <> 'pg_catalog.pg_event_trigger'::pg_catalog.regclass
  and not exists (select from pg_catalog.pg_trigger t where d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass and t.oid = d.objid and t.tgname like '%pgwaltz%')
  and (pg_catalog.pg_identify_object_as_address(d.classid, d.objid, d.objsubid)).object_names[1] !~ '^pgwaltz($|\.)'
order by 1`

// PlanUninstall works out what Uninstall would run, and runs nothing.
func PlanUninstall(ctx context.Context, conn *pgx.Conn, cfg *config.Config) (*fallback.Plan, error) {
	local, peers, err := pglogical.Look(ctx, conn, cfg, pglogical.Names{})
	if err != nil {
		return nil, fmt.Errorf("plan to uninstall: %w", err)
	}
	p := &fallback.Plan{Doing: "uninstall"}
	var schema, trigger bool
	if err := conn.QueryRow(ctx, `select pg_catalog.to_regnamespace('pgwaltz') is not null, exists (select from pg_catalog.pg_event_trigger where evtname = $1)`, names.Republisher).Scan(&schema, &trigger); err != nil {
		return nil, fmt.Errorf("plan to uninstall: %w", err)
	}
	if schema {
		if err := refuseUninstall(ctx, conn, cfg, p); err != nil {
			return nil, err
		}
	}
	for _, peer := range peers {
		if peer.Sub != nil || peer.Peer.Sub != nil {
			p.Refuse("subscription", "pgwaltz mode switch stream", "a subscription to %s is at work here", peer.Region)
		}
	}
	if local.Set {
		p.Refuse("replication_set", "pgwaltz mode switch stream", "the replication set of mode pglogical is here")
	}
	if s := local.Slot; s != nil && s.Active {
		p.Refuse("slot_in_use", "stop who reads it", "slot %q is read by process %d", s.Name, s.ActivePID)
	}
	if s := local.Slot; s != nil && (s.Plugin != "pgoutput" || s.Database != local.System.Database) {
		p.Refuse("slot_foreign", "correct postgres.slot", "slot %q is of plugin %q and database %q, and not of pgwaltz", s.Name, s.Plugin, s.Database)
	}
	p.Add(local.Slot == nil, "the server keeps no WAL for pgwaltz any more", "select pg_catalog.pg_drop_replication_slot("+pg.Literal(cfg.Postgres.Slot)+")")
	p.Add(local.Publication == nil, "nothing is published", "drop publication "+pg.Quote(cfg.Postgres.Publication))
	p.Add(!trigger, "tables that are made anew are theirs alone", "drop event trigger "+pg.Quote(names.Republisher))
	origins, err := originsHere(ctx, conn, cfg, schema)
	if err != nil {
		return nil, err
	}
	for _, peer := range origins {
		name := config.OriginName(cfg.Cluster, peer)
		var there bool
		if err := conn.QueryRow(ctx, `select exists (select from pg_catalog.pg_replication_origin where roname = $1)`, name).Scan(&there); err != nil {
			return nil, fmt.Errorf("read replication origins: %w", err)
		}
		p.Add(!there, "nothing comes from "+peer, "select pg_catalog.pg_replication_origin_drop("+pg.Literal(name)+")")
	}
	p.Add(!schema, "all that pgwaltz has noted, the audit log too, and its triggers on tables", "drop schema pgwaltz cascade")
	if local.Role.Name != local.Runtime {
		p.Warn("rights", "revoke them where nothing else needs them", "role %q keeps its rights on tables, parameters and functions of replication origins", local.Runtime)
	}
	p.Warn("identities", "alter table ... replica identity default", "tables keep their replica identity, such as FULL")
	p.Warn("stream", "delete it when no peer reads it any more, or the folder nats.store_dir", "the stream of region %s in the broker is left", cfg.Region)
	return p, nil
}

// originsHere are the peers, and the regions that were peers before: each has left a replication origin.
func originsHere(ctx context.Context, conn *pgx.Conn, cfg *config.Config, schema bool) ([]string, error) {
	out := cfg.PeerNames()
	if !schema {
		return out, nil
	}
	known, err := pgstore.Origins(ctx, conn)
	if pg.Code(err) == "42P01" { // a setup that was cut off
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	for _, o := range known {
		if o != cfg.Region && !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	return out, nil
}

// refuseUninstall looks into schema pgwaltz.
func refuseUninstall(ctx context.Context, conn *pgx.Conn, cfg *config.Config, p *fallback.Plan) error {
	n, err := node.Load(ctx, conn)
	if err != nil && pg.Code(err) != "42P01" {
		return err
	}
	if err == nil && n.Region != "" && (n.Region != cfg.Region || n.Cluster != cfg.Cluster) {
		p.Refuse("wrong_node", "point postgres.dsn to the right database", "this database is region %s of cluster %s", n.Region, n.Cluster)
	}
	row, err := fallback.Load(ctx, conn, cfg.Region)
	if err != nil {
		return err
	}
	if row != nil && (row.Mode != config.ModeStream || !row.Settled) {
		p.Refuse("mode", "pgwaltz mode switch stream", "the region is in mode %s, or was about to be", row.Mode)
	}
	s, err := hold.Load(ctx, conn)
	if err != nil {
		return err
	}
	if s != nil && s.Paused {
		p.Refuse("paused", "pgwaltz cutover resume-write, or abort; --force where it is finished", "writes are paused here by a cutover: what is needed to give them back is in schema pgwaltz")
	}
	rows, err := conn.Query(ctx, outsideSQL)
	if err != nil {
		return fmt.Errorf("look for what needs schema pgwaltz: %w", err)
	}
	others, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for what needs schema pgwaltz: %w", err)
	}
	for _, o := range others {
		p.Refuse("needed", "drop it, or let it do without", "%s needs schema pgwaltz, and would go with it", o)
	}
	counts, err := parked.Counts(ctx, conn)
	if err != nil && pg.Code(err) != "42P01" {
		return err
	}
	for origin, n := range counts {
		p.Warn("parked", "pgwaltz parked list", "%d changes of %s are set aside, and are forgotten", n, origin)
	}
	return nil
}
