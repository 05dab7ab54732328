package preflight

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
)

func checkApplying(ctx context.Context, f *facts, fs *Findings) error {
	if f.runtime == nil {
		return nil
	}
	for _, t := range f.sel.Tables {
		if err := checkTablePrivileges(ctx, f, t, fs); err != nil {
			return err
		}
	}
	if !f.cfg.Applies() {
		return nil
	}
	checkTriggers(f, fs)
	if err := checkRules(ctx, f, fs); err != nil {
		return err
	}
	return checkOrigins(ctx, f, fs)
}

func checkTablePrivileges(ctx context.Context, f *facts, t *pg.Table, fs *Findings) error {
	role := pg.Quote(f.runtime.Name)
	var usage bool
	if err := f.conn.QueryRow(ctx, `select pg_catalog.has_schema_privilege($1::text, $2::text, 'usage')`, f.runtime.Name, t.Schema).Scan(&usage); err != nil {
		return fmt.Errorf("read privileges on schema %q: %w", t.Schema, err)
	}
	if !usage {
		remedy := "grant usage on schema " + pg.Quote(t.Schema) + " to " + role
		fs.addTable(t.Ref(), Error, "table_privilege", remedy, fmt.Sprintf("role %q may not use their schema", f.runtime.Name),
			"role %q may not use schema %s of %s", f.runtime.Name, t.Schema, t.Ref())
	}
	missing, err := pg.TablePrivileges(ctx, f.conn, f.runtime.Name, t.OID, tablePrivileges(f.cfg))
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		fs.addTable(t.Ref(), Error, "table_privilege", fmt.Sprintf("grant %s on table %s to %s", strings.Join(missing, ", "), t.SQL(), role), "",
			"role %q lacks %s on %s", f.runtime.Name, strings.Join(missing, ", "), t.Ref())
	}
	if !t.RowSecurity || f.separate() {
		return nil
	}
	var active bool
	if err := f.conn.QueryRow(ctx, `select pg_catalog.row_security_active($1::int8::oid)`, int64(t.OID)).Scan(&active); err != nil {
		return fmt.Errorf("read row security of %s: %w", t.Ref(), err)
	}
	if active {
		fs.addTable(t.Ref(), Error, "row_security", "as a superuser: alter role "+role+" bypassrls", "", "row security hides rows of %s from role %q", t.Ref(), f.runtime.Name)
	}
	return nil
}

// checkTriggers makes sure that the application's triggers cannot change an applied row.
func checkTriggers(f *facts, fs *Findings) {
	grant := "as a superuser: grant set on parameter session_replication_role to " + pg.Quote(f.runtime.Name)
	if f.sys.Version < 150000 {
		grant = "as a superuser: alter role " + pg.Quote(f.runtime.Name) + " superuser"
	}
	checkLateTriggers(f, fs, grant)
	if f.runtime.SetReplicationRole && f.cfg.Apply.Privileges != config.PrivilegesRestorer {
		return
	}
	if f.cfg.Apply.Privileges == config.PrivilegesReplica {
		fs.add(Error, "no_replica_role", grant+"; or set apply.privileges: restorer", "role %q may not set session_replication_role", f.runtime.Name)
		return
	}
	for _, t := range f.sel.Tables {
		if !restored(f.cfg, t) {
			continue
		}
		if !slices.Equal(t.Restorer(), []string{f.runtime.Name}) {
			severity := Warning
			if t.HasRowTriggers() {
				severity = Error
			}
			fs.addTable(t.Ref(), severity, "no_restorer", setupCommand+"; or "+grant,
				fmt.Sprintf("role %q may not set session_replication_role, and they have no triggers of ours that keep applied rows", f.runtime.Name),
				"role %q may not set session_replication_role, and table %s has no triggers of ours that keep applied rows", f.runtime.Name, t.Ref())
		}
		if names := t.AfterRestorer(); len(names) > 0 {
			fs.add(Warning, "late_trigger", each(names, func(name string) string {
				return "alter trigger " + pg.Quote(name) + " on " + t.SQL() + " rename to " + pg.Quote(earlier(name))
			}),
				"trigger %s of %s runs after ours and may change applied rows", strings.Join(names, ", "), t.Ref())
		}
	}
}

// checkLateTriggers names AFTER triggers that run for applied rows. What they write is not sent.
func checkLateTriggers(f *facts, fs *Findings, grant string) {
	replica := f.privileges() == config.PrivilegesReplica
	for _, t := range f.sel.Tables {
		names := t.LateTriggers(replica)
		if len(names) == 0 {
			continue
		}
		remedy := "see that it writes nothing that is replicated; or " + grant
		if replica {
			remedy = enableTriggers(t, names)
		}
		fs.add(Warning, "after_trigger", remedy, "trigger %s of %s runs for applied rows too: what it writes elsewhere stays in this region, and a row that it changes again is parked",
			strings.Join(names, ", "), t.Ref())
	}
}

// enableTriggers lets triggers fire for the application's own writes alone.
func enableTriggers(t *pg.Table, names []string) string {
	return each(names, func(name string) string { return "alter table " + t.SQL() + " enable trigger " + pg.Quote(name) })
}

// each joins one statement for each name.
func each(names []string, statement func(string) string) string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = statement(name)
	}
	return strings.Join(all, "; ")
}

// earlier is a name for a trigger that has to fire before our restoring one.
func earlier(name string) string {
	const prefix, longest = "before_", 63
	name = prefix + name
	for len(name) > longest {
		_, n := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-n]
	}
	return name
}

// checkRules looks for rules that act on applied rows: instead of them, or beside them.
func checkRules(ctx context.Context, f *facts, fs *Findings) error {
	rows, err := f.conn.Query(ctx, `select n.nspname::text, c.relname::text, r.rulename::text, r.ev_enabled in ('R', 'A')
from pg_catalog.pg_rewrite r join pg_catalog.pg_class c on c.oid = r.ev_class join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and r.ev_type <> '1' and r.ev_enabled in (case when $1 then 'R' else 'O' end, 'A') order by 1, 2, 3`,
		f.privileges() == config.PrivilegesReplica)
	if err != nil {
		return fmt.Errorf("read rules: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var schema, table, rule string
		var always bool
		if err := rows.Scan(&schema, &table, &rule, &always); err != nil {
			return fmt.Errorf("read rules: %w", err)
		}
		if !slices.ContainsFunc(f.sel.Tables, func(t *pg.Table) bool { return t.Schema == schema && t.Name == table }) {
			continue
		}
		remedy := "alter table " + pg.QuoteTable(schema, table) + " enable rule " + pg.Quote(rule)
		if !always {
			remedy = "make a trigger of it; or apply as a role that may set session_replication_role"
		}
		fs.add(Warning, "rule", remedy, "rule %s of %s.%s acts on applied rows too: what it keeps from being stored is parked", rule, schema, table)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read rules: %w", err)
	}
	return nil
}

// checkOrigins looks for the mark that keeps applied rows from being sent back. Without it a
// message in the transaction does the same, at a price.
func checkOrigins(ctx context.Context, f *facts, fs *Findings) error {
	if !f.runtime.Origins {
		signatures, err := originSignatures(ctx, f.conn)
		if err != nil {
			return err
		}
		fs.add(Warning, "no_origins", "as a superuser: grant execute on function "+strings.Join(signatures, ", ")+" to "+pg.Quote(f.runtime.Name),
			"role %q may not use replication origins: transactions are marked with a message instead", f.runtime.Name)
		return nil
	}
	for _, peer := range f.cfg.PeerNames() {
		name := config.OriginName(f.cfg.Cluster, peer)
		var exists bool
		if err := f.conn.QueryRow(ctx, `select exists (select from pg_catalog.pg_replication_origin where roname = $1::text)`, name).Scan(&exists); err != nil {
			return fmt.Errorf("read replication origins: %w", err)
		}
		if !exists {
			fs.add(Warning, "no_origin", setupCommand, "replication origin %q does not exist: transactions are marked with a message instead", name)
		}
	}
	return nil
}

// checkNeighbours looks for another replication that feeds the same tables.
func checkNeighbours(ctx context.Context, f *facts, fs *Findings) error {
	if !f.cfg.Applies() {
		return nil
	}
	rows, err := f.conn.Query(ctx, `select s.subname::text, n.nspname::text, c.relname::text
from pg_catalog.pg_subscription s join pg_catalog.pg_subscription_rel r on r.srsubid = s.oid
join pg_catalog.pg_class c on c.oid = r.srrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where s.subenabled and s.subdbid = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()) order by 1, 2, 3`)
	if err != nil {
		return fmt.Errorf("read subscriptions: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var sub, schema, table string
		if err := rows.Scan(&sub, &schema, &table); err != nil {
			return fmt.Errorf("read subscriptions: %w", err)
		}
		if f.cfg.Selected(schema, table) && !f.ours(sub) {
			fs.add(Warning, "double_feed", "alter subscription "+pg.Quote(sub)+" disable",
				"subscription %q also writes table %s.%s: every change arrives twice", sub, schema, table)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read subscriptions: %w", err)
	}
	return checkPglogical(ctx, f, fs)
}

// ours reports whether the subscription is the one that moves the rows in the mode of this region.
func (f *facts) ours(subscription string) bool {
	return f.cfg.Mode != config.ModeStream && slices.ContainsFunc(f.cfg.PeerNames(), func(peer string) bool { return config.DefaultSlot(f.cfg.Cluster, peer) == subscription })
}

func checkPglogical(ctx context.Context, f *facts, fs *Findings) error {
	var readable bool
	if err := f.conn.QueryRow(ctx, `select coalesce(pg_catalog.has_table_privilege(pg_catalog.to_regclass('pglogical.subscription'), 'select')
  and pg_catalog.has_schema_privilege('pglogical', 'usage'), false) from pg_catalog.pg_namespace where nspname = 'pglogical'
union all select false limit 1`).Scan(&readable); err != nil {
		return fmt.Errorf("read subscriptions of pglogical: %w", err)
	}
	if !readable {
		return nil
	}
	var names []string
	if err := f.conn.QueryRow(ctx, `select coalesce(pg_catalog.array_agg(sub_name::text order by 1), '{}') from pglogical.subscription where sub_enabled`).Scan(&names); err != nil {
		return fmt.Errorf("read subscriptions of pglogical: %w", err)
	}
	for _, n := range names {
		if f.ours(n) {
			continue
		}
		fs.add(Warning, "double_feed", fmt.Sprintf("select pglogical.alter_subscription_disable(%s)", pg.Literal(n)),
			"pglogical subscription %q may write the same tables: every change arrives twice", n)
	}
	return nil
}
