package pglogical

import (
	"fmt"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/fallback/native"
	"github.com/pgwaltz/pgwaltz/wal"
)

// resolution is what settles conflicts: the newer commit where this region writes as well; else whatever comes, since rows that the
// stream has brought carry the time at which they were applied, and what it has not brought yet may be older than that.
func resolution(cfg *config.Config) (name, why string) {
	if cfg.Publishes() && cfg.Applies() {
		return "last_update_wins", "the newer commit wins; without it whatever comes would"
	}
	return "apply_remote", "what comes is written over what is there: this region does not publish"
}

type decision struct {
	*fallback.Plan
	cfg *config.Config
	l   *Local
	n   Names
}

// Prepare makes what this region publishes, and what it needs to subscribe; the stream may go on meanwhile. It does no I/O.
func Prepare(cfg *config.Config, l *Local, n Names) *fallback.Plan {
	d := &decision{&fallback.Plan{To: config.ModePglogical}, cfg, l, n}
	d.Table(l.Region(cfg))
	d.extension()
	d.node()
	return d.Plan
}

// Decide works out the switch to pglogical. It does no I/O.
func Decide(cfg *config.Config, l *Local, peers []*Peer, n Names) *fallback.Plan {
	d := &decision{&fallback.Plan{To: config.ModePglogical}, cfg, l, n}
	d.Begin(l.Region(cfg))
	d.extension()
	d.node()
	for _, p := range peers {
		d.subscribe(p)
	}
	if cfg.Applies() {
		if !l.Collector && cfg.Fallback.ServerLog == "" {
			d.Warn("conflicts_unread", "alter system set logging_collector = on; restart PostgreSQL; or set fallback.server_log to the file that its output goes into", "conflicts will be in the server's log only, and not in the audit log: the server does not collect its log")
		}
		d.Add(l.Reader, "run reads the conflicts in the server's log, and nothing else of it", readerSQL(l.Role.Name, l.Runtime))
	}
	d.Settle(l.Region(cfg))
	return d.Plan
}

// extension refuses a server on which pglogical cannot work, before anything is made.
func (d *decision) extension() {
	if !d.l.Role.Superuser {
		d.Refuse("no_superuser", "give postgres.admin_dsn of a superuser", "role %q is no superuser, and pglogical wants one for all that it does", d.l.Role.Name)
	}
	if !d.l.Available {
		d.Refuse("no_extension", fmt.Sprintf("install it: apt-get install postgresql-%d-pglogical", d.l.System.Version/10000), "the extension pglogical is not installed on this server")
		return
	}
	if !d.l.Loaded {
		libraries := "pglogical"
		if d.l.Preload != "" {
			libraries = d.l.Preload + ", pglogical"
		}
		d.Refuse("not_preloaded", fmt.Sprintf("alter system set shared_preload_libraries = %s; restart PostgreSQL", libraries), "shared_preload_libraries does not name pglogical")
	}
	newer, why := resolution(d.cfg)
	if d.cfg.Publishes() && d.cfg.Applies() && !d.l.CommitTimestamps {
		d.Refuse("no_commit_timestamps", "alter system set track_commit_timestamp = on; restart PostgreSQL", "track_commit_timestamp is off, and the newer commit cannot be told without it")
	}
	if need := 3 + len(d.cfg.Peers); d.l.Workers < need {
		d.Refuse("too_few_workers", fmt.Sprintf("alter system set max_worker_processes = %d; restart PostgreSQL", need+8), "max_worker_processes is %d here: pglogical needs %d at least", d.l.Workers, need)
	}
	d.Add(d.l.Extension, "the extension", "create extension if not exists pglogical")
	if d.l.Runtime != d.l.Role.Name {
		to := pg.Quote(d.l.Runtime)
		d.Add(d.l.Granted, "run reads how it goes", "grant usage on schema pglogical to "+to+"; grant select on all tables in schema pglogical to "+to)
	}
	if d.cfg.Applies() {
		d.Add(d.l.Resolution == newer, why, "alter database "+pg.Quote(d.l.System.Database)+" set pglogical.conflict_resolution = "+pg.Literal(newer))
	}
}

// node makes this region's node, and its replication set with the tables one by one.
func (d *decision) node() {
	name, dsn := d.n.Node, d.n.NodeDSN
	if name == "" {
		name = d.cfg.Region
	}
	if dsn.IsZero() {
		dsn = d.cfg.Postgres.DSN
	}
	if d.l.Node != "" && d.n.Node != "" && d.l.Node != d.n.Node {
		d.Refuse("node_differs", "leave --node-name out, or drop that node", "this database is node %q already, and a database has one", d.l.Node)
	}
	sql := func(dsn string) string {
		return fmt.Sprintf("select pglogical.create_node(node_name := %s, dsn := %s)", pg.Literal(name), pg.Literal(dsn))
	}
	d.Statements = append(d.Statements, fallback.Statement{SQL: sql(dsn.Reveal()), Shown: sql(dsn.String()), Secret: dsn,
		Why: "this database is a node of pglogical", Done: d.l.Node != ""})
	if !d.cfg.Publishes() {
		return
	}
	d.Add(d.l.Set, "what is published", fmt.Sprintf("select pglogical.create_replication_set(%s)", pg.Literal(Set)))
	changed := false
	if d.l.Publication == nil {
		d.Refuse("no_publication", "pgwaltz setup --config FILE", "there is no publication %q, which says what is published", d.cfg.Postgres.Publication)
		return
	}
	for _, sent := range d.l.Publication.Tables {
		t := d.table(sent.Name)
		if t == nil {
			continue
		}
		if len(t.PrimaryKey) == 0 {
			d.Refuse("no_primary_key", "add a primary key, or take the table out of the publication", "table %s has no primary key, and pglogical sends no updates and deletes without one", t.Ref())
			continue
		}
		if sent.RowFilter != "" {
			d.Refuse("row_filter", "take the filter or the table out of the publication", "table %s is published with a row filter, which mode pglogical does not know", t.Ref())
		}
		member := d.l.Members[sent.Name]
		changed = changed || !member
		d.Add(t.Identity == wal.IdentityDefault || member, "pglogical takes no table whose whole row is its identity", "alter table "+t.SQL()+" replica identity default")
		d.Add(member, t.Ref().String()+" is published", fmt.Sprintf("select pglogical.replication_set_add_table(set_name := %s, relation := %s, synchronize_data := %t)",
			pg.Literal(Set), pg.Literal(t.SQL()), d.l.Slots > 0 && d.cfg.Copy.Mode == config.CopyAuto))
	}
	d.Statements = append(d.Statements, fallback.Statement{Do: notePrepared(d.cfg.Region), Shown: fallback.PreparedSQL(d.cfg.Region),
		Why: "from here on all that commits can be read with the set", Done: !changed && d.l.Prepared != 0})
}

func (d *decision) table(name wal.RelationName) *pg.Table {
	for _, t := range d.l.Tables {
		if t.Ref() == name {
			return t
		}
	}
	return nil
}

// subscribe plans the subscription to one peer.
func (d *decision) subscribe(p *Peer) {
	if !native.RefusePeer(d.Plan, d.cfg, d.l.Local, p.Peer) {
		return
	}
	if p.Node == "" || len(p.Members) == 0 {
		d.Refuse("peer_not_prepared", "at region "+p.Region+": pgwaltz mode switch --prepare pglogical", "peer %s has no node or no replication set of pglogical yet", p.Region)
		return
	}
	d.tables(p)
	if p.Parked > 0 {
		d.Warn("parked", "pgwaltz parked list", "%d changes of peer %s are set aside; they stay so until the stream is back", p.Parked, p.Region)
	}
	switch off := d.cfg.Copy.Mode != config.CopyAuto; {
	case p.Checkpoint == nil || d.cfg.Publishes() && off:
		d.fresh(p)
	case d.cfg.Publishes():
		d.Refuse("standstill", "stop all writes, let the sidecars come in step and stop them, see that pgwaltz mode compare finds both sides equal, set copy.mode: off for the switch, and let writes in again behind it",
			"both regions write, and rows that the stream brought from %s carry the time at which they were applied: pglogical would take some for newer than later changes of theirs", p.Region)
	default:
		d.handOver(p)
	}
}

// tables holds what comes against the tables here.
func (d *decision) tables(p *Peer) {
	for _, sent := range p.Publication.Tables {
		if !p.Members[sent.Name] {
			continue
		}
		t := d.table(sent.Name)
		if t == nil {
			d.Refuse("table_missing", "create it, or take it out of the peer's publication", "peer %s sends table %s, which is not here: the subscription would stop at it", p.Region, sent.Name)
			continue
		}
		for _, c := range sent.Columns {
			if t.Column(c) == nil {
				d.Refuse("column_missing", "add the column", "peer %s sends column %q of table %s, which is not here: the subscription would stop at it", p.Region, c, sent.Name)
			}
		}
		if len(t.PrimaryKey) == 0 {
			d.Refuse("no_primary_key", "add a primary key", "table %s has no primary key here: pglogical finds no row of it", sent.Name)
		}
	}
}

func (d *decision) name(p *Peer) string {
	switch {
	case p.Sub != nil:
		return p.Sub.Name
	case d.n.Subscription != "":
		return d.n.Subscription
	}
	return native.Name(d.cfg.Cluster, p.Region)
}

// create makes the subscription. before and behind it stands what makes it wait for its slot.
func (d *decision) create(p *Peer, before, behind, why string, copyRows bool) {
	sql := func(dsn string) string {
		return fmt.Sprintf("%sselect pglogical.create_subscription(subscription_name := %s, provider_dsn := %s, replication_sets := array[%s], synchronize_structure := false, synchronize_data := %t, forward_origins := '{}')%s",
			before, pg.Literal(d.name(p)), pg.Literal(dsn), pg.Literal(Set), copyRows, behind)
	}
	d.Statements = append(d.Statements, fallback.Statement{SQL: sql(p.DSN.Reveal()), Shown: sql(p.DSN.String()), Secret: p.DSN, Why: why, Done: p.Sub != nil})
}

// fresh subscribes where the stream never was.
func (d *decision) fresh(p *Peer) {
	copyRows := d.cfg.Copy.Mode == config.CopyAuto
	if copyRows && p.Sub == nil {
		for _, t := range p.Publication.Tables {
			if p.Members[t.Name] && d.l.Filled[t.Name] {
				d.Refuse("table_not_empty", "truncate it; or set copy.mode: off where both sides are equal already; or begin in mode stream, whose copy merges",
					"table %s has rows here, and the copy of pglogical would stop at the first key that both have", t.Name)
			}
		}
	}
	d.create(p, "", "", "what "+p.Region+" commits comes here, but not what it has from others", copyRows)
	d.enable(p)
}

func (d *decision) enable(p *Peer) {
	d.Add(p.Sub != nil && p.Sub.Enabled, "from here on the server applies what "+p.Region+" commits", fmt.Sprintf("select pglogical.alter_subscription_enable(%s, true)", pg.Literal(d.name(p))))
	if p.Sub == nil && p.Checkpoint == nil { // it is born enabled
		d.Statements[len(d.Statements)-1].Done = true
	}
}

// handOver subscribes from where the stream was applied.
func (d *decision) handOver(p *Peer) {
	cp, name := p.Checkpoint, pg.Literal(d.name(p))
	fresh := p.Sub == nil || !p.Sub.Enabled && p.Sub.Progress < cp.EndLSN
	native.RefuseSlot(d.Plan, p.Peer, fresh, false)
	if fresh && (p.Prepared == 0 || cp.EndLSN < p.Prepared) {
		d.Refuse("not_prepared", "at region "+p.Region+", with the sidecars running: pgwaltz mode switch --prepare pglogical; wait until a row that is written behind that is here; then stop them and run this again",
			"pglogical can read what %s commits behind %s, and the stream is applied here up to %s", p.Region, p.Prepared, cp.EndLSN)
	}
	d.create(p, "begin; ", "; select pglogical.alter_subscription_disable("+name+`);
update pglogical.local_sync_status set sync_status = 'r' where sync_subid = (select sub_id from pglogical.subscription where sub_name = `+name+`);
select pg_catalog.pg_replication_origin_create(s.sub_slot_name::text) from pglogical.subscription s where s.sub_name = `+name+`
  and not exists (select from pg_catalog.pg_replication_origin o where o.roname = s.sub_slot_name::text); commit`,
		"what "+p.Region+" commits comes here, but not what it has from others; no worker sees it before its slot is there", false)
	d.Statements = append(d.Statements, fallback.Statement{
		Do: copySlot(p, d.name(p)), Done: p.OwnSlot != nil,
		Shown: fmt.Sprintf("-- at %s: select pg_copy_logical_replication_slot(%s, (the slot of subscription %s), false, 'pglogical_output')", p.Region, pg.Literal(p.SlotName), d.name(p)),
		Why:   "its slot begins where the stream's stands",
	})
	d.Add(p.Sub != nil && p.Sub.Progress >= cp.EndLSN, "it begins where the stream was applied: nothing is missing and nothing comes twice",
		fmt.Sprintf("select pg_catalog.pg_replication_origin_advance(sub_slot_name::text, %s) from pglogical.subscription where sub_name = %s", pg.Literal(cp.EndLSN.String()), name))
	d.enable(p)
}

// DecideStream works out the way back. resync asks for a copy of what the stream has not seen. It does no I/O.
func DecideStream(cfg *config.Config, l *Local, peers []*Peer, resync fallback.Statement) *fallback.Plan {
	d := &decision{Plan: &fallback.Plan{To: config.ModeStream}, cfg: cfg, l: l}
	d.Begin(l.Region(cfg))
	if l.Reader && l.Role.Superuser {
		d.Add(false, "nobody reads the server's log any more", "drop function "+readerName+"(text, bigint)")
	}
	for _, p := range peers {
		if p.Sub == nil {
			continue
		}
		name := pg.Literal(p.Sub.Name)
		native.Forget(d.Plan, p.Peer, p.Sub.Progress, cfg.Region)
		d.Add(!p.Sub.Enabled, "the server applies no more of what "+p.Region+" commits", "select pglogical.alter_subscription_disable("+name+", true)")
		switch {
		case native.RefuseWrong(d.Plan, p.Peer):
		case p.Err != nil:
			d.Refuse("peer_unread", "let this host reach the database of "+p.Region, "the stream's slot at peer %s cannot be put to where pglogical was applied: %v", p.Region, p.Err)
		case p.Slot != nil && p.OwnSlot != nil:
			if p.Slot.Active {
				d.Refuse("slot_in_use", "stop the sidecar of region "+p.Region, "slot %q of peer %s is read by process %d", p.SlotName, p.Region, p.Slot.ActivePID)
			}
			d.Statements = append(d.Statements, fallback.Statement{
				Do: moveSlot(p), Done: p.Slot.ConfirmedFlushLSN >= p.OwnSlot.ConfirmedFlushLSN,
				Shown: fmt.Sprintf("-- at %s: select pg_replication_slot_advance(%s, confirmed_flush_lsn) from pg_replication_slots where slot_name = %s", p.Region, pg.Literal(p.SlotName), pg.Literal(p.Sub.Slot)),
				Why:   "the stream goes on where pglogical was applied",
			})
		}
		d.Add(false, "the sidecar takes over", "select pglogical.drop_subscription("+name+")")
	}
	switched := l.Mode != nil && (l.Mode.Mode != config.ModeStream || !l.Mode.Settled)
	if cfg.Publishes() && (l.Set || l.Prepared != 0) {
		d.dropSet()
	}
	if cfg.Publishes() && switched {
		d.Statements = append(d.Statements, resync)
	}
	d.Settle(l.Region(cfg))
	return d.Plan
}

// dropSet gives the tables their identity back, once nobody reads the set.
func (d *decision) dropSet() {
	if d.l.Slots > 0 {
		d.Warn("set_is_read", "when the other regions are in mode stream: pgwaltz mode switch stream, again", "%d subscriptions of pglogical still read what this region publishes: its replication set stays", d.l.Slots)
		return
	}
	for _, t := range d.l.Tables {
		if d.l.Members[t.Ref()] && d.cfg.Table(t.Schema, t.Name).ReplicaIdentity == config.IdentityFull {
			d.Add(t.Identity == wal.IdentityFull, "the stream wants the whole old row of "+t.Ref().String(), "alter table "+t.SQL()+" replica identity full")
		}
	}
	d.Add(!d.l.Set, "nobody reads it any more", fmt.Sprintf("select pglogical.drop_replication_set(%s)", pg.Literal(Set)))
	d.Add(d.l.Prepared == 0, "the next switch prepares anew", fallback.UnpreparedSQL(d.cfg.Region))
}
