package preflight

import (
	"context"
	"fmt"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
)

// planOrigins creates one replication origin for each peer.
func (p *planner) planOrigins(ctx context.Context) error {
	if !p.cfg.Applies() {
		return nil
	}
	for _, peer := range p.cfg.PeerNames() {
		name := config.OriginName(p.cfg.Cluster, peer)
		var exists bool
		if err := p.conn.QueryRow(ctx, `select exists (select from pg_catalog.pg_replication_origin where roname = $1::text)`, name).Scan(&exists); err != nil {
			return fmt.Errorf("read replication origins: %w", err)
		}
		sql := fmt.Sprintf("select pg_catalog.pg_replication_origin_create(%s)", pg.Literal(name))
		switch {
		case exists || p.me.Superuser || p.me.CreateOrigin:
			p.out.Statements = append(p.out.Statements, Statement{SQL: sql, Why: "marks what comes from " + peer, Done: exists, origin: true})
		default:
			p.warn("no_origin", "as a superuser: "+sql, "replication origin %q does not exist, and role %q may not create it: transactions are marked with a message instead",
				name, p.me.Name)
		}
	}
	return nil
}

// planSlot comes last: from here on the server keeps its WAL for us.
func (p *planner) planSlot(context.Context) error {
	if !p.cfg.Publishes() {
		return nil
	}
	if p.slot != nil {
		checkSlot(p.facts, &p.out.Findings)
	}
	p.out.Statements = append(p.out.Statements, Statement{
		SQL:  fmt.Sprintf("select lsn from pg_catalog.pg_create_logical_replication_slot(%s, 'pgoutput')", pg.Literal(p.cfg.Postgres.Slot)),
		Why:  "the server keeps its WAL until the sidecar has read it; drop the slot when pgwaltz is given up",
		Done: p.slot != nil, slot: true,
	})
	return nil
}
