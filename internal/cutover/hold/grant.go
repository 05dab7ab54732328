package hold

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// Kinds of things on which a right may be.
const (
	onTable    = "table"
	onColumn   = "column"
	onSequence = "sequence"
	onDatabase = "database"
)

// grant is what one role may do on one thing, as its owner has granted it.
type grant struct {
	kind      string
	object    uint32 // OID of the relation or the database
	name      string // quoted
	column    int16
	colName   string // quoted
	owner     string
	mine      bool   // this session may grant and revoke it
	other     string // who granted it, where that is not the owner
	grantee   uint32 // 0 is PUBLIC
	to        string // quoted
	grantable bool
	rights    []string
	// given: it is granted for the time of the pause, and taken back behind it.
	given bool
}

// where is "table a.b".
func (g *grant) where() string {
	if g.kind == onColumn {
		return onTable + " " + g.name
	}
	return g.kind + " " + g.name
}

func (g *grant) what() string {
	if g.kind != onColumn {
		return strings.Join(g.rights, ", ")
	}
	return strings.Join(g.rights, " ("+g.colName+"), ") + " (" + g.colName + ")"
}

// sql takes the right; given ones are granted.
func (g *grant) sql() string {
	if g.given {
		return fmt.Sprintf("grant %s on %s to %s", g.what(), g.where(), g.to)
	}
	return fmt.Sprintf("revoke %s on %s from %s", g.what(), g.where(), g.to)
}

// outside are the relations that an application does not write to.
const outside = `n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgwaltz', 'pglogical', 'pglogical_origin')
  and not exists (select from pg_catalog.pg_depend e where e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and e.objid = c.oid and e.deptype = 'e')`

// grantsSQL finds each right to write, those that owners have without a grant too. $1: rights to connect as well.
const grantsSQL = `with things as (
  select case c.relkind when 'S' then 'sequence' else 'table' end as kind, c.oid, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) as name, 0::int2 as col, '' as colname,
    c.relowner as owner, coalesce(c.relacl, pg_catalog.acldefault(case c.relkind when 'S' then 's' else 'r' end::"char", c.relowner)) as acl,
    case c.relkind when 'S' then array['USAGE', 'UPDATE'] else array['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE'] end as rights
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p', 'v', 'f', 'S') and ` + outside + `
  union all select 'column', c.oid, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), a.attnum, pg_catalog.quote_ident(a.attname), c.relowner, a.attacl, array['INSERT', 'UPDATE']
  from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where a.attacl is not null and not a.attisdropped and c.relkind in ('r', 'p', 'v', 'f') and ` + outside + `
  union all select 'database', d.oid, pg_catalog.quote_ident(d.datname), 0, '', d.datdba, coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba)), array['CONNECT']
  from pg_catalog.pg_database d where $1 and d.datname = pg_catalog.current_database()
)
select t.kind, t.oid::int8, t.name, t.col, t.colname, pg_catalog.pg_get_userbyid(t.owner)::text, pg_catalog.pg_has_role(t.owner, 'usage'),
  case when x.grantor = t.owner then '' else pg_catalog.pg_get_userbyid(x.grantor)::text end,
  x.grantee::int8, case x.grantee when 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) end, x.is_grantable, pg_catalog.array_agg(x.privilege_type order by x.privilege_type)
from things t, pg_catalog.aclexplode(t.acl) x where x.privilege_type = any(t.rights)
group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 order by t.kind = 'column' desc, 3, 4, 10`

func loadGrants(ctx context.Context, q pg.Querier, connect bool) ([]grant, error) {
	rows, err := q.Query(ctx, grantsSQL, connect)
	if err != nil {
		return nil, fmt.Errorf("read grants: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (g grant, err error) {
		var object, grantee int64
		err = row.Scan(&g.kind, &object, &g.name, &g.column, &g.colName, &g.owner, &g.mine, &g.other, &grantee, &g.to, &g.grantable, &g.rights)
		g.object, g.grantee = uint32(object), uint32(grantee)
		return g, err
	})
	if err != nil {
		return nil, fmt.Errorf("read grants: %w", err)
	}
	return list, nil
}
