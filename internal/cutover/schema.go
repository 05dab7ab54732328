package cutover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// Schema is what CopySchema is told.
type Schema struct {
	Env                   func(*pgx.Conn) []string // libpq's environment that leads to where a session leads
	Bin                   string                   // the folder of pg_dump; "" looks for it
	NoOwner, NoPrivileges bool
	Dry                   bool // make nothing
}

// SchemaCopy is what CopySchema did, or would do.
type SchemaCopy struct {
	Text     string // the statements
	Objects  int
	Same     bool // the destination has the schema already, and nothing else: nothing was made
	Program  string
	Findings preflight.Findings
}

// namesOf reads a list of names.
func namesOf(ctx context.Context, e *End, sql string, args ...any) ([]string, error) {
	rows, err := e.Conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("read the schema of %s: %w", e.Region, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read the schema of %s: %w", e.Region, err)
	}
	return list, nil
}

const (
	// usedRolesSQL are the roles that a schema names, for what ($1): o owner, a grants, r policies. The server keeps no note of its first superuser.
	usedRolesSQL = `select distinct r.rolname::text from pg_catalog.pg_roles r where exists (select from pg_catalog.pg_shdepend s join pg_catalog.pg_database d on d.oid = s.dbid
  where d.datname = pg_catalog.current_database() and s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass and s.refobjid = r.oid and s.deptype::text = any($1))
or r.oid = 10 and 'o' = any($1) and exists (select from pg_catalog.pg_class c where c.relowner = 10 and c.oid >= 16384) order by 1`
	allRolesSQL    = `select r.rolname::text from pg_catalog.pg_roles r`
	extensionsSQL  = `select x.extname::text from pg_catalog.pg_extension x where x.extname not in ('pglogical', 'pglogical_origin') order by 1`
	availableSQL   = `select a.name::text from pg_catalog.pg_available_extensions a`
	schemasSQL     = `select n.nspname::text from pg_catalog.pg_namespace n where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgwaltz', 'pglogical', 'public') order by 1`
	schemaOwnerSQL = `select pg_catalog.pg_get_userbyid(n.nspowner)::text from pg_catalog.pg_namespace n where n.nspname = $1`
	// oddSQL are names with line breaks. An older pg_dump writes names into comments as they are: what is behind the break would be a statement, run with the rights of
	// this command's role at the destination, and whoever may make a table could have written it.
	oddSQL = `select distinct pg_catalog.quote_literal(x.name::text) from (
  select c.relname as name from pg_catalog.pg_class c union all select p.proname from pg_catalog.pg_proc p union all select t.typname from pg_catalog.pg_type t
  union all select n.nspname from pg_catalog.pg_namespace n union all select t.tgname from pg_catalog.pg_trigger t union all select c.conname from pg_catalog.pg_constraint c
  union all select p.polname from pg_catalog.pg_policy p union all select r.rulename from pg_catalog.pg_rewrite r union all select a.attname from pg_catalog.pg_attribute a
  union all select c.collname from pg_catalog.pg_collation c union all select c.conname from pg_catalog.pg_conversion c union all select o.opcname from pg_catalog.pg_opclass o
  union all select o.opfname from pg_catalog.pg_opfamily o union all select l.lanname from pg_catalog.pg_language l union all select f.fdwname from pg_catalog.pg_foreign_data_wrapper f
  union all select s.srvname from pg_catalog.pg_foreign_server s union all select e.evtname from pg_catalog.pg_event_trigger e union all select s.stxname from pg_catalog.pg_statistic_ext s
  union all select d.dictname from pg_catalog.pg_ts_dict d union all select c.cfgname from pg_catalog.pg_ts_config c union all select p.prsname from pg_catalog.pg_ts_parser p
  union all select t.tmplname from pg_catalog.pg_ts_template t union all select a.amname from pg_catalog.pg_am a union all select x.extname from pg_catalog.pg_extension x
  union all select r.rolname from pg_catalog.pg_roles r union all select t.spcname from pg_catalog.pg_tablespace t union all select d.datname from pg_catalog.pg_database d) x
where x.name::text ~ E'[\n\r]' order by 1`
	settingsSQL = `select s.name from pg_catalog.pg_settings s`
	kindSQL     = `select pg_catalog.pg_encoding_to_char(d.encoding) || ', ' || d.datcollate || ', ' || d.datctype from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()`
	// thereSQL are relations, functions and types of the application.
	thereSQL = `select pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(x.name) from (
  select c.tableoid, c.oid, c.relnamespace as space, c.relname as name from pg_catalog.pg_class c where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S', 'c')
  union all select p.tableoid, p.oid, p.pronamespace, p.proname from pg_catalog.pg_proc p
  union all select t.tableoid, t.oid, t.typnamespace, t.typname from pg_catalog.pg_type t where t.typtype in ('e', 'd', 'r')) x
join pg_catalog.pg_namespace n on n.oid = x.space
where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgwaltz', 'pglogical')
  and not exists (select from pg_catalog.pg_depend e where e.classid = x.tableoid and e.objid = x.oid and e.deptype = 'e') order by 1`
)

// CopySchema makes the source's schema at the destination, in one transaction: all of it or nothing. Where the destination has it already nothing is made; where it has
// something else, and where a role or an extension is missing there, it is refused with a *preflight.Refusal.
func (e *Ends) CopySchema(ctx context.Context, o Schema) (*SchemaCopy, error) {
	out := &SchemaCopy{}
	if err := e.fit(ctx, o, out); err != nil {
		return out, err
	}
	here, there := e.Source.Sys.Version/10000, e.Destination.Sys.Version/10000
	found, err := findPrograms(ctx, o.Bin, here, there)
	if err != nil {
		return out, err
	}
	out.Program = fmt.Sprintf("pg_dump %d in %s", found.major, found.dir)
	d := dumping{programs: found, env: o.Env(e.Source.Conn)}
	if o.NoOwner {
		d.options = append(d.options, "--no-owner")
	}
	if o.NoPrivileges {
		d.options = append(d.options, "--no-privileges")
	}
	set, err := namesOf(ctx, e.Destination, settingsSQL)
	if err != nil {
		return out, err
	}
	known := map[string]bool{}
	for _, name := range set {
		known[name] = true
	}
	things, err := namesOf(ctx, e.Destination, thereSQL)
	if err != nil {
		return out, err
	}
	if len(things) > 0 {
		return out, e.compare(ctx, d, o, known, things, out)
	}
	// Schemas that are there are empty, or an extension's.
	have, err := namesOf(ctx, e.Destination, schemasSQL)
	if err != nil {
		return out, err
	}
	d.left = map[string]bool{}
	for _, name := range have {
		d.left[name] = true
	}
	text, n, err := e.Source.dump(ctx, d)
	if err != nil {
		return out, err
	}
	out.Text, out.Objects = plain(text, known), n
	if !o.NoOwner {
		for _, name := range have {
			owner, err := namesOf(ctx, e.Source, schemaOwnerSQL, name)
			if err != nil {
				return out, err
			}
			if len(owner) == 1 {
				out.Text += fmt.Sprintf("ALTER SCHEMA %s OWNER TO %s;\n", pg.Quote(name), pg.Quote(owner[0]))
			}
		}
	}
	if o.Dry {
		return out, nil
	}
	return out, e.make(ctx, out.Text)
}

// fit finds what the destination lacks.
func (e *Ends) fit(ctx context.Context, o Schema, out *SchemaCopy) error {
	kinds := []string{"r"}
	if !o.NoOwner {
		kinds = append(kinds, "o")
	}
	if !o.NoPrivileges {
		kinds = append(kinds, "a", "i")
	}
	lacks := func(want, have string, args ...any) ([]string, error) {
		here, err := namesOf(ctx, e.Source, want, args...)
		if err != nil {
			return nil, err
		}
		there, err := namesOf(ctx, e.Destination, have)
		return slices.DeleteFunc(here, func(name string) bool { return slices.Contains(there, name) }), err
	}
	add := func(severity preflight.Severity, code, remedy, format string, args ...any) {
		out.Findings = append(out.Findings, preflight.Finding{Severity: severity, Code: code, What: fmt.Sprintf(format, args...), Remedy: remedy})
	}
	roles, err := lacks(usedRolesSQL, allRolesSQL, kinds)
	if err != nil {
		return err
	}
	if len(roles) > 0 {
		add(preflight.Error, "no_role", "pgwaltz cutover roles --run; or --no-owner --no-privileges", "the schema names roles that are not at the destination: %s", strings.Join(roles, ", "))
	}
	extensions, err := lacks(extensionsSQL, availableSQL)
	if err != nil {
		return err
	}
	for _, name := range extensions {
		add(preflight.Error, "no_extension", "install its package there", "the destination's server does not have extension %s", name)
	}
	odd, err := namesOf(ctx, e.Source, oddSQL)
	if err != nil {
		return err
	}
	if len(odd) > 0 {
		add(preflight.Error, "line_break", "rename them", "names at the source have line breaks, and what is behind one may be run as a statement: %s", strings.Join(odd[:min(3, len(odd))], ", "))
	}
	var here, there string
	if err := errors.Join(e.Source.Conn.QueryRow(ctx, kindSQL).Scan(&here), e.Destination.Conn.QueryRow(ctx, kindSQL).Scan(&there)); err != nil {
		return fmt.Errorf("read the databases: %w", err)
	}
	if here != there {
		add(preflight.Warning, "locale", "make the database anew with the same encoding and locale", "the source's database has %s, and the destination's %s: text sorts differently, and may not fit", here, there)
	}
	if s, d := e.Source.Sys.Version/10000, e.Destination.Sys.Version/10000; d < s {
		add(preflight.Warning, "older", "", "the destination is PostgreSQL %d and the source %d: it may not know what the schema has; then nothing is made", d, s)
	}
	return out.Findings.Err("copy the schema")
}

// compare says whether what is at the destination is the source's schema.
func (e *Ends) compare(ctx context.Context, d dumping, o Schema, known map[string]bool, things []string, out *SchemaCopy) error {
	text, n, err := e.Source.dump(ctx, d)
	if err != nil {
		return err
	}
	out.Text, out.Objects = plain(text, known), n
	what := fmt.Sprintf("the destination is not empty (%d tables, functions and types, such as %s)", len(things), strings.Join(things[:min(3, len(things))], ", "))
	if e.Destination.Sys.Version/10000 > d.major {
		return refusal("not_empty", "drop them, or take an empty database", "%s; to see whether it is the source's schema already takes pg_dump of PostgreSQL %d", what, e.Destination.Sys.Version/10000)
	}
	d.env = o.Env(e.Destination.Conn)
	text, _, err = e.Destination.dump(ctx, d)
	if err != nil {
		return err
	}
	if diff := difference(out.Text, plain(text, known)); diff != "" {
		return refusal("not_empty", "drop them, or take an empty database", "%s, and it is not the source's schema: %s", what, diff)
	}
	out.Same = true
	return nil
}

// make runs the statements at the destination, in one transaction. Options of user mappings may hold passwords: the text is kept out of the server's log where
// that may be done.
func (e *Ends) make(ctx context.Context, text string) error {
	tx, err := e.Destination.Conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // it is over
	if _, err := tx.Exec(ctx, quiet); err != nil {
		return fmt.Errorf("keep statements out of the server's log: %w", err)
	}
	if _, err := tx.Conn().PgConn().Exec(ctx, text).ReadAll(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("make the schema at %s, nothing was changed: %w", e.Destination.Region, context.Cause(ctx))
		}
		at := ""
		var said *pgconn.PgError
		if errors.As(err, &said) {
			if at = place(text, said.Position); at != "" {
				at = " (" + at + ")"
			}
		}
		return fmt.Errorf("make the schema at %s%s, nothing was changed: %w", e.Destination.Region, at, err)
	}
	if err := failpoint.Hit("cutover.schema"); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("make the schema at %s, and it is not known whether that was committed: run it again: %w", e.Destination.Region, err)
	}
	return nil
}
