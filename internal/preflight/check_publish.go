package preflight

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/wal"
)

func checkPublishing(ctx context.Context, f *facts, fs *Findings) error {
	if !f.cfg.Publishes() {
		return nil
	}
	if f.runtime != nil && !f.runtime.Replication && !f.runtime.Superuser {
		fs.add(Error, "no_replication", "as a superuser: alter role "+pg.Quote(f.runtime.Name)+" replication",
			"role %q may not replicate (must be superuser or replication role)", f.runtime.Name)
	}
	checkPublication(f, fs)
	if f.slot == nil {
		fs.add(Error, "slot_missing", setupCommand, "slot %q does not exist", f.cfg.Postgres.Slot)
	} else {
		checkSlot(f, fs)
	}
	before := len(fs.Errors())
	if err := checkRoom(ctx, f, fs); err != nil {
		return err
	}
	if before == len(fs.Errors()) && !f.separate() && (f.slot == nil || !f.slot.Active) {
		if err := checkConnection(ctx, f, fs); err != nil {
			return err
		}
	}
	return checkRetention(ctx, f, fs)
}

// checkSlot is for a slot that exists.
func checkSlot(f *facts, fs *Findings) {
	s, name := f.slot, f.cfg.Postgres.Slot
	const other = "choose another name with postgres.slot: this slot belongs to somebody else"
	switch {
	case s.Type != "logical":
		fs.add(Error, "slot_type", other, "slot %q is a %s slot", name, s.Type)
	case s.Plugin != "pgoutput":
		fs.add(Error, "slot_plugin", other, "slot %q has plugin %s, and must have pgoutput", name, s.Plugin)
	case s.Database != f.sys.Database:
		fs.add(Error, "slot_database", other, "slot %q was not created in database %q but in %q", name, f.sys.Database, s.Database)
	case s.Lost():
		why := s.InvalidationReason
		if why == "" {
			why = "exceeded the maximum reserved size, max_slot_wal_keep_size"
		}
		fs.add(Error, "slot_lost", "pgwaltz resync --config FILE --recreate-slot",
			"slot %q is lost (%s): changes since are not in the WAL any more", name, why)
	case s.WALStatus == "unreserved":
		fs.add(Warning, "slot_unreserved", "let the sidecar catch up now, or raise max_slot_wal_keep_size", "slot %q may be lost at the next checkpoint", name)
	}
}

// checkRoom looks for a free slot, where ours does not exist yet, and for free walsenders.
func checkRoom(ctx context.Context, f *facts, fs *Findings) error {
	var slots, maxSlots, senders, maxSenders int
	err := f.conn.QueryRow(ctx, `select (select count(*) from pg_catalog.pg_replication_slots), pg_catalog.current_setting('max_replication_slots')::int,
  (select count(*) from pg_catalog.pg_stat_replication), pg_catalog.current_setting('max_wal_senders')::int`).
		Scan(&slots, &maxSlots, &senders, &maxSenders)
	if err != nil {
		return fmt.Errorf("read use of slots: %w", err)
	}
	if f.slot == nil && slots >= maxSlots {
		fs.add(Error, "no_free_slot", fmt.Sprintf("drop a slot that nobody needs, or alter system set max_replication_slots = %d and restart PostgreSQL", maxSlots+4),
			"all %d replication slots are in use (max_replication_slots)", maxSlots)
	}
	if (f.slot == nil || !f.slot.Active) && senders >= maxSenders {
		fs.add(Error, "no_free_walsender", fmt.Sprintf("alter system set max_wal_senders = %d and restart PostgreSQL", maxSenders+4),
			"all %d walsenders are in use (max_wal_senders)", maxSenders)
	}
	return nil
}

// checkConnection opens a replication connection, which is the only proof that it can be had.
// A server that refuses is a finding; one that is away in this moment is an error.
func checkConnection(ctx context.Context, f *facts, fs *Findings) error {
	conn, err := pg.ConnectReplication(ctx, f.cfg.Postgres.Fresh().Reveal(), pg.Options{Region: f.cfg.Region, Role: "check"})
	if err == nil {
		_ = conn.Close(ctx) // it has proved what it could
		return nil
	}
	code := pg.Code(err)
	switch {
	case code == "28P01": // the session that asks came in: the password has changed since
		return err
	case code == "" || pg.Disconnected(err) && code != "08004" && code != "08P01":
		return err
	case code == "42501" && f.runtime != nil && !f.runtime.Replication && !f.runtime.Superuser:
		return nil // said already
	}
	remedy := "check pg_hba.conf"
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		remedy = h.Hint()
	}
	fs.add(Error, "replication_connection", remedy, "no replication connection can be had: %v", err)
	return nil
}

// checkRetention looks at the settings that may take the WAL away from a slot, or never do.
func checkRetention(ctx context.Context, f *facts, fs *Findings) error {
	keep, err := pg.Setting(ctx, f.conn, "max_slot_wal_keep_size")
	if err != nil {
		return err
	}
	var mb int64
	if err := f.conn.QueryRow(ctx, `select setting::int8 from pg_catalog.pg_settings where name = 'max_slot_wal_keep_size'`).Scan(&mb); err != nil {
		return fmt.Errorf("read max_slot_wal_keep_size: %w", err)
	}
	hold := int64(f.cfg.Publish.WALHoldMax)
	switch {
	case mb < 0 && f.cfg.Postgres.UnboundedWAL:
	case mb < 0:
		fs.add(Error, "wal_unbounded", fmt.Sprintf("alter system set max_slot_wal_keep_size = '%dMB', then select pg_reload_conf()", max(2*hold>>20, 1024))+"; or, if that is meant, set postgres.unbounded_wal: true",
			"max_slot_wal_keep_size is not set: while the sidecar is down the WAL grows until the disk is full")
	case mb<<20 < hold:
		fs.add(Warning, "wal_hold", "lower publish.wal_hold_max below it, or raise max_slot_wal_keep_size",
			"max_slot_wal_keep_size (%s) is below publish.wal_hold_max (%s): the server may drop the WAL while peers are away", keep, f.cfg.Publish.WALHoldMax)
	}
	idle, err := pg.Setting(ctx, f.conn, "idle_replication_slot_timeout")
	if err != nil {
		return err
	}
	if idle != "" && idle != "0" {
		fs.add(Warning, "slot_idle_timeout", "alter system set idle_replication_slot_timeout = 0, then select pg_reload_conf()",
			"idle_replication_slot_timeout is %s: a sidecar that is down for longer loses its slot", idle)
	}
	return nil
}

func checkPublication(f *facts, fs *Findings) {
	name := f.cfg.Postgres.Publication
	p := f.pub
	if p == nil {
		fs.add(Error, "publication_missing", setupCommand, "publication %q does not exist", name)
		return
	}
	var off []string
	for _, k := range []struct {
		name string
		on   bool
	}{{"insert", p.Insert}, {"update", p.Update}, {"delete", p.Delete}} {
		if !k.on {
			off = append(off, k.name)
		}
	}
	if len(off) > 0 {
		fs.add(Error, "publication_kinds", "alter publication "+pg.Quote(name)+" set (publish = 'insert, update, delete, truncate')",
			"publication %q does not publish %s", name, strings.Join(off, " and "))
	}
	for _, t := range f.sel.Tables {
		if !p.Has(t.Ref()) && !(t.Kind == 'p' && !p.ViaRoot) {
			// What the application made since is no mistake of the configuration.
			severity := Warning
			if named(f.cfg, t) {
				severity = Error
			}
			fs.addTable(t.Ref(), severity, "publication_tables", setupCommand+"  (it runs: alter publication "+pg.Quote(name)+" add table "+tableList([]*pg.Table{t})+")",
				fmt.Sprintf("publication %q lacks them, and the configuration selects them", name),
				"publication %q lacks a table that the configuration selects: %s", name, t.Ref())
		}
		if t.Kind == 'p' && !p.ViaRoot {
			fs.add(Warning, "publication_partitions", "alter publication "+pg.Quote(name)+" set (publish_via_partition_root = true)",
				"publication %q names the partitions of %s: both regions must have the same ones", name, t.Ref())
		}
	}
	for _, pt := range p.Tables {
		checkPublished(f, pt, fs)
	}
}

// named reports whether the configuration selects the table by its very name.
func named(cfg *config.Config, t *pg.Table) bool {
	return slices.ContainsFunc(cfg.Tables.Include, func(p config.Pattern) bool { return p.Exact() && p.Match(t.Schema, t.Name) })
}

// checkPublished looks at one table as the publication has it.
func checkPublished(f *facts, pt pg.PublishedTable, fs *Findings) {
	name := f.cfg.Postgres.Publication
	out := "alter publication " + pg.Quote(name) + " drop table " + pg.QuoteTable(pt.Name.Schema, pt.Name.Name)
	i := slices.IndexFunc(f.tables, func(t *pg.Table) bool { return t.Ref() == pt.Name })
	if i < 0 {
		return // a table of a system schema, or gone meanwhile
	}
	t := f.tables[i]
	if !t.HasIdentity() && (f.pub.Update || f.pub.Delete) {
		fs.add(Warning, "published_without_identity", out, "table %s is in publication %q and %s: the application's updates and deletes of it fail (55000)",
			pt.Name, name, noIdentity(t).Why)
	}
	if t.Identity == wal.IdentityFull && !f.pub.Generated && t.HasGenerated('s') && (f.pub.Update || f.pub.Delete) {
		fs.addTable(pt.Name, Error, "publication_generated", generatedRemedy(name), "", "publication %q leaves generated columns out: the application's updates and deletes of %s fail under replica identity FULL", name, pt.Name)
	}
	if !f.cfg.Selected(pt.Name.Schema, pt.Name.Name) && !t.Partition {
		if f.cfg.Excluded(pt.Name.Schema, pt.Name.Name) {
			fs.addTable(pt.Name, Warning, "published_not_selected", out, fmt.Sprintf("publication %q still has them, and tables.exclude leaves them out: their changes are read from the server and not sent", name),
				"publication %q still has table %s, which tables.exclude leaves out: its changes are read from the server and not sent", name, pt.Name)
			return
		}
		fs.addTable(pt.Name, Warning, "published_not_selected", out+"; or select it with tables.include", fmt.Sprintf("publication %q sends them, and the configuration does not select them", name),
			"publication %q sends table %s, which the configuration does not select", name, pt.Name)
	}
	if pt.RowFilter != "" {
		fs.add(Warning, "row_filter", "remove the filter", "publication %q filters rows of %s: a row that leaves the filter arrives as a delete", name, pt.Name)
	}
	if pt.ColumnList {
		for _, c := range append(stampColumns(f.cfg, t), t.PrimaryKey...) {
			if !slices.Contains(pt.Columns, c) {
				fs.addTable(pt.Name, Error, "column_list", "add the column to the list", "", "the column list of %s in publication %q leaves out %q, which decides conflicts", pt.Name, name, c)
			}
		}
	}
}

// checkTables looks at the selected tables themselves.
func checkTables(f *facts, fs *Findings) {
	for _, t := range f.sel.Tables {
		checkStamps(f, t, fs)
		if !f.cfg.Publishes() {
			continue
		}
		if wantsFull(f.cfg, t) {
			fs.addTable(t.Ref(), Warning, "identity", "alter table "+t.SQL()+" replica identity full; or replica_identity: keep",
				"they have not the replica identity FULL: a delete wins over every concurrent update",
				"table %s has not the replica identity FULL: a delete of it wins over every concurrent update", t.Ref())
		}
		if t.HasGenerated('v') && f.cfg.Table(t.Schema, t.Name).ReplicaIdentity == config.IdentityFull {
			fs.add(Warning, "identity", "make the column stored", "table %s has a virtual generated column, so it cannot have the replica identity FULL: a delete of it wins over every concurrent update", t.Ref())
		}
		for _, leaf := range f.sel.Partitions[t.Ref()] {
			if leaf.Kind == 'r' && leaf.Unlogged {
				fs.add(Warning, "partition_unlogged", "alter table "+leaf.SQL()+" set logged", "partition %s of %s is unlogged, so its changes are not in the WAL", leaf.Ref(), t.Ref())
			}
			if leaf.Kind == 'r' && leaf.Identity != t.Identity && t.Identity != wal.IdentityIndex {
				fs.addTable(t.Ref(), Error, "partition_identity", setupCommand, "", "partition %s has another replica identity than %s", leaf.Ref(), t.Ref())
			}
		}
	}
}

func checkStamps(f *facts, t *pg.Table, fs *Findings) {
	s := f.cfg.Table(t.Schema, t.Name)
	version, updated := t.Column(s.Version), t.Column(s.UpdatedAt)
	for _, c := range []struct {
		column         *pg.Column
		key, name, own string
	}{{version, "version", s.Version, f.cfg.Stamps.Version}, {updated, "updated_at", s.UpdatedAt, f.cfg.Stamps.UpdatedAt}} {
		if c.column == nil && c.name != "" && c.name != c.own {
			fs.add(Warning, "stamp_missing", "correct the rule for the table, or set "+c.key+": \"\" in it",
				"a rule names %s as %s of %s, which has no such column", strconv.Quote(c.name), c.key, t.Ref())
		}
		if c.column != nil && c.column.Generated != 0 {
			fs.add(Warning, "stamp_generated", "name another column, or set "+c.key+": \"\" in a rule for the table",
				"column %s of %s is generated, so the WAL does not hold it: rows are compared without it", c.name, t.Ref())
		}
	}
	if version == nil && updated == nil {
		fs.addTable(t.Ref(), Warning, "no_stamps", "add the columns, or name others in tables.rules",
			"they have neither of the columns that order writes (version, updated_at): their rows are compared by commit time",
			"table %s has neither of the columns that order writes (version, updated_at): its rows are compared by commit time", t.Ref())
		return
	}
	if version != nil {
		if integerType(version.BaseOID) && version.BaseOID == wal.OIDNumeric && version.BaseMod != -1 && (version.BaseMod-4)&0x7ff != 0 {
			fs.add(Warning, "stamp_fraction", "alter table "+t.SQL()+" alter column "+pg.Quote(version.Name)+" type numeric("+strconv.Itoa(int(version.BaseMod-4)>>16)+",0)",
				"column %s of %s has a fraction, and versions that differ in it alone count as equal", version.Name, t.Ref())
		}
		if !integerType(version.BaseOID) {
			fs.addTable(t.Ref(), Error, "stamp_type", noVersionRule(t), "", "column %s of %s is of type %s, and a version is an integer: it is something else than the version of the row",
				version.Name, t.Ref(), version.TypeName)
		}
		if why := notAVersion(t, version); why != "" && integerType(version.BaseOID) {
			fs.addTable(t.Ref(), Warning, "not_a_version", noVersionRule(t), "",
				"column %s of %s does not look like the version of the row (%s), and a row with a higher one would win every conflict", version.Name, t.Ref(), why)
		} else if integerType(version.BaseOID) && !t.HasUpdateTrigger() && f.cfg.Publishes() {
			fs.addTable(t.Ref(), Warning, "no_bump_trigger", "add a BEFORE UPDATE trigger that raises it, or make sure that the application does; where it is something else: "+noVersionRule(t),
				fmt.Sprintf("nothing raises %q on update: such a write is told apart by a counter of its own", version.Name),
				"nothing raises %s of %s on update: such a write is told apart by a counter of its own", version.Name, t.Ref())
		}
	}
	if updated != nil && !timeType(updated.BaseOID) {
		fs.addTable(t.Ref(), Error, "stamp_type", fmt.Sprintf("name another column, or put a rule for the table under tables.rules: - {match: %s, updated_at: \"\"}", t.Ref()), "", "column %s of %s is of type %s, and must be a time",
			updated.Name, t.Ref(), updated.TypeName)
	}
	for _, c := range []*pg.Column{version, updated} {
		if c != nil && !c.NotNull {
			fs.addTable(t.Ref(), Warning, "stamp_nullable", fmt.Sprintf("alter table %s alter column %s set not null", t.SQL(), pg.Quote(c.Name)),
				fmt.Sprintf("column %q may be NULL, which loses against every value", c.Name),
				"column %s of %s may be NULL, which loses against every value", c.Name, t.Ref())
		}
	}
	if f.cfg.Applies() && f.privileges() == config.PrivilegesReplica {
		if names := t.AlwaysTriggers(); len(names) > 0 {
			fs.add(Warning, "always_trigger", enableTriggers(t, names),
				"trigger %s of %s fires for applied rows too; where it changes a stamp the table is parked", strings.Join(names, ", "), t.Ref())
		}
	}
}

// noVersionRule is the rule for a table whose column is no version of the row.
func noVersionRule(t *pg.Table) string {
	return fmt.Sprintf("put a rule for the table under tables.rules: - {match: %s, version: \"\"}", t.Ref())
}

// notAVersion says why an integer column called like a version is probably something else, such
// as the version of a protocol or of a document; "" when nothing speaks against it.
func notAVersion(t *pg.Table, c *pg.Column) string {
	d, _, _ := strings.Cut(c.Default, "::")
	switch d = strings.Trim(d, "()'\" "); {
	case slices.Contains(t.PrimaryKey, c.Name):
		return "it is part of the key"
	case t.HasUpdateTrigger():
		return ""
	case d != "" && d != "0" && d != "1" && !strings.EqualFold(d, "null"):
		return "its default is " + d
	}
	return ""
}

func integerType(oid uint32) bool { return oid == 20 || oid == 21 || oid == 23 || oid == 1700 }

func timeType(oid uint32) bool {
	return oid == wal.OIDTimestamptz || oid == wal.OIDTimestamp || oid == wal.OIDDate
}
