package names

import (
	"fmt"
	"strings"
)

// Republisher is the event trigger that publishes a table made anew in the very transaction that
// makes it, so that no write to it is missed.
const Republisher = "pgwaltz_republish"

// RepublishSQL creates the function of the event trigger. Only a superuser can create an event trigger; it
// works with his rights. It looks only at tables that get a name which another table was published
// under, and does for them what setup does: the replica identity FULL where the other one had it, and
// the publication. It never makes the application's statement fail, and never has it wait for longer than
// half a second, as another transaction that makes tables anew holds the publication until it ends: what it may not or
// cannot do, the sidecar does within a second, or says. It reads pgwaltz.name only where that is a table of a superuser, in a schema of a superuser:
// what others put in its place would be run with his rights.
func RepublishSQL(publication string) string {
	return "create or replace function pgwaltz.republish() returns event_trigger\n  language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '500ms' as $function$" +
		RepublishBody(publication) + "$function$"
}

// RepublishSettings are the settings of the function, as the catalog has them.
func RepublishSettings() []string {
	return []string{"search_path=pg_catalog, pg_temp", "lock_timeout=500ms"}
}

// Quiet, after SET or SET LOCAL, makes the event trigger do nothing: who sets it publishes tables himself.
const Quiet = "pgwaltz.republish = 'off'"

// RepublisherSQL creates the event trigger.
const RepublisherSQL = `create event trigger ` + Republisher + ` on ddl_command_end when tag in ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE')
  execute function pgwaltz.republish()`

// RepublishBody is the text of the function.
func RepublishBody(publication string) string {
	name := "'" + strings.ReplaceAll(publication, "'", "''") + "'"
	return fmt.Sprintf(`
declare
  t record;
begin
  if current_setting('pgwaltz.republish', true) = 'off' then
    return;
  end if;
  if not exists (
    select from pg_class c join pg_namespace s on s.oid = c.relnamespace join pg_roles o on o.oid = c.relowner join pg_roles m on m.oid = s.nspowner
    where s.nspname = 'pgwaltz' and c.relname = 'name' and c.relkind = 'r' and o.rolsuper and m.rolsuper
  ) then
    return;
  end if;
  for t in
    select c.oid::regclass as name, k.identity_full as full, c.relkind = 'r' as plain, c.relreplident
    from pg_event_trigger_ddl_commands() d
    join pg_class c on d.classid = 'pg_class'::regclass and c.oid = d.objid and c.relkind in ('r', 'p') and c.relpersistence = 'p' and not c.relispartition
    join pg_namespace s on s.oid = c.relnamespace
    join pgwaltz.name k on k.schema_name = s.nspname and k.table_name = c.relname and k.published <> 0 and k.published <> c.oid
    join pg_publication p on p.pubname = %[1]s and not p.puballtables
    where not exists (select from pg_publication_rel r where r.prpubid = p.oid and r.prrelid = c.oid)
      and (k.identity_full or c.relreplident in ('f', 'i') or c.relreplident = 'd' and exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary))
      and not (current_setting('server_version_num')::int >= 180000 and exists (select from pg_attribute a where a.attrelid = c.oid and a.attgenerated <> ''))
  loop
    begin
      -- First of all: the next statement calls this function again.
      execute format('alter publication %%I add table %%s %%s', %[1]s, case when t.plain then 'only' end, t.name);
      if t.full and t.relreplident <> 'f' then
        execute format('alter table %%s replica identity full', t.name);
      end if;
    exception when others then
      raise debug 'pgwaltz: table %% is not published again: %%', t.name, sqlerrm;
    end;
  end loop;
exception when others then
  raise debug 'pgwaltz: %%', sqlerrm;
end
`, name)
}
