package hold

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// Options are what a pause is told.
type Options struct {
	Region, Peer        string   // source and destination
	Source, Destination string   // system identifier/database
	Ours                []string // roles as which pgwaltz works in this database
	Except              []string // roles that the operator leaves alone
	Connect             bool     // take the right to connect as well
	Hold                time.Duration
}

// Pause is what is taken, or would be.
type Pause struct {
	Roles    []Role
	Findings preflight.Findings

	grants   []grant
	settings []setting
}

// Statements are what is run, in order.
func (p *Pause) Statements() []string {
	var out []string
	for i := range p.grants {
		out = append(out, p.grants[i].sql())
	}
	return out
}

// Held names the roles that are held and may log in.
func (p *Pause) Held() (names []string) {
	for _, r := range p.Roles {
		if r.Held() && r.Login {
			names = append(names, r.Name)
		}
	}
	return names
}

func (p *Pause) add(severity preflight.Severity, code, remedy, format string, args ...any) {
	p.Findings = append(p.Findings, preflight.Finding{Severity: severity, Code: code, What: fmt.Sprintf(format, args...), Remedy: remedy})
}

// Try does all that Take does, and rolls it back: what stands in the way is found by doing it. Nothing of it can be seen from outside;
// who grants at the same moment waits.
func Try(ctx context.Context, conn *pgx.Conn, o Options) (*Pause, error) {
	return take(ctx, conn, o, false)
}

// Take pauses the writes of the application's roles in one transaction. Where an error is among the findings nothing is taken, and the error is a
// *preflight.Refusal. Sessions go on: see Drain.
func Take(ctx context.Context, conn *pgx.Conn, o Options) (*Pause, error) {
	return take(ctx, conn, o, true)
}

func take(ctx context.Context, conn *pgx.Conn, o Options, commit bool) (*Pause, error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // nothing of it stays
	if _, err := tx.Exec(ctx, `select pg_catalog.pg_advisory_xact_lock(7497080, 1)`); err != nil {
		return nil, err
	}
	p := &Pause{}
	if p.Roles, err = loadRoles(ctx, tx, o.Ours, o.Except); err != nil {
		return nil, err
	}
	p.judgeRoles(o)
	if err := p.choose(ctx, tx, o); err != nil {
		return nil, err
	}
	refused := func() error { return p.Findings.Err("pause writes") }
	if refused() != nil {
		return p, refused()
	}
	before, err := rights(ctx, tx, p.leftAlone())
	if err != nil {
		return nil, err
	}
	if err := p.run(ctx, tx, o, before); err != nil {
		return nil, err
	}
	if err := p.verify(ctx, tx, before); err != nil {
		return nil, err
	}
	if refused() != nil || !commit {
		return p, refused()
	}
	if err := failpoint.Hit("cutover.taken"); err != nil {
		return nil, err
	}
	if err := tx.Commit(ctx); err != nil {
		return nil, fmt.Errorf("pause writes: %w", err)
	}
	return p, failpoint.Hit("cutover.paused")
}

// judgeRoles says which roles cannot be held as they should.
func (p *Pause) judgeRoles(o Options) {
	for _, name := range o.Except {
		if named(p.Roles, name) == nil {
			p.add(preflight.Error, "no_role", "mind the spelling", "role %q, which is to be left alone, is not there", name)
		}
	}
	for _, r := range p.Roles {
		switch {
		case !r.Login:
		case !r.Held() && !r.Asked && r.Sessions > 0:
			p.add(preflight.Error, "ours_in_use", fmt.Sprintf("let it use a role of its own, or leave it alone: --except %s", r.Name),
				"role %q %s, so its writes cannot be paused, and %d other sessions use it", r.Name, r.Left, r.Sessions)
		case !r.Held() && r.Asked:
			p.add(preflight.Warning, "left_alone", "", "the writes of role %q go on, as was asked for", r.Name)
		case r.Held() && r.Soft() && !r.Settable && r.Sessions > 0:
			p.add(preflight.Error, "cannot_hold", fmt.Sprintf("run this as a superuser, or leave it alone: --except %s", r.Name),
				"role %q is bound by no grant (superuser or pg_write_all_data) and has %d sessions, and this role may not set its default_transaction_read_only", r.Name, r.Sessions)
		case r.Held() && r.Soft() && r.Settable:
			p.add(preflight.Warning, "not_enforced", "", "role %q is bound by no grant (superuser or pg_write_all_data): it is read-only by default, and a session may set that off", r.Name)
		case r.Held() && r.Soft():
			p.add(preflight.Warning, "not_held", "run this as a superuser", "role %q is bound by no grant (superuser or pg_write_all_data), and is not held; it has no session now", r.Name)
		}
		if r.Held() && r.Sessions > 0 && !r.Endable {
			p.add(preflight.Error, "cannot_end", "grant pg_signal_backend, pg_read_all_stats to this role; a superuser's sessions need a superuser",
				"role %q has %d sessions, and this role may not end them", r.Name, r.Sessions)
		}
	}
}

// choose finds what is taken.
func (p *Pause) choose(ctx context.Context, tx pgx.Tx, o Options) error {
	all, err := loadGrants(ctx, tx, o.Connect)
	if err != nil {
		return err
	}
	byOID := map[uint32]Role{}
	for _, r := range p.Roles {
		byOID[r.OID] = r
	}
	owners, others := map[string][]string{}, map[string][]string{}
	connects := map[uint32]bool{}
	for _, g := range all {
		r, role := byOID[g.grantee]
		switch {
		case g.other != "":
			others[g.other] = append(others[g.other], g.where())
		case role && (!r.Held() || r.Super):
			connects[g.grantee] = connects[g.grantee] || g.kind == onDatabase
			continue
		case !g.mine:
			owners[g.owner] = append(owners[g.owner], g.where())
		}
		p.grants = append(p.grants, g)
	}
	for owner, where := range owners {
		p.add(preflight.Error, "no_owner", fmt.Sprintf("grant %s to %s, or run this as its owner", pg.Quote(owner), "this role"),
			"this role may not take rights away on what %q owns: %s", owner, some(where))
	}
	for who, where := range others {
		p.add(preflight.Error, "granted_by_other", "let the owner grant it instead",
			"rights to write were granted by %q, who is not the owner, and could not be given back as they are: %s", who, some(where))
	}
	if o.Connect {
		if err := p.letIn(ctx, tx, connects); err != nil {
			return err
		}
	}
	if err := p.checks(ctx, tx); err != nil {
		return err
	}
	if err := p.subscribed(ctx, tx); err != nil {
		return err
	}
	if err := p.excepted(ctx, tx); err != nil {
		return err
	}
	everyone := true
	for _, r := range p.Roles {
		if r.Held() && r.Login && r.Settable {
			p.settings = append(p.settings, setting{Role: r.OID, Was: r.Was})
		}
		everyone = everyone && (!r.Held() || !r.Login || r.Settable || r.Super)
	}
	if everyone {
		return nil
	}
	return p.definers(ctx, tx)
}

// checksSQL finds what the server does with the rights of a role that is held ($1) when rows are applied: foreign keys of tables where they are enforced for
// applied rows (they have our trigger, $2), and triggers that fire for these and are security definer.
const checksSQL = `select 'foreign keys of ' || c.oid::pg_catalog.regclass::text || ' (' || o.rolname || ')' from pg_catalog.pg_constraint f join pg_catalog.pg_class c on c.oid in (f.conrelid, f.confrelid)
join pg_catalog.pg_roles o on o.oid = c.relowner
where f.contype = 'f' and o.oid = any($1::int8[]::oid[]) and exists (select from pg_catalog.pg_trigger t where t.tgrelid in (f.conrelid, f.confrelid) and t.tgname = $2 and t.tgenabled <> 'D')
union select 'trigger ' || g.tgname || ' on ' || g.tgrelid::pg_catalog.regclass || ' (' || o.rolname || ')' from pg_catalog.pg_trigger g join pg_catalog.pg_proc p on p.oid = g.tgfoid join pg_catalog.pg_roles o on o.oid = p.proowner
where not g.tgisinternal and p.prosecdef and o.oid = any($1::int8[]::oid[])
  and (g.tgenabled in ('A', 'R') or g.tgenabled = 'O' and exists (select from pg_catalog.pg_trigger t where t.tgrelid = g.tgrelid and t.tgname = $2 and t.tgenabled <> 'D')) order by 1`

// checks names owners without whose rights what comes from the destination would be refused.
func (p *Pause) checks(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, checksSQL, oids(p.Roles, func(r Role) bool { return r.Held() && !r.Super }), pg.RestoreTrigger)
	if err != nil {
		return fmt.Errorf("read foreign keys and triggers: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read foreign keys and triggers: %w", err)
	}
	if len(list) > 0 {
		p.add(preflight.Error, "owner_checks", "leave the owner alone and let the application use another role: --except OWNER; or let the sidecar set session_replication_role",
			"when rows of the destination are applied, the server works with the rights of an owner who is to be held: %s", some(list))
	}
	return nil
}

// definersSQL finds functions of the application that run with the rights of roles ($1).
const definersSQL = `select p.oid::pg_catalog.regprocedure::text from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where p.prosecdef and p.proowner = any($1::int8[]::oid[]) and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgwaltz', 'pglogical')
  and not exists (select from pg_catalog.pg_depend e where e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and e.objid = p.oid and e.deptype = 'e') order by 1`

// definers names what writes with the rights of a role that is left alone, where nothing but grants holds the application.
func (p *Pause) definers(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, definersSQL, oids(p.Roles, func(r Role) bool { return !r.Held() || r.Super }))
	if err != nil {
		return fmt.Errorf("read functions: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read functions: %w", err)
	}
	if len(list) > 0 {
		p.add(preflight.Warning, "definer", "run this as a superuser, or with CREATEROLE: then roles are read-only by default as well",
			"functions run with the rights of roles that are left alone (security definer), and what they write is not held: %s", some(list))
	}
	return nil
}

// letIn lets roles that are left alone connect, where PUBLIC cannot any more.
func (p *Pause) letIn(ctx context.Context, tx pgx.Tx, may map[uint32]bool) error {
	var object int64
	var name string
	if err := tx.QueryRow(ctx, `select d.oid::int8, pg_catalog.quote_ident(d.datname) from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()`).Scan(&object, &name); err != nil {
		return fmt.Errorf("read the database: %w", err)
	}
	for _, r := range p.Roles {
		if !r.Held() && r.Login && !r.Super && !may[r.OID] {
			p.grants = append([]grant{{kind: onDatabase, object: uint32(object), name: name, grantee: r.OID, to: pg.Quote(r.Name), rights: []string{"CONNECT"}, given: true}}, p.grants...)
		}
	}
	return nil
}

// run takes, notes the pause, and makes what gives it back.
func (p *Pause) run(ctx context.Context, tx pgx.Tx, o Options, before []right) error {
	var me int64
	var now time.Time
	var ready bool
	if err := tx.QueryRow(ctx, `select r.oid::int8, pg_catalog.clock_timestamp(), pg_catalog.to_regclass('pgwaltz.lead') is not null from pg_catalog.pg_roles r where r.rolname = current_user`).Scan(&me, &now, &ready); err != nil {
		return err
	}
	if !ready {
		p.add(preflight.Error, "no_schema", "pgwaltz setup --config FILE", "the database is not set up")
		return nil
	}
	if err := runAll(ctx, tx, p.Statements()); err != nil {
		return err
	}
	// What roles that are left alone had from PUBLIC or a group, they get themselves for the time of the pause.
	lost, err := p.lost(ctx, tx, before)
	if err != nil {
		return err
	}
	var list []string
	for _, r := range lost {
		g := grant{kind: r.kind, object: r.object, name: r.name, column: r.column, colName: r.col, grantee: r.role, to: r.to, rights: []string{r.what}, given: true}
		p.grants = append(p.grants, g)
		list = append(list, g.sql())
	}
	deadline := stamp(now.Add(o.Hold))
	if err := note(ctx, tx, o, deadline); err != nil {
		return err
	}
	var keep []kept
	for _, g := range p.grants {
		keep = append(keep, kept{g.kind, g.object, g.column, g.grantee, g.rights, g.grantable, g.given})
	}
	text, err := functionSQL(uint32(me), stamp(now), deadline, keep, p.settings)
	if err != nil {
		return err
	}
	was, err := source(ctx, tx)
	if err != nil {
		return err
	}
	if was != "" && !holds(was) { // of an earlier pause, whose writes are given back
		list = append(list, "drop function "+signature)
	}
	list = append(list, text, "revoke all on function "+signature+" from public")
	for _, r := range p.Roles {
		if r.Left == ours && int64(r.OID) != me {
			list = append(list, "grant execute on function "+signature+" to "+pg.Quote(r.Name))
		}
	}
	for _, r := range p.Roles {
		if r.Held() && r.Login && r.Settable {
			list = append(list, "alter role "+pg.Quote(r.Name)+" in database "+pg.Quote(tx.Conn().Config().Database)+" set default_transaction_read_only = on")
		}
	}
	return runAll(ctx, tx, list)
}

func runAll(ctx context.Context, q pg.Querier, list []string) error {
	for _, sql := range list {
		if _, err := q.Exec(ctx, sql); err != nil {
			head, _, _ := strings.Cut(sql, "\n")
			return fmt.Errorf("run %q: %w", head, err)
		}
	}
	return nil
}

// ours is why a role is left alone as which pgwaltz works.
const ours = "pgwaltz works as it"

// some names a few.
func some[T any](list []T) string {
	var words []string
	for _, one := range list[:min(3, len(list))] {
		words = append(words, fmt.Sprint(one))
	}
	if len(list) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(words, ", "), len(list)-3)
	}
	return strings.Join(words, ", ")
}
