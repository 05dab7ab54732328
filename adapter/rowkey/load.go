package rowkey

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Querier runs queries; *pgx.Conn and pgx.Tx are Queriers.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Key is what identifies the rows of one table.
type Key struct {
	Columns []Column // in the order of the index; none when the table has no key
	Width   int      // how many columns the table has
	// Deferrable: the index may hold two rows of one key while a transaction runs.
	Deferrable bool
	// Partitioned: the table holds its rows in partitions, so that ONLY would read none.
	Partitioned bool
	NotNull     []string // columns of a partitioned table that are never NULL
}

// Params are the parameters of the key's columns.
func (k *Key) Params() []statement.Param {
	ps := make([]statement.Param, len(k.Columns))
	for i := range k.Columns {
		ps[i] = k.Columns[i].Param
	}
	return ps
}

// Generated lists the expressions of the generated columns of the key.
func (k *Key) Generated() (exprs []string) {
	for i := range k.Columns {
		if e := k.Columns[i].Generated; e != "" {
			exprs = append(exprs, e)
		}
	}
	return exprs
}

// Column is one column of a key.
type Column struct {
	Name  string
	Place int // among the columns of the table, from 0
	OID   uint32
	Form  wal.Form
	// Param is how statements compare the column.
	Param statement.Param
	// Hash computes the form FormHash.
	Hash statement.Hash
	// Generated is the expression of a generated column, in terms of the table's columns; "" for others.
	Generated string
	// Why says what keeps the form from being known; "" unless it is FormUnknown.
	Why string

	base string // the type as SQL, that of a domain's base: old values need not satisfy the domain
	coll uint32 // oid of the collation of the index column
}

// Unknown names a column whose equality is not known, and why; "" when there is none.
func (k *Key) Unknown() (column, why string) {
	for i := range k.Columns {
		if k.Columns[i].Form == wal.FormUnknown {
			return k.Columns[i].Name, k.Columns[i].Why
		}
	}
	return "", ""
}

// keySQL reads the columns of one key.
var keySQL = `with ix as materialized (
  select c.relkind, i.indexrelid, i.indrelid, i.indimmediate, i.indnkeyatts, i.indkey::int2[] as atts, i.indclass::oid[] as classes, i.indcollation::oid[] as colls
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_index i on i.indrelid = c.oid
  where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p')
    and case when c.relreplident = 'i' then i.indisreplident else i.indisprimary end
), col as materialized (
  select k.ord, ix.relkind, ix.indimmediate, a.attrelid, a.attnum, a.attname, a.atttypid, a.attcollation, a.attgenerated <> '' as generated,
    o.opcintype,
    -- A key without overlaps is a gist index, whose strategies are others; two values are equal as
    -- the type's own order has it.
    coalesce((select b.opcfamily from pg_catalog.pg_opclass b where b.opcintype = o.opcintype and b.opcdefault
      and b.opcmethod = (select y.oid from pg_catalog.pg_am y where y.amname = 'btree')
      and o.opcmethod <> (select y.oid from pg_catalog.pg_am y where y.amname = 'btree')), o.opcfamily) as opcfamily, ix.colls[k.ord - 1] as coll
  from ix cross join lateral pg_catalog.generate_series(1, ix.indnkeyatts) as k(ord)
  join pg_catalog.pg_attribute a on a.attrelid = ix.indrelid and a.attnum = ix.atts[k.ord - 1]
  join pg_catalog.pg_opclass o on o.oid = ix.classes[k.ord - 1]
)
select col.attname::text,
  (select pg_catalog.count(*) from pg_catalog.pg_attribute b where b.attrelid = col.attrelid and b.attnum > 0 and b.attnum < col.attnum and not b.attisdropped and b.attgenerated = ''),
  (select pg_catalog.count(*) from pg_catalog.pg_attribute b where b.attrelid = col.attrelid and b.attnum > 0 and not b.attisdropped and b.attgenerated = ''),
  col.atttypid::int8, pg_catalog.format_type(col.atttypid, -1),
  (with recursive b as (select t.oid, t.typtype, t.typbasetype from pg_catalog.pg_type t where t.oid = col.atttypid
    union all select t.oid, t.typtype, t.typbasetype from b join pg_catalog.pg_type t on b.typtype = 'd' and t.oid = b.typbasetype)
   select pg_catalog.format_type(b.oid, -1) from b where b.typtype <> 'd'), col.relkind = 'p',
  array(select b.attname::text from pg_catalog.pg_attribute b where col.relkind = 'p' and b.attrelid = col.attrelid and b.attnum > 0
    and not b.attisdropped and b.attnotnull and b.attgenerated = ''), not col.indimmediate, col.coll::int8,
  array(select pg_catalog.format('%I.%s', n.nspname, o.oprname) from pg_catalog.pg_amop m
    join pg_catalog.pg_operator o on o.oid = m.amopopr join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
    where m.amopfamily = col.opcfamily and m.amoplefttype = col.opcintype and m.amoprighttype = col.opcintype and m.amopstrategy in (1, 3, 5)
    order by m.amopstrategy),
  coalesce((select pg_catalog.format('%I.%I', n.nspname, l.collname) from pg_catalog.pg_collation l join pg_catalog.pg_namespace n on n.oid = l.collnamespace
    where l.oid = col.coll), ''),
  col.coll <> col.attcollation,
  case when ` + plainSQL(`col`) + ` then '' else coalesce((select pg_catalog.format('%I.%I', n.nspname, f.proname) from pg_catalog.pg_opclass h
    join pg_catalog.pg_am y on y.oid = h.opcmethod and y.amname = 'hash'
    join pg_catalog.pg_amop m on m.amopfamily = h.opcfamily and m.amoplefttype = h.opcintype and m.amoprighttype = h.opcintype and m.amopstrategy = 1
    join pg_catalog.pg_amop b on b.amopfamily = col.opcfamily and b.amoplefttype = col.opcintype and b.amoprighttype = col.opcintype
      and b.amopstrategy = 3 and b.amopopr = m.amopopr
    join pg_catalog.pg_amproc p on p.amprocfamily = h.opcfamily and p.amproclefttype = h.opcintype and p.amprocrighttype = h.opcintype and p.amprocnum = 2
    join pg_catalog.pg_proc f on f.oid = p.amproc join pg_catalog.pg_namespace n on n.oid = f.pronamespace
    where h.opcintype = col.opcintype limit 1), '') end,
  coalesce((select pg_catalog.pg_get_expr(d.adbin, d.adrelid) from pg_catalog.pg_attrdef d
    where col.generated and d.adrelid = col.attrelid and d.adnum = col.attnum), ''),
  ` + InputSQL + `
from col order by col.ord`

// InputSQL is an expression over a column named atttypid of a row named col: the application
// has a cast of its own from text to the type, so that a cast is not the input function.
const InputSQL = `exists (with recursive base(oid) as (select col.atttypid
    union select t.typbasetype from pg_catalog.pg_type t join base on base.oid = t.oid where t.typtype = 'd')
  select from base join pg_catalog.pg_cast k on k.casttarget = base.oid
  where k.castsource = 'pg_catalog.text'::pg_catalog.regtype and k.castfunc >= 16384)`

// Load reads the key of a table; a key without columns when it has none, or when there is no
// such table. An error says that it could not be found out.
func Load(ctx context.Context, q Querier, name wal.RelationName) (*Key, error) {
	k := &Key{}
	rows, err := q.Query(ctx, keySQL, name.Schema, name.Name)
	if err != nil {
		return nil, fmt.Errorf("read key of %s: %w", name, err)
	}
	defer rows.Close()
	for rows.Next() {
		var c Column
		var oid, coll int64
		var operators []string
		var collation, hash string
		var collate bool
		if err := rows.Scan(&c.Name, &c.Place, &k.Width, &oid, &c.Param.Type, &c.base, &k.Partitioned, &k.NotNull, &k.Deferrable, &coll, &operators, &collation, &collate, &hash, &c.Generated, &c.Param.Input); err != nil {
			return nil, fmt.Errorf("read key of %s: %w", name, err)
		}
		c.OID, c.Param.Name = uint32(oid), c.Name
		if len(operators) != 3 {
			return nil, fmt.Errorf("read key of %s: column %s has %d of the operators < = >", name, c.Name, len(operators))
		}
		for i, to := range []*string{&c.Param.Less, &c.Param.Equal, &c.Param.Greater} {
			if operators[i] != "pg_catalog."+[...]string{"<", "=", ">"}[i] {
				*to = operators[i]
			}
		}
		if collate {
			c.Param.Collation = collation
		}
		c.coll, c.Hash = uint32(coll), statement.Hash{Func: hash, Collation: collation}
		k.Columns = append(k.Columns, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read key of %s: %w", name, err)
	}
	if err := k.forms(ctx, q); err != nil {
		return nil, fmt.Errorf("read types of the key of %s: %w", name, err)
	}
	return k, nil
}
