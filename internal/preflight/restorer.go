package preflight

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
)

// The application's triggers set version and updated_at of every row that is written, also
// of a row that we apply. Where session_replication_role may not be set, two triggers of
// ours stand around them: one that runs first and remembers the stamp, one that runs last and puts
// it back. Both act only for the sidecar's role while it applies; for everybody else the
// WHEN clause is false and no function is called.

// saveFunction takes the role and the column names as arguments.
const saveFunction = `create or replace function pgwaltz.save_stamp() returns trigger language plpgsql as $function$
declare
  saved pg_catalog.jsonb := '{}';
  part  pg_catalog.jsonb;
begin
  for i in 1 .. tg_nargs - 1 loop
    execute pg_catalog.format('select pg_catalog.jsonb_build_object(%L, ($1).%I)', tg_argv[i], tg_argv[i]) into part using new;
    saved := saved operator(pg_catalog.||) part;
  end loop;
  perform pg_catalog.set_config('pgwaltz.stamp', saved::pg_catalog.text, true);
  return new;
end
$function$`

const restoreFunction = `create or replace function pgwaltz.restore_stamp() returns trigger language plpgsql as $function$
begin
  return pg_catalog.jsonb_populate_record(new, pg_catalog.current_setting('pgwaltz.stamp')::pg_catalog.jsonb);
end
$function$`

func (p *planner) planRestorer(context.Context) error {
	if !p.cfg.Applies() || p.runtime == nil {
		return nil
	}
	if p.privileges() == config.PrivilegesReplica {
		if !p.separate() && !p.runtime.SetReplicationRole {
			p.refuse("no_replica_role", "as a superuser: grant set on parameter session_replication_role to "+pg.Quote(p.runtime.Name)+
				"; or set apply.privileges: restorer", "role %q may not set session_replication_role", p.runtime.Name)
		}
		return nil
	}
	var tables []*pg.Table
	for _, t := range p.sel.Tables {
		if len(stampColumns(p.cfg, t)) > 0 {
			tables = append(tables, t)
		}
	}
	if len(tables) == 0 {
		return nil
	}
	p.add(p.schema.objects["save_stamp()"], "remembers the stamp of an applied row", saveFunction)
	p.add(p.schema.objects["restore_stamp()"], "puts it back behind the application's triggers", restoreFunction)
	if p.separate() {
		p.add(p.schema.objects["save_stamp()"] && p.schema.objects["restore_stamp()"], "the triggers call them",
			"grant execute on function pgwaltz.save_stamp(), pgwaltz.restore_stamp() to "+pg.Quote(p.runtime.Name))
	}
	for _, t := range tables {
		args := append([]string{p.runtime.Name}, stampColumns(p.cfg, t)...)
		done := slices.Equal(t.Restorer(), args)
		if !done && !p.owners[t.Owner] {
			p.refuse("not_owner", fmt.Sprintf("run setup as %s (postgres.admin_dsn), or as a superuser: grant set on parameter session_replication_role to %s",
				t.Owner, pg.Quote(p.runtime.Name)), "table %s belongs to %q, and needs triggers that keep applied stamps", t.Ref(), t.Owner)
			continue
		}
		p.add(done, "keeps the stamps of rows applied to "+t.Ref().String(), triggerSQL(t, pg.SaveTrigger, "save_stamp", args))
		p.add(done, "keeps the stamps of rows applied to "+t.Ref().String(), triggerSQL(t, pg.RestoreTrigger, "restore_stamp", args))
	}
	return nil
}

func triggerSQL(t *pg.Table, name, function string, args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = pg.Literal(a)
	}
	return fmt.Sprintf("create or replace trigger %s before insert or update on %s for each row\n"+
		"  when (session_user = %s and pg_catalog.current_setting('pgwaltz.apply', true) = 'on')\n"+
		"  execute function pgwaltz.%s(%s)", pg.Quote(name), t.SQL(), quoted[0], function, strings.Join(quoted, ", "))
}
