package hold

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// right is what a role may do to one thing, from wherever it has that.
type right struct {
	role, object        uint32
	to, kind, name, col string // quoted
	column              int16
	what                string
}

func (r right) String() string {
	if r.kind == onColumn {
		return fmt.Sprintf("%s %s (%s) on %s", r.to, r.what, r.col, r.name)
	}
	return fmt.Sprintf("%s %s on %s", r.to, r.what, r.name)
}

// rightsSQL finds what roles ($1) may write: tables, and columns of tables that they may not write as a whole.
const rightsSQL = `with things as (
  select c.oid, case c.relkind when 'S' then 'sequence' else 'table' end as kind, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) as name
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p', 'v', 'f', 'S') and ` + outside + `
)
select r.oid::int8, t.oid::int8, pg_catalog.quote_ident(r.rolname), t.kind, t.name, '', 0::int2, w
from pg_catalog.pg_roles r, things t, pg_catalog.unnest(case t.kind when 'sequence' then array['USAGE', 'UPDATE'] else array['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE'] end) w
where r.oid = any($1::int8[]::oid[]) and case t.kind when 'sequence' then pg_catalog.has_sequence_privilege(r.oid, t.oid, w) else pg_catalog.has_table_privilege(r.oid, t.oid, w) end
union all
select r.oid::int8, t.oid::int8, pg_catalog.quote_ident(r.rolname), 'column', t.name, pg_catalog.quote_ident(a.attname), a.attnum, w
from pg_catalog.pg_roles r, things t join pg_catalog.pg_attribute a on a.attrelid = t.oid, pg_catalog.unnest(array['INSERT', 'UPDATE']) w
where r.oid = any($1::int8[]::oid[]) and t.kind = 'table' and a.attacl is not null and not a.attisdropped and pg_catalog.has_column_privilege(r.oid, t.oid, a.attnum, w) and not pg_catalog.has_table_privilege(r.oid, t.oid, w)
order by 3, 5, 6, 8`

func rights(ctx context.Context, q pg.Querier, roles []int64) ([]right, error) {
	rows, err := q.Query(ctx, rightsSQL, roles)
	if err != nil {
		return nil, fmt.Errorf("read rights: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r right, err error) {
		var role, object int64
		err = row.Scan(&role, &object, &r.to, &r.kind, &r.name, &r.col, &r.column, &r.what)
		r.role, r.object = uint32(role), uint32(object)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("read rights: %w", err)
	}
	return list, nil
}

// lost is what the roles that are left alone could write before, and cannot any more, because they had it from others.
func (p *Pause) lost(ctx context.Context, q pg.Querier, before []right) ([]right, error) {
	after, err := rights(ctx, q, p.leftAlone())
	if err != nil {
		return nil, err
	}
	has := map[right]bool{}
	for _, r := range after {
		has[r] = true
	}
	var out []right
	for _, r := range before {
		if !has[r] {
			out = append(out, r)
		}
	}
	return out, nil
}

func (p *Pause) leftAlone() []int64 {
	return oids(p.Roles, func(r Role) bool { return !r.Held() && !r.Super })
}

// LeakError: roles that are held can write again, or a new table or role can be written. What was written since is not known.
type LeakError struct{ What string }

func (e *LeakError) Error() string { return "roles that are held can write: " + e.What }

// Hint is the way on.
func (e *LeakError) Hint() string {
	return "pgwaltz cutover abort, find who has granted it, and begin again"
}

// ExitCode is that of problems found.
func (e *LeakError) ExitCode() int { return 4 }

// Tight is nil while no role that is held can write: a *LeakError otherwise. ours are the roles as which pgwaltz works.
func Tight(ctx context.Context, conn *pgx.Conn, ours []string, except []string) error {
	roles, err := loadRoles(ctx, conn, ours, except)
	if err != nil {
		return err
	}
	list, err := rights(ctx, conn, bound(roles))
	if err != nil || len(list) == 0 {
		return err
	}
	return &LeakError{some(list)}
}

// bound are the roles that are held by grants.
func bound(roles []Role) []int64 {
	return oids(roles, func(r Role) bool { return r.Held() && r.Login && !r.Soft() })
}

const membersSQL = `select h.rolname || ' of ' || e.rolname from pg_catalog.pg_roles h, pg_catalog.pg_roles e
where h.oid = any($1::int8[]::oid[]) and e.oid = any($2::int8[]::oid[]) and pg_catalog.pg_has_role(h.oid, e.oid, 'member') order by 1`

// verify looks whether who is held cannot write any more, and who is left alone can as before. It is asked behind what was taken, in
// the same transaction.
func (p *Pause) verify(ctx context.Context, q pg.Querier, before []right) error {
	still, err := rights(ctx, q, bound(p.Roles))
	if err != nil {
		return err
	}
	if len(still) > 0 {
		p.add(preflight.Error, "still_writes", "revoke the membership from which the right comes, or leave the role alone: --except ROLE",
			"rights to write are left to roles that are to be held: %s", some(still))
	}
	lost, err := p.lost(ctx, q, before)
	if err != nil {
		return err
	}
	if len(lost) > 0 {
		p.add(preflight.Error, "would_lose", "grant it to the role itself", "roles that are left alone would lose rights that they have from others: %s", some(lost))
	}
	rows, err := q.Query(ctx, membersSQL, oids(p.Roles, func(r Role) bool { return r.Held() && r.Login && !r.Super }), oids(p.Roles, func(r Role) bool { return !r.Held() }))
	if err != nil {
		return fmt.Errorf("read memberships: %w", err)
	}
	members, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read memberships: %w", err)
	}
	if len(members) > 0 {
		p.add(preflight.Error, "may_become", "revoke the membership, or leave the role alone: --except ROLE", "roles that are to be held are members of roles that are left alone: %s", some(members))
	}
	return nil
}
