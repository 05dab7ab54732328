package preflight

import (
	"context"
	"fmt"

	"github.com/pgwaltz/pgwaltz/source/names"
)

// planRepublisher makes the event trigger that publishes tables made anew. Only a superuser can;
// without it, the sidecar looks every second, and says what it may have missed.
func (p *planner) planRepublisher(ctx context.Context) error {
	if !p.cfg.Publishes() || !p.me.Superuser {
		return nil
	}
	body := names.RepublishBody(p.cfg.Postgres.Publication)
	var function, trigger bool
	err := p.conn.QueryRow(ctx, `select exists (select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
  where n.nspname = 'pgwaltz' and p.proname = 'republish' and p.pronargs = 0 and p.prosrc = $1),
exists (select from pg_catalog.pg_event_trigger where evtname = $2)`, body, names.Republisher).Scan(&function, &trigger)
	if err != nil {
		return fmt.Errorf("look for the event trigger: %w", err)
	}
	p.add(function, "a table that takes the name of a published one is published with it", names.RepublishSQL(p.cfg.Postgres.Publication))
	p.add(trigger, "in the transaction that makes or renames it", names.RepublisherSQL)
	return nil
}
