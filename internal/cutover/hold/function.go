package hold

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// signature is that of the function that gives writes back.
const signature = "pgwaltz.cutover_back_out(boolean)"

// isIt finds it in pg_proc p. Its name is not looked up as a name: who may not use the schema would be refused.
const isIt = `p.proname = 'cutover_back_out' and p.pronamespace = (select n.oid from pg_catalog.pg_namespace n where n.nspname = 'pgwaltz') and p.pronargs = 1 and p.proargtypes[0] = 'boolean'::pg_catalog.regtype`

// kept is a grant as the function keeps it.
type kept struct {
	Kind      string   `json:"kind"`
	Object    uint32   `json:"object"`
	Column    int16    `json:"col"`
	Role      uint32   `json:"grantee"`
	Rights    []string `json:"rights"`
	Grantable bool     `json:"grantable"`
	Given     bool     `json:"given"`
}

// setting is default_transaction_read_only of a role; Was is nil where it had none.
type setting struct {
	Role uint32  `json:"grantee"`
	Was  *string `json:"was"`
}

// body is that of the function. Relations and roles that are gone are left out. Where something cannot be given back, the
// rest is, and the function stays for the next call. What counts is what is there behind a statement: a role that is no owner any more and has some right
// gets a mere warning from GRANT and REVOKE. Where the right that was lent is taken back from a table, the server takes those on its columns along, and they
// are granted again.
const body = `
declare
  one record; who text; thing text; what text; failed text; wrong text; said text; boss oid; acl aclitem[]; columns text[];
begin
  perform pg_advisory_xact_lock(7497080, 1);
  if to_regprocedure('pgwaltz.cutover_back_out(boolean)') is null then return 'gone'; end if;
  if not (asked and pg_has_role(session_user, OWNER::oid, 'member')) and clock_timestamp() < timestamptz 'DEADLINE' then return 'early'; end if;
  for one in select x.* from jsonb_to_recordset(GRANTS::jsonb) as x (kind text, object oid, col int2, grantee oid, rights text[], grantable boolean, given boolean) loop
    who := case when one.grantee = 0 then 'public' else (select quote_ident(r.rolname) from pg_roles r where r.oid = one.grantee) end;
    thing := case one.kind when 'database' then (select 'database ' || quote_ident(d.datname) from pg_database d where d.oid = one.object)
      else (select case one.kind when 'sequence' then 'sequence ' else 'table ' end || quote_ident(n.nspname) || '.' || quote_ident(c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = one.object) end;
    if one.kind = 'column' then
      what := (select string_agg(w || ' (' || quote_ident(a.attname) || ')', ', ') from unnest(one.rights) w, pg_attribute a where a.attrelid = one.object and a.attnum = one.col and not a.attisdropped) || ' on ' || thing;
    else
      what := array_to_string(one.rights, ', ') || ' on ' || thing;
    end if;
    continue when who is null or what is null;
    what := case when one.given then 'revoke ' || what || ' from ' || who else 'grant ' || what || ' to ' || who || case when one.grantable then ' with grant option' else '' end end;
    said := 'the server did nothing';
    begin
      columns := array(select 'grant ' || x.privilege_type || ' (' || quote_ident(a.attname) || ') on ' || thing || ' to ' || who || case when x.is_grantable then ' with grant option' else '' end
        from pg_class c, pg_attribute a, aclexplode(a.attacl) x where one.given and one.kind = 'table' and c.oid = one.object and a.attrelid = c.oid and not a.attisdropped
          and x.grantee = one.grantee and x.grantor = c.relowner and x.privilege_type = any(one.rights));
      execute what;
      for i in 1 .. cardinality(columns) loop
        execute columns[i];
      end loop;
    exception when others then
      said := sqlerrm;
    end;
    if one.kind = 'database' then
      select d.datdba, coalesce(d.datacl, acldefault('d', d.datdba)) into boss, acl from pg_database d where d.oid = one.object;
    elsif one.kind = 'column' then
      select c.relowner, a.attacl into boss, acl from pg_class c join pg_attribute a on a.attrelid = c.oid where c.oid = one.object and a.attnum = one.col;
    else
      select c.relowner, coalesce(c.relacl, acldefault(case c.relkind when 'S' then 's' else 'r' end::"char", c.relowner)) into boss, acl from pg_class c where c.oid = one.object;
    end if;
    if exists (select from unnest(one.rights) w where one.given = exists (select from aclexplode(acl) x
        where x.grantee = one.grantee and x.privilege_type = w and case when one.given then x.grantor = boss else x.is_grantable or not one.grantable end)) then
      wrong := what || ': ' || said || case when pg_has_role(boss, 'usage') then '' else
        '; the owner is ' || quote_ident(pg_get_userbyid(boss)) || ', whose rights ' || quote_ident(current_user) || ' has not: grant it membership, or let the owner run the statement' end;
      failed := coalesce(failed, wrong);
    end if;
  end loop;
  for one in select quote_ident(r.rolname) as name, x.was from jsonb_to_recordset(SETTINGS::jsonb) as x (grantee oid, was text) join pg_roles r on r.oid = x.grantee loop
    begin
      execute 'alter role ' || one.name || ' in database ' || quote_ident(current_database()) || case when one.was is null then ' reset default_transaction_read_only' else ' set default_transaction_read_only = ' || quote_literal(one.was) end;
    exception when others then
      failed := coalesce(failed, 'default_transaction_read_only of ' || one.name || ': ' || sqlerrm);
    end;
  end loop;
  if failed is not null then return 'not all: ' || failed; end if;
  if jsonb_array_length(SETTINGS::jsonb) = 0 then
    drop function pgwaltz.cutover_back_out(boolean);
    return 'done';
  end if;
  execute 'create or replace function pgwaltz.cutover_back_out(asked boolean) returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as '
    || quote_literal(replace(RELEASE, 'GIVEN', clock_timestamp()::text));
  return 'given';
end `

// released begins the text of the function behind what it gave back. Sessions that began in the pause are read-only by default
// as long as they live. Those are ended, when the settings of the roles are committed as they were; then the function is dropped. Where the caller died
// between, somebody calls later: so only sessions are ended that began soon behind.
const released = `
-- released
begin
  perform pg_advisory_xact_lock(7497080, 1);
  if to_regprocedure('pgwaltz.cutover_back_out(boolean)') is null then return 'gone'; end if;
  begin
    perform pg_terminate_backend(a.pid, 2000) from pg_stat_activity a where a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
      and a.usesysid in (select x.grantee from jsonb_to_recordset(SETTINGS::jsonb) as x (grantee oid))
      and a.backend_start between timestamptz 'BEGAN' and least(clock_timestamp(), timestamptz 'GIVEN' + interval '10 s');
  exception when insufficient_privilege then
    null;
  end;
  drop function pgwaltz.cutover_back_out(boolean);
  return 'done';
end `

// never is the deadline of a cutover that is finished.
const never = "infinity"

// functionSQL makes the function. owner is the role that makes it, began when the pause begins.
func functionSQL(owner uint32, began, deadline string, grants []kept, settings []setting) (string, error) {
	g, err := json.Marshal(append([]kept{}, grants...))
	if err != nil {
		return "", err
	}
	s, err := json.Marshal(append([]setting{}, settings...))
	if err != nil {
		return "", err
	}
	list := pg.Literal(string(s))
	second := strings.NewReplacer("BEGAN", began, "SETTINGS", list).Replace(released)
	text := strings.NewReplacer("OWNER", fmt.Sprint(owner), "DEADLINE", deadline, "GRANTS", pg.Literal(string(g)), "SETTINGS", list, "RELEASE", pg.Literal(second)).Replace(body)
	return define("create", text), nil
}

func define(create, text string) string {
	return create + " function " + strings.Replace(signature, "boolean", "asked boolean", 1) +
		" returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as " + pg.Literal(text)
}

// holds reports whether a function with this text holds what was taken.
func holds(text string) bool { return text != "" && !strings.HasPrefix(text, "\n-- released") }

// source is the function's text; "" where it is not there. One that somebody else could have planted is an error.
func source(ctx context.Context, q pg.Querier) (string, error) {
	var text string
	var safe bool
	err := q.QueryRow(ctx, `select p.prosrc, p.prosecdef from pg_catalog.pg_proc p where `+isIt).Scan(&text, &safe)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("look for %s: %w", signature, err)
	case !safe:
		return "", fmt.Errorf("function %s is not the one that a cutover makes: drop it", signature)
	}
	return text, nil
}

// move gives the function another deadline. The statement's transaction must hold the lock of the function.
func move(ctx context.Context, q pg.Querier, deadline string) error {
	text, err := source(ctx, q)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(text, "timestamptz '")
	_, tail, ok2 := strings.Cut(rest, "'")
	if !ok || !ok2 {
		return fmt.Errorf("function %s is not the one that a cutover makes", signature)
	}
	_, err = q.Exec(ctx, define("create or replace", head+"timestamptz '"+deadline+"'"+tail))
	return err
}

// call asks the function; asked is for the role that made it, which need not wait for the deadline. Said is done, early, gone,
// or "not all: ..." with the reason. q must not be in a transaction: what is given back is committed before sessions are ended.
func call(ctx context.Context, q pg.Querier, asked bool) (said string, err error) {
	for {
		err = q.QueryRow(ctx, `select pgwaltz.cutover_back_out($1)`, asked).Scan(&said)
		switch {
		case pg.Code(err) == "42883":
			return "gone", nil
		case err != nil:
			return "", fmt.Errorf("give writes back: %w", err)
		case said != "given":
			return said, nil
		}
		if err := failpoint.Hit("cutover.released"); err != nil {
			return "", err
		}
	}
}

// Overdue gives writes back whose deadline has passed, and reports what it did; "" where there was nothing to do. It is for the
// sidecar: a role that may not call the function does nothing. It may be called at any time, by several at once.
func Overdue(ctx context.Context, q pg.Querier) (string, error) {
	var there bool
	if err := q.QueryRow(ctx, `select exists (select from pg_catalog.pg_proc p where `+isIt+` and p.prosecdef
  and pg_catalog.has_schema_privilege(p.pronamespace, 'usage') and pg_catalog.has_function_privilege(p.oid, 'execute'))`).Scan(&there); err != nil || !there {
		return "", err
	}
	said, err := call(ctx, q, false)
	if said == "early" || said == "gone" {
		said = ""
	}
	return said, err
}

// stamp is a time as the function has it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999999+00") }
