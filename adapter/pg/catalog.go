package pg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pgwaltz/pgwaltz/wal"
)

// ErrNoTable is returned by LoadTable for a name that is no table.
var ErrNoTable = errors.New("no such table")

// tableSQL reads whole tables as JSON, which keeps it one round trip whatever their number. It locks
// no table, so it never waits for one that somebody else has locked: a default has no columns in
// it, and is printed without its table (pg_get_expr would open that, and pg_get_indexdef too).
const tableSQL = `select c.oid::int8, n.nspname::text, c.relname::text, pg_catalog.pg_get_userbyid(c.relowner)::text, c.relkind::text,
  c.relpersistence = 'u', c.relreplident::text, c.relispartition, c.relhassubclass, c.relrowsecurity,
  coalesce(rn.nspname, n.nspname)::text, coalesce(rc.relname, c.relname)::text,
  exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.deptype = 'e'),
  coalesce((select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', a.attname, 'num', a.attnum, 'oid', a.atttypid::int8,
      'type', pg_catalog.format_type(a.atttypid, -1), 'mod', a.atttypmod, 'typtype', t.typtype, 'elem', t.typelem::int8,
      'base', case when t.typtype = 'd' then (with recursive b(oid, kind, of, mod) as (
          select t.oid, t.typtype, t.typbasetype, -1
          union all select d.oid, d.typtype, d.typbasetype, case when b.mod = -1 then (select p.typtypmod from pg_catalog.pg_type p where p.oid = b.oid) else b.mod end
            from b join pg_catalog.pg_type d on d.oid = b.of where b.kind = 'd')
        select pg_catalog.jsonb_build_object('oid', b.oid::int8, 'mod', b.mod) from b where b.kind <> 'd') end,
      'len', t.typlen, 'notnull', a.attnotnull, 'generated', a.attgenerated, 'identity', a.attidentity,
      'default', a.atthasdef and a.attgenerated = '',
      'value', case when a.attgenerated = '' then coalesce(pg_catalog.pg_get_expr(f.adbin, 0), '') else '' end,
      'send', t.typsend <> 0 and t.typreceive <> 0,
      'elemtype', e.typtype, 'range', (select r.rngsubtype::int8 from pg_catalog.pg_range r where r.rngtypid = t.oid)) order by a.attnum)
    from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
    left join pg_catalog.pg_type e on e.oid = t.typelem and t.typlen = -1
    left join pg_catalog.pg_attrdef f on f.adrelid = a.attrelid and f.adnum = a.attnum
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '[]'),
  coalesce((select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', ic.relname, 'oid', i.indexrelid::int8, 'primary', i.indisprimary,
      'partial', i.indpred is not null, 'deferrable', not i.indimmediate, 'identity', i.indisreplident and i.indisvalid,
      'columns', (select pg_catalog.jsonb_agg(coalesce(a.attname, '') order by k.ord)
        from pg_catalog.unnest(i.indkey::int2[]) with ordinality as k(num, ord)
        left join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.num and k.num <> 0
        where k.ord <= i.indnkeyatts)) order by ic.relname)
    from pg_catalog.pg_index i join pg_catalog.pg_class ic on ic.oid = i.indexrelid
    where i.indrelid = c.oid and i.indisunique and i.indisvalid), '[]'),
  coalesce((select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', g.tgname, 'type', g.tgtype, 'enabled', g.tgenabled,
      'args', pg_catalog.encode(g.tgargs, 'hex')) order by g.tgname)
    from pg_catalog.pg_trigger g where g.tgrelid = c.oid and not g.tgisinternal), '[]')
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join lateral (select pg_catalog.pg_partition_root(c.oid) as oid) root on c.relispartition
left join pg_catalog.pg_class rc on rc.oid = root.oid
left join pg_catalog.pg_namespace rn on rn.oid = rc.relnamespace
where c.relkind in ('r', 'p') and c.relpersistence <> 't' and `

// LoadTable reads one table. The error is ErrNoTable when there is none of that name, or
// the name is that of a view, a foreign or a temporary table.
func LoadTable(ctx context.Context, q Querier, schema, name string) (*Table, error) {
	ts, err := loadTables(ctx, q, `n.nspname = $1::text and c.relname = $2::text`, schema, name)
	if err == nil && len(ts) == 0 {
		err = ErrNoTable
	}
	if err != nil {
		return nil, fmt.Errorf("read definition of %s.%s: %w", schema, name, err)
	}
	return ts[0], nil
}

// LoadTables reads every table outside of the system's schemas, in order of schema and name.
func LoadTables(ctx context.Context, q Querier) ([]*Table, error) {
	ts, err := loadTables(ctx, q, `n.nspname not like 'pg\_%' and n.nspname not in ('information_schema', 'pgwaltz') order by 2, 3`)
	if err != nil {
		return nil, fmt.Errorf("read definitions of tables: %w", err)
	}
	return ts, nil
}

func loadTables(ctx context.Context, q Querier, where string, args ...any) ([]*Table, error) {
	rows, err := q.Query(ctx, tableSQL+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []*Table
	for rows.Next() {
		t := &Table{}
		var oid int64
		var kind, identity string
		var columns, indexes, triggers []byte
		if err := rows.Scan(&oid, &t.Schema, &t.Name, &t.Owner, &kind, &t.Unlogged, &identity, &t.Partition, &t.HasChildren,
			&t.RowSecurity, &t.Root.Schema, &t.Root.Name, &t.Extension, &columns, &indexes, &triggers); err != nil {
			return nil, err
		}
		t.OID, t.Kind, t.Identity = uint32(oid), first(kind), wal.Identity(first(identity))
		if err := errors.Join(t.readColumns(columns), t.readIndexes(indexes), t.readTriggers(triggers)); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, rows.Err()
}

func (t *Table) readColumns(text []byte) error {
	var rows []struct {
		Name, Type, TypType, Generated, Identity, ElemType string
		Num                                                int16
		OID, Elem, Range                                   uint32
		Mod, Len                                           int32
		Base                                               *struct {
			OID uint32
			Mod int32
		}
		NotNull, Default, Send bool
		Value                  string
	}
	if err := json.Unmarshal(text, &rows); err != nil {
		return err
	}
	for _, r := range rows {
		c := Column{
			Name: r.Name, Num: r.Num, TypeOID: r.OID, TypeName: r.Type, TypMod: r.Mod, TypType: first(r.TypType), NotNull: r.NotNull,
			HasDefault: r.Default, Default: r.Value, Generated: first(r.Generated), Identity: first(r.Identity),
		}
		c.BaseOID, c.BaseMod = r.OID, r.Mod
		if r.Base != nil {
			c.BaseOID, c.BaseMod = r.Base.OID, r.Base.Mod
		}
		if r.Len == -1 {
			c.ElemOID = r.Elem
		}
		c.BinarySafe = r.Send && portable(r.OID) && (c.ElemOID == 0 || portable(c.ElemOID)) && (r.Range == 0 || portable(r.Range))
		t.Columns = append(t.Columns, c)
	}
	return nil
}

// portable reports whether the binary form of a type means the same on every server: a
// built-in type that does not hold an oid of the catalog. xml declares its encoding in
// binary and is left out too.
func portable(oid uint32) bool {
	switch oid {
	case 24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191, // regproc and its kind
		1008, 2207, 2208, 2209, 2210, 2211, 3735, 3770, 4090, 4097, 4192, // arrays of them
		142, 143, 2249, 2287, 1033, 1034: // xml, record, aclitem and their arrays
		return false
	}
	return oid > 0 && oid < 10000
}

func (t *Table) readIndexes(text []byte) error {
	var rows []struct {
		Name                                   string
		OID                                    uint32
		Columns                                []string
		Primary, Partial, Deferrable, Identity bool
	}
	if err := json.Unmarshal(text, &rows); err != nil {
		return err
	}
	for _, r := range rows {
		t.UniqueIndexes = append(t.UniqueIndexes, Index{
			Name: r.Name, OID: r.OID, Columns: r.Columns, Primary: r.Primary, Partial: r.Partial, Deferrable: r.Deferrable,
			Expression: slices.Contains(r.Columns, ""),
		})
		if r.Primary {
			t.PrimaryKey, t.DeferrableKey = r.Columns, r.Deferrable
		}
		if r.Identity && t.Identity == wal.IdentityIndex {
			t.IdentityIndex = r.Columns
		}
	}
	return nil
}

// Bits of pg_trigger.tgtype.
const (
	triggerRow    = 1 << 0
	triggerBefore = 1 << 1
	triggerInsert = 1 << 2
	triggerDelete = 1 << 3
	triggerUpdate = 1 << 4
)

func (t *Table) readTriggers(text []byte) error {
	var rows []struct {
		Name, Enabled, Args string
		Type                int
	}
	if err := json.Unmarshal(text, &rows); err != nil {
		return err
	}
	for _, r := range rows {
		g := Trigger{
			Name: r.Name, Enabled: first(r.Enabled), Row: r.Type&triggerRow != 0, Before: r.Type&triggerBefore != 0,
			Insert: r.Type&triggerInsert != 0, Update: r.Type&triggerUpdate != 0, Delete: r.Type&triggerDelete != 0,
		}
		if args := strings.TrimSuffix(unhex(r.Args), "\x00"); args != "" {
			g.Args = strings.Split(args, "\x00")
		}
		t.Triggers = append(t.Triggers, g)
	}
	return nil
}

func first(s string) byte {
	if s == "" {
		return 0
	}
	return s[0]
}
