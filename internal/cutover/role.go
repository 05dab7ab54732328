package cutover

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// Roles is what Ends.Roles is told.
type Roles struct {
	All       bool // those too that the destination has: they are altered
	Passwords bool // where this role may read them
	// RDS leaves out what the administrator of a managed server may not set (superuser, replication, bypassrls), and the provider's own roles.
	RDS bool
}

// member is a role in another one.
type member struct {
	of, name            string
	admin, inherit, set bool
	newer               bool // 16: a membership has options of its own
}

// role is one of the server's.
type role struct {
	name     string
	words    []string // LOGIN, NOSUPERUSER
	limit    int
	password *string
	until    *string
	settings []string // name=value, in all databases
	here     []string // the same, in this database
}

const roleSQL = `select r.rolname::text, array[case when r.rolsuper then 'SUPERUSER' else 'NOSUPERUSER' end, case when r.rolinherit then 'INHERIT' else 'NOINHERIT' end,
  case when r.rolcreaterole then 'CREATEROLE' else 'NOCREATEROLE' end, case when r.rolcreatedb then 'CREATEDB' else 'NOCREATEDB' end, case when r.rolcanlogin then 'LOGIN' else 'NOLOGIN' end,
  case when r.rolreplication then 'REPLICATION' else 'NOREPLICATION' end, case when r.rolbypassrls then 'BYPASSRLS' else 'NOBYPASSRLS' end], r.rolconnlimit, %s, r.rolvaliduntil::text,
  coalesce((select g.setconfig from pg_catalog.pg_db_role_setting g where g.setrole = r.oid and g.setdatabase = 0), '{}'),
  coalesce((select g.setconfig from pg_catalog.pg_db_role_setting g join pg_catalog.pg_database d on d.oid = g.setdatabase where g.setrole = r.oid and d.datname = pg_catalog.current_database()), '{}')
from %s r where r.rolname !~ '^pg_' order by r.oid <> 10, r.rolname`

// roles reads those of one end. Passwords are left out where the role may not read them; then secret is false.
func (e *End) roles(ctx context.Context, passwords bool) (list []role, secret bool, err error) {
	if passwords {
		if err := e.Conn.QueryRow(ctx, `select pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'select')`).Scan(&secret); err != nil {
			return nil, false, fmt.Errorf("read roles of %s: %w", e.Region, err)
		}
	}
	sql := fmt.Sprintf(roleSQL, "null::text", "pg_catalog.pg_roles")
	if secret {
		sql = fmt.Sprintf(roleSQL, "r.rolpassword", "pg_catalog.pg_authid")
	}
	rows, err := e.Conn.Query(ctx, sql)
	if err != nil {
		return nil, false, fmt.Errorf("read roles of %s: %w", e.Region, err)
	}
	list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r role, err error) {
		return r, row.Scan(&r.name, &r.words, &r.limit, &r.password, &r.until, &r.settings, &r.here)
	})
	if err != nil {
		return nil, false, fmt.Errorf("read roles of %s: %w", e.Region, err)
	}
	return list, secret, nil
}

func (e *End) members(ctx context.Context) ([]member, error) {
	options := "true, true, false"
	if e.Sys.Version >= 160000 {
		options = "bool_or(m.inherit_option), bool_or(m.set_option), true"
	}
	rows, err := e.Conn.Query(ctx, `select o.rolname::text, r.rolname::text, bool_or(m.admin_option), `+options+`
from pg_catalog.pg_auth_members m join pg_catalog.pg_roles o on o.oid = m.roleid join pg_catalog.pg_roles r on r.oid = m.member group by 1, 2 order by 1, 2`)
	if err != nil {
		return nil, fmt.Errorf("read memberships of %s: %w", e.Region, err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (m member, err error) {
		return m, row.Scan(&m.of, &m.name, &m.admin, &m.inherit, &m.set, &m.newer)
	})
	if err != nil {
		return nil, fmt.Errorf("read memberships of %s: %w", e.Region, err)
	}
	return list, nil
}

// Roles are the statements that make the source's roles at the destination. They change nothing by themselves. secret reports whether they hold what the
// server keeps of passwords.
func (e *Ends) Roles(ctx context.Context, o Roles) (statements []string, secret bool, err error) {
	list, secret, err := e.Source.roles(ctx, o.Passwords)
	if err != nil {
		return nil, false, err
	}
	there, _, err := e.Destination.roles(ctx, false)
	if err != nil {
		return nil, false, err
	}
	members, err := e.Source.members(ctx)
	if err != nil {
		return nil, false, err
	}
	has := map[string]bool{}
	for _, r := range there {
		has[r.name] = true
	}
	return roleStatements(list, members, has, o, e.Source.Sys.User, e.Destination.Sys), secret, nil
}

// provider are roles of a managed server.
func provider(name string) bool {
	return strings.HasPrefix(name, "rds_") || name == "rdsadmin" || name == "rdsrepladmin" || name == "rdstopmgr"
}

// roleStatements makes them. The role me runs the command, and is there.
func roleStatements(list []role, members []member, has map[string]bool, o Roles, me string, to pg.System) (out []string) {
	made := map[string]bool{}
	for _, r := range list {
		if r.name == me || o.RDS && provider(r.name) || has[r.name] && !o.All {
			continue
		}
		made[r.name] = true
		name := pg.Quote(r.name)
		if !has[r.name] {
			out = append(out, "create role "+name)
		}
		words := slices.DeleteFunc(slices.Clone(r.words), func(w string) bool {
			w = strings.TrimPrefix(w, "NO")
			return o.RDS && (w == "SUPERUSER" || w == "REPLICATION" || w == "BYPASSRLS")
		})
		if r.limit >= 0 {
			words = append(words, fmt.Sprintf("CONNECTION LIMIT %d", r.limit))
		}
		if r.password != nil {
			words = append(words, "PASSWORD "+pg.Literal(*r.password))
		}
		if r.until != nil {
			words = append(words, "VALID UNTIL "+pg.Literal(*r.until))
		}
		out = append(out, "alter role "+name+" with "+strings.Join(words, " "))
		for _, s := range r.settings {
			out = append(out, "alter role "+name+" set "+assign(s))
		}
		for _, s := range r.here {
			out = append(out, "alter role "+name+" in database "+pg.Quote(to.Database)+" set "+assign(s))
		}
	}
	for _, m := range members {
		if !made[m.name] && !made[m.of] || o.RDS && provider(m.name) || !made[m.name] && !has[m.name] && m.name != me {
			continue
		}
		sql := "grant " + pg.Quote(m.of) + " to " + pg.Quote(m.name)
		switch {
		case m.newer && to.Version >= 160000:
			sql += fmt.Sprintf(" with admin %t, inherit %t, set %t", m.admin, m.inherit, m.set)
		case m.admin:
			sql += " with admin option"
		}
		out = append(out, sql)
	}
	return out
}

// lists are settings whose values the server keeps as lists of names, quoted where need be: all that are marked so (GUC_LIST_QUOTE); extensions
// may not have such. True: names of the database, which it reads in small letters where they are not quoted.
var lists = map[string]bool{"search_path": true, "temp_tablespaces": true, "local_preload_libraries": false, "session_preload_libraries": false, "shared_preload_libraries": false, "unix_socket_directories": false} //nolint:gochecknoglobals // constant

// assign is "name to value" of "name=value". Each role chooses its settings itself, and the text of a list is kept as it was written: nothing of it
// comes into the statement but within a literal.
func assign(s string) string {
	name, value, _ := strings.Cut(s, "=")
	quoted := pg.Literal(value)
	if fold, list := lists[strings.ToLower(name)]; list {
		if elements := split(value, fold); len(elements) > 0 {
			for i := range elements {
				elements[i] = pg.Literal(elements[i])
			}
			quoted = strings.Join(elements, ", ")
		}
	}
	// Settings of extensions have two parts.
	parts := strings.Split(name, ".")
	for i := range parts {
		parts[i] = pg.Quote(parts[i])
	}
	return strings.Join(parts, ".") + " to " + quoted
}

// split takes a list of names apart as the server does, which calls this SplitGUCList. It is nil where the text is no list.
func split(text string, fold bool) (out []string) {
	const space = " \t\n\r\f\v"
	for rest := strings.TrimLeft(text, space); ; {
		var one string
		if strings.HasPrefix(rest, `"`) {
			for {
				part, behind, closed := strings.Cut(rest[1:], `"`)
				if !closed {
					return nil
				}
				one, rest = one+part, behind
				if !strings.HasPrefix(rest, `"`) {
					break
				}
				one += `"`
			}
		} else {
			end := strings.IndexAny(rest, ","+space)
			if end < 0 {
				end = len(rest)
			}
			if end == 0 {
				return nil
			}
			if one, rest = rest[:end], rest[end:]; fold {
				one = strings.Map(small, one)
			}
		}
		out = append(out, one)
		rest = strings.TrimLeft(rest, space)
		if rest == "" {
			return out
		}
		if rest[0] != ',' {
			return nil
		}
		rest = strings.TrimLeft(rest[1:], space)
	}
}

func small(r rune) rune {
	if r >= 'A' && r <= 'Z' {
		r += 'a' - 'A'
	}
	return r
}

// quiet keeps statements out of the server's log until the transaction ends, for a superuser: others may not set it.
const quiet = `select pg_catalog.set_config(s.name, s.value, true) from (values ('log_statement', 'none'), ('log_min_error_statement', 'panic'), ('log_min_duration_statement', '-1'),
  ('log_min_duration_sample', '-1'), ('log_transaction_sample_rate', '0'), ('debug_print_parse', 'off'), ('debug_print_rewritten', 'off')) s (name, value)
where pg_catalog.current_setting('is_superuser') = 'on'`

// RunAll runs statements at the destination, in one transaction; secret says that they hold what the server keeps of passwords. A text with more than
// one statement is refused by the server (the extended protocol takes one).
func (e *Ends) RunAll(ctx context.Context, statements []string, secret bool) error {
	tx, err := e.Destination.Conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // it is over
	if secret {
		if _, err := tx.Exec(ctx, quiet); err != nil {
			return fmt.Errorf("keep passwords out of the server's log: %w", err)
		}
	}
	for i, sql := range statements {
		if err := tx.Conn().PgConn().ExecParams(ctx, sql, nil, nil, nil, nil).Read().Err; err != nil {
			words := strings.Fields(sql) // no more of it: it may hold a password
			return fmt.Errorf("run statement %d of %d (%s), nothing was changed: %w", i+1, len(statements), strings.Join(words[:min(3, len(words))], " "), err)
		}
	}
	return tx.Commit(ctx)
}
