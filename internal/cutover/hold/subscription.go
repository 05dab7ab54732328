package hold

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// asOwner is the version from which on the server applies what a subscription brings with the rights of each table's owner.
const asOwner = 160000

// appliedSQL finds subscriptions of this database that apply tables of roles that are held ($1) with these roles' rights. Those that are disabled bring
// nothing. Of a partitioned table the owner of the one that the publication names counts, whose rights are asked for on its partitions.
const appliedSQL = `select s.subname::text, pg_catalog.array_agg(distinct o.rolname::text order by o.rolname::text), pg_catalog.min(r.srrelid::pg_catalog.regclass::text), pg_catalog.count(*)::int4
from pg_catalog.pg_subscription s join pg_catalog.pg_database d on d.oid = s.subdbid join pg_catalog.pg_subscription_rel r on r.srsubid = s.oid
join pg_catalog.pg_class c on c.oid = r.srrelid join pg_catalog.pg_roles o on o.oid = c.relowner
where d.datname = pg_catalog.current_database() and s.subenabled and not s.subrunasowner and o.oid = any($1::int8[]::oid[]) group by 1 order by 1`

// subscribed names subscriptions whose rows would not come any more: their worker stops at the first table whose owner may not write, and begins
// again and again.
func (p *Pause) subscribed(ctx context.Context, q pg.Querier) error {
	var version int
	if err := q.QueryRow(ctx, `select pg_catalog.current_setting('server_version_num')::int4`).Scan(&version); err != nil {
		return fmt.Errorf("read the server's version: %w", err)
	}
	if version < asOwner {
		return nil
	}
	rows, err := q.Query(ctx, appliedSQL, oids(p.Roles, func(r Role) bool { return r.Held() && !r.Super }))
	if err != nil {
		return fmt.Errorf("read subscriptions: %w", err)
	}
	var name, table string
	var owners []string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&name, &owners, &table, &n}, func() error {
		p.add(preflight.Error, "applied_as_owner", "as the subscription's owner: alter subscription "+pg.Quote(name)+" set (run_as_owner = true); or leave the owners alone and let the application use other roles: --except "+strings.Join(owners, ","),
			"subscription %q applies %d tables, such as %s, with the rights of owners who are to be held (%s): it would stop until writes are given back", name, n, table, strings.Join(owners, ", "))
		return nil
	})
	if err != nil {
		return fmt.Errorf("read subscriptions: %w", err)
	}
	return nil
}
