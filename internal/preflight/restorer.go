package preflight

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
)

// The application's triggers change rows that are written: they set version and updated_at, the
// user who wrote, and more. A row that we apply has to be stored as it came. Where
// session_replication_role may not be set, two triggers of ours stand around them: one that runs
// first and remembers the row, one that runs last and puts it back. Both act only for the
// sidecar's role while it applies, and not for what a trigger writes by itself; for everybody else
// the WHEN clause is false and no function is called.

// saveFunction remembers the row in the text of its type, which holds every value exactly.
const saveFunction = `create or replace function pgwaltz.save_row() returns trigger language plpgsql as $function$
begin
  perform pg_catalog.set_config('pgwaltz.row', new::pg_catalog.text, true);
  return new;
end
$function$`

const restoreFunction = `create or replace function pgwaltz.restore_row() returns trigger language plpgsql as $function$
begin
  execute pg_catalog.format('select ($1::%I.%I).*', tg_table_schema, tg_table_name) into new
    using pg_catalog.current_setting('pgwaltz.row');
  return new;
end
$function$`

// restored reports whether a table needs the two triggers: where no trigger of the application
// may change a row, and none that changes a stamp can be added unseen, it does not.
func restored(cfg *config.Config, t *pg.Table) bool {
	return len(stampColumns(cfg, t)) > 0 || t.HasRowTriggers()
}

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
		if restored(p.cfg, t) {
			tables = append(tables, t)
		}
	}
	if len(tables) == 0 {
		return nil
	}
	p.add(p.schema.objects["save_row()"], "remembers an applied row", saveFunction)
	p.add(p.schema.objects["restore_row()"], "puts it back behind the application's triggers", restoreFunction)
	if p.separate() {
		p.add(p.schema.objects["save_row()"] && p.schema.objects["restore_row()"], "the triggers call them",
			"grant execute on function pgwaltz.save_row(), pgwaltz.restore_row() to "+pg.Quote(p.runtime.Name))
	}
	for _, t := range tables {
		args := []string{p.runtime.Name}
		done := slices.Equal(t.Restorer(), args)
		if !done && !p.owners[t.Owner] {
			p.refuse("not_owner", fmt.Sprintf("run setup as %s (postgres.admin_dsn), or as a superuser: grant set on parameter session_replication_role to %s",
				t.Owner, pg.Quote(p.runtime.Name)), "table %s belongs to %q, and needs triggers that keep applied rows", t.Ref(), t.Owner)
			continue
		}
		p.add(done, "keeps rows as they are applied to "+t.Ref().String(), triggerSQL(t, pg.SaveTrigger, "save_row", args))
		p.add(done, "keeps rows as they are applied to "+t.Ref().String(), triggerSQL(t, pg.RestoreTrigger, "restore_row", args))
	}
	return nil
}

// RestorerSQL returns the statements that make the functions and both triggers of one table, for rows that role
// applies; re-runnable. It is for who applies rows without being set up as a region.
func RestorerSQL(t *pg.Table, role string) []string {
	args := []string{role}
	return []string{saveFunction, restoreFunction, triggerSQL(t, pg.SaveTrigger, "save_row", args), triggerSQL(t, pg.RestoreTrigger, "restore_row", args)}
}

func triggerSQL(t *pg.Table, name, function string, args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = pg.Literal(a)
	}
	return fmt.Sprintf("create or replace trigger %s before insert or update on %s for each row\n"+
		"  when (session_user = %s and pg_catalog.current_setting('pgwaltz.apply', true) = 'on' and pg_catalog.pg_trigger_depth() = 0)\n"+
		"  execute function pgwaltz.%s(%s)", pg.Quote(name), t.SQL(), quoted[0], function, strings.Join(quoted, ", "))
}
