package preflight

import (
	"context"
	"fmt"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/source/names"
)

// planRepublisher makes the event trigger that publishes tables made anew. Only a superuser can;
// without it, the sidecar looks every second, and says what it may have missed. The function belongs to a
// superuser too, whoever made one of its name before: it works with the rights of its owner, for everybody.
func (p *planner) planRepublisher(ctx context.Context) error {
	if !p.cfg.Publishes() || !p.me.Superuser {
		return nil
	}
	body := names.RepublishBody(p.cfg.Postgres.Publication)
	var foreign, function, trigger bool
	err := p.conn.QueryRow(ctx, `select coalesce(bool_or(not o.rolsuper), false), coalesce(bool_or(o.rolsuper and p.prosrc = $1 and p.prosecdef and p.proconfig @> $3::text[]), false),
exists (select from pg_catalog.pg_event_trigger where evtname = $2)
from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace join pg_catalog.pg_roles o on o.oid = p.proowner
where n.nspname = 'pgwaltz' and p.proname = 'republish' and p.pronargs = 0`, body, names.Republisher, names.RepublishSettings()).Scan(&foreign, &function, &trigger)
	if err != nil {
		return fmt.Errorf("look for the event trigger: %w", err)
	}
	if foreign {
		p.add(false, "a function that works with a superuser's rights belongs to one", "alter function pgwaltz.republish() owner to "+pg.Quote(p.me.Name))
	}
	p.add(function, "a table that takes the name of a published one is published with it", names.RepublishSQL(p.cfg.Postgres.Publication))
	p.add(trigger, "in the transaction that makes or renames it", names.RepublisherSQL)
	return nil
}
