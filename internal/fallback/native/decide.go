package native

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/node"
	"github.com/pgwaltz/pgwaltz/wal"
)

// ownOnly is the version from which on a subscription can ask for what the publisher's own sessions wrote. Both servers
// must have it.
const ownOnly = 160000

// Decide works out the switch to native, from what Look has found. It does no I/O.
func Decide(cfg *config.Config, l *Local, peers []*Peer) *fallback.Plan {
	d := &decision{cfg: cfg, l: l, Plan: &fallback.Plan{To: config.ModeNative}}
	d.Begin(l.Region(cfg))
	for _, p := range peers {
		d.subscribe(p)
	}
	if d.l.Workers < len(peers) || d.l.Origins < len(peers) {
		n := len(peers)
		d.Refuse("too_few_workers", fmt.Sprintf("alter system set max_logical_replication_workers = %d; alter system set max_replication_slots = %d; restart PostgreSQL", max(d.l.Workers, 2*n+2), max(d.l.Origins, n+4)),
			"max_logical_replication_workers is %d and max_replication_slots is %d here: too few for %d subscriptions", d.l.Workers, d.l.Origins, n)
	}
	d.Settle(l.Region(cfg))
	return d.Plan
}

type decision struct {
	*fallback.Plan
	cfg *config.Config
	l   *Local
}

// subscribe plans the subscription to one peer.
func (d *decision) subscribe(p *Peer) {
	if !d.l.MayCreate {
		remedy := "give postgres.admin_dsn of a superuser"
		if d.l.System.Version >= ownOnly {
			remedy = fmt.Sprintf("as a superuser: grant pg_create_subscription to %[1]s; grant execute on function pg_catalog.pg_replication_origin_advance(text, pg_lsn), pg_catalog.pg_show_replication_origin_status() to %[1]s; grant select on pg_catalog.pg_replication_origin_status to %[1]s", pg.Quote(d.l.Role.Name))
		}
		d.Refuse("no_subscription_right", remedy, "role %q may not create subscriptions", d.l.Role.Name)
	}
	if !RefusePeer(d.Plan, d.cfg, d.l, p) {
		return
	}
	d.tables(p)
	d.loops(p)
	RefuseSlot(d.Plan, p, p.Sub == nil || !p.Sub.Enabled && p.Sub.Progress == 0, p.Sub != nil && p.Sub.Enabled)
	if p.Parked > 0 {
		d.Warn("parked", "pgwaltz parked list", "%d changes of peer %s are set aside; they stay so until the stream is back", p.Parked, p.Region)
	}
	d.statements(p)
}

// RefusePeer refuses a database that is not the peer's, or does not let its changes be read. false: nothing is known of it.
func RefusePeer(d *fallback.Plan, cfg *config.Config, l *Local, p *Peer) bool {
	if p.System.SystemID != 0 && p.System.SystemID == l.System.SystemID && p.System.Database == l.System.Database {
		d.Refuse("same_database", "correct peers[].dsn", "the database of peer %s is this one", p.Region)
		return false
	}
	if RefuseWrong(d, p) {
		return false
	}
	if p.Err != nil {
		d.Refuse("peer_unread", "correct peers[].dsn, or let this host in at the peer (pg_hba.conf)", "the database of peer %s cannot be read: %v", p.Region, p.Err)
		return false
	}
	if !p.Replication {
		d.Refuse("no_replication", "at the peer, as a superuser: alter role "+pg.Quote(p.DSN.User())+" replication", "role %q of peers[].dsn may not read a slot at peer %s", p.DSN.User(), p.Region)
	}
	if p.Publication == nil {
		d.Refuse("no_publication", "pgwaltz setup at the peer", "peer %s has no publication %q", p.Region, cfg.Postgres.Publication)
		return false
	}
	if err := p.Place.Is(node.Row{Region: p.Region, Cluster: cfg.Cluster}, peerSetting); err != nil {
		refuseWrong(d, err)
		return false
	}
	return true
}

// RefuseWrong refuses a database that says it is another one than the peer's, and reports whether it does.
func RefuseWrong(d *fallback.Plan, p *Peer) bool {
	return refuseWrong(d, p.Err)
}

func refuseWrong(d *fallback.Plan, err error) bool {
	var wrong *node.WrongError
	if !errors.As(err, &wrong) {
		return false
	}
	d.Refuse("wrong_node", wrong.Remedy, "%s", wrong.What)
	return true
}

// tables holds what comes against the tables here.
func (d *decision) tables(p *Peer) {
	here := map[wal.RelationName]*pg.Table{}
	for _, t := range d.l.Tables {
		here[t.Ref()] = t
	}
	for _, sent := range p.Publication.Tables {
		t := here[sent.Name]
		if t == nil {
			d.Refuse("table_missing", "create it, or take it out of the peer's publication", "peer %s sends table %s, which is not here: the subscription would stop at it", p.Region, sent.Name)
			continue
		}
		for _, c := range sent.Columns {
			if t.Column(c) == nil {
				d.Refuse("column_missing", "add the column", "peer %s sends column %q of table %s, which is not here: the subscription would stop at it", p.Region, c, sent.Name)
			}
		}
		switch {
		case t.Identity != wal.IdentityIndex || slices.Equal(t.IdentityIndex, t.PrimaryKey):
		case len(t.PrimaryKey) == 0:
			d.Warn("identity_index", "add a primary key", "rows of table %s are found by its identity index (%s): a row that differs there is left out silently", sent.Name, strings.Join(t.IdentityIndex, ", "))
		default:
			d.Add(false, fmt.Sprintf("rows of %s are found by the primary key, and not by (%s): a row of another version would be left out", sent.Name, strings.Join(t.IdentityIndex, ", ")),
				"alter table "+t.SQL()+" replica identity full")
		}
		if !d.cfg.Selected(sent.Name.Schema, sent.Name.Name) {
			d.Warn("not_selected", "take it out of the peer's publication", "table %s is not selected here, and a subscription takes all that peer %s publishes", sent.Name, p.Region)
		}
	}
}

// loops refuses what would come back for ever.
func (d *decision) loops(p *Peer) {
	if d.ownOnly(p) {
		return
	}
	older := min(d.l.System.Version, p.System.Version) / 10000
	for _, t := range p.Publication.Tables {
		switch {
		case d.cfg.Publishes() && d.l.Publication != nil && d.l.Publication.Has(t.Name):
			d.Refuse("loop", "set direction: apply in one of the regions and direction: publish in the other, or use mode stream or pglogical",
				"both regions publish table %s, and PostgreSQL %d sends on what it has applied: each change would come back for ever (origin = none needs 16 on both sides)", t.Name, older)
			return
		case p.Received[t.Name]:
			d.Refuse("loop", "at the peer, drop the other subscription or take the table out of the publication",
				"peer %s receives table %s by a subscription, and PostgreSQL %d would send that on to this region", p.Region, t.Name, older)
			return
		}
	}
}

// ownOnly reports whether the subscription can leave out what the peer has not written itself.
func (d *decision) ownOnly(p *Peer) bool {
	return d.l.System.Version >= ownOnly && p.System.Version >= ownOnly
}

// RefuseSlot refuses a slot with which a change could be missing, or come twice. fresh is a subscription that has read nothing yet,
// or none; reads is one that is enabled.
func RefuseSlot(d *fallback.Plan, p *Peer, fresh, reads bool) {
	s, cp := p.Slot, p.Checkpoint
	switch {
	case s == nil && (cp != nil || p.Sub != nil):
		d.Refuse("slot_missing", "in mode stream: pgwaltz resync at the peer", "slot %q of peer %s is gone: what was written since it was read is not known", p.SlotName, p.Region)
	case s == nil:
	case s.Lost():
		d.Refuse("slot_lost", "in mode stream: pgwaltz resync --recreate-slot at the peer", "slot %q of peer %s is lost: the server removed WAL that it needed", p.SlotName, p.Region)
	case s.Plugin != "pgoutput" || s.Database != p.System.Database:
		d.Refuse("wrong_slot", "correct peers[].dsn", "slot %q of peer %s belongs to plugin %q and database %q", p.SlotName, p.Region, s.Plugin, s.Database)
	case s.Active && !reads:
		d.Refuse("slot_in_use", fmt.Sprintf("stop the sidecar of region %s, and run pgwaltz mode switch %s there", p.Region, d.To), "slot %q of peer %s is read by process %d", p.SlotName, p.Region, s.ActivePID)
	}
	if cp == nil || !fresh || s == nil {
		return
	}
	switch {
	case cp.Epoch.SystemID != p.System.SystemID || cp.Epoch.Timeline != p.System.Timeline:
		d.Refuse("other_wal", "in mode stream: pgwaltz resync at the peer, and wait until it is done", "peer %s has another WAL than the one that was applied here (system or timeline differ)", p.Region)
	case s.ConfirmedFlushLSN > cp.EndLSN:
		d.Refuse("only_in_stream", "run the sidecars until this region is in step, then stop the one of "+p.Region+" first",
			"slot %q of peer %s is confirmed at %s, and here is applied up to %s: only the stream has what lies between", p.SlotName, p.Region, s.ConfirmedFlushLSN, cp.EndLSN)
	}
	switch {
	case p.Copying > 0 && d.By != "": // the way back copies all tables
		d.Warn("copy_open", "wait for the way back", "%d tables of peer %s are not copied yet by the stream: what was not copied is missing here until then", p.Copying, p.Region)
	case p.Copying > 0:
		d.Refuse("copy_open", "run the sidecars until pgwaltz status shows no copy", "%d tables of peer %s are not copied yet by the stream", p.Copying, p.Region)
	}
}

// statements are those of one subscription.
func (d *decision) statements(p *Peer) {
	name := pg.Quote(Name(d.cfg.Cluster, p.Region))
	created := p.Sub != nil
	copyRows := p.Checkpoint == nil && d.cfg.Copy.Mode == config.CopyAuto
	if copyRows {
		d.empty(p)
	}
	sql := fmt.Sprintf("create subscription %s connection %%s publication %s with (enabled = false, create_slot = %t, slot_name = %s, copy_data = %t, streaming = on, binary = false%s)",
		name, pg.Quote(d.cfg.Postgres.Publication), p.Slot == nil, pg.Quote(p.SlotName), copyRows, d.originOption(p))
	d.Statements = append(d.Statements, fallback.Statement{
		SQL: fmt.Sprintf(sql, pg.Literal(p.DSN.Reveal())), Shown: fmt.Sprintf(sql, pg.Literal(p.DSN.String())), Secret: p.DSN,
		Why: "what " + p.Region + " commits comes through its slot " + p.SlotName, Done: created,
	})
	if p.Sub != nil && p.Sub.Slot == "" {
		d.Add(false, "it takes the slot again", fmt.Sprintf("alter subscription %s set (slot_name = %s)", name, pg.Quote(p.SlotName)))
	}
	if cp := p.Checkpoint; cp != nil {
		d.Add(created && (p.Sub.Enabled || p.Sub.Progress >= cp.EndLSN), "it begins where the stream was applied: nothing is missing and nothing comes twice",
			fmt.Sprintf("select pg_catalog.pg_replication_origin_advance('pg_' || s.oid, %s) from pg_catalog.pg_subscription s where s.subname = %s", pg.Literal(cp.EndLSN.String()), pg.Literal(Name(d.cfg.Cluster, p.Region))))
	}
	d.Add(created && p.Sub.Enabled, "from here on the server applies what "+p.Region+" commits", "alter subscription "+name+" enable")
	if created && !sameTables(p) {
		d.Add(false, "tables that are new in the publication, or not in it any more", fmt.Sprintf("alter subscription %s refresh publication with (copy_data = %t)", name, d.cfg.Copy.Mode == config.CopyAuto))
		if d.cfg.Copy.Mode == config.CopyAuto {
			d.empty(p)
		}
	}
}

func (d *decision) originOption(p *Peer) string {
	if d.ownOnly(p) {
		return ", origin = none"
	}
	return ""
}

// empty refuses the server's copy into tables that have rows: it would stop at the first key that is there.
func (d *decision) empty(p *Peer) {
	for _, t := range p.Publication.Tables {
		if p.Sub != nil {
			if _, known := p.Sub.Tables[t.Name]; known {
				continue
			}
		}
		if d.l.Filled[t.Name] {
			d.Refuse("table_not_empty", "truncate it; or set copy.mode: off where both sides are equal already; or begin in mode stream, whose copy merges",
				"table %s has rows here, and the server's copy would stop at the first key that both have", t.Name)
		}
	}
}

// sameTables reports whether the subscription has the tables of the publication.
func sameTables(p *Peer) bool {
	for _, t := range p.Publication.Tables {
		if _, ok := p.Sub.Tables[t.Name]; !ok {
			return false
		}
	}
	return len(p.Sub.Tables) == len(p.Publication.Tables)
}

// DecideStream works out the way back: the subscriptions let go of the slots, and resync asks for a copy of what
// the stream has not seen. It does no I/O.
func DecideStream(cfg *config.Config, l *Local, peers []*Peer, resync fallback.Statement) *fallback.Plan {
	d := &decision{cfg: cfg, l: l, Plan: &fallback.Plan{To: config.ModeStream}}
	d.Begin(l.Region(cfg))
	for _, p := range peers {
		if p.Sub == nil {
			continue
		}
		RefuseWrong(d.Plan, p) // what was read of the stream there is another region's
		name := pg.Quote(Name(cfg.Cluster, p.Region))
		Forget(d.Plan, p, p.Sub.Progress, cfg.Region)
		d.Add(!p.Sub.Enabled, "the server applies no more of what "+p.Region+" commits", "alter subscription "+name+" disable")
		d.Add(p.Sub.Slot == "", "the slot stays at "+p.Region+", where its sidecar goes on reading", "alter subscription "+name+" set (slot_name = none)")
		d.Add(false, "the sidecar takes over", "drop subscription "+name)
	}
	switched := l.Mode != nil && (l.Mode.Mode != config.ModeStream || !l.Mode.Settled)
	if cfg.Publishes() && switched {
		d.Statements = append(d.Statements, resync)
	}
	d.Settle(l.Region(cfg))
	return d.Plan
}
