package rowkey

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// part is a type that a key column's type is made of, the type itself among them.
type part struct {
	typ   // what the catalog says of it
	depth int
	folds bool // its collation is not deterministic
}

// typ is a type as the catalog has it.
type typ struct {
	oid       uint32
	kind      string
	sql       string
	extension string
	made      bool // made of other types: a domain, an array, a range, a composite
	of        []uint32
	colls     []uint32 // their collations; 0: the one of the whole
}

// typesSQL reads types, what they are made of, and with which collations.
const typesSQL = `select t.oid::int8, t.typtype::text, pg_catalog.format_type(t.oid, -1),
  coalesce((select x.extname::text from pg_catalog.pg_depend d join pg_catalog.pg_extension x on x.oid = d.refobjid
    where d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and d.objid = t.oid
      and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and d.deptype = 'e' limit 1), ''),
  case when t.typtype = 'd' then array[t.typbasetype::int8]
    when t.typtype = 'r' then array(select r.rngsubtype::int8 from pg_catalog.pg_range r where r.rngtypid = t.oid)
    when t.typtype = 'm' then array(select r.rngtypid::int8 from pg_catalog.pg_range r where r.rngmultitypid = t.oid)
    when t.typtype = 'c' then array(select a.atttypid::int8 from pg_catalog.pg_attribute a
      where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped order by a.attnum)
    when t.typelem <> 0 then array(select e.oid::int8 from pg_catalog.pg_type e where e.oid = t.typelem and e.typarray = t.oid)
    else '{}' end,
  case when t.typtype = 'r' then array(select r.rngcollation::int8 from pg_catalog.pg_range r where r.rngtypid = t.oid)
    when t.typtype = 'c' then array(select a.attcollation::int8 from pg_catalog.pg_attribute a
      where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped order by a.attnum)
    else '{}' end
from pg_catalog.pg_type t where t.oid = any($1::int8[]::oid[])`

// maxDepth bounds how deep types are looked into; a deeper one is not known.
const maxDepth = 20

// forms decides the form of each column from what its type is made of.
func (k *Key) forms(ctx context.Context, q Querier) error {
	if k.plain() {
		return nil
	}
	known := map[uint32]*typ{}
	var open []int64
	for i := range k.Columns {
		open = append(open, int64(k.Columns[i].OID))
	}
	for depth := 0; len(open) > 0 && depth < maxDepth; depth++ {
		var next []int64
		if err := loadTypes(ctx, q, open, known); err != nil {
			return err
		}
		for _, oid := range open {
			if t := known[uint32(oid)]; t != nil {
				for _, of := range t.of {
					if known[of] == nil {
						next = append(next, int64(of))
					}
				}
			}
		}
		open = next
	}
	folding, err := folding(ctx, q)
	if err != nil {
		return err
	}
	for i := range k.Columns {
		c := &k.Columns[i]
		var parts []part
		walk(known, folding, c.OID, c.coll, 0, 0, &parts)
		collation := c.Hash.Collation
		c.Form, c.Hash, c.Why = formOf(parts, c.Hash.Func)
		if c.Form == wal.FormHash {
			c.Hash.Collation = collation
		}
	}
	return nil
}

// plain gives all columns their form where that takes no look at the catalog: types whose text tells their values apart, under
// a collation of the server's own, which calls only the same bytes equal.
func (k *Key) plain() bool {
	for i := range k.Columns {
		if c := &k.Columns[i]; !plainTypes[c.OID] || !slices.Contains(bytewise, c.coll) {
			return false
		}
	}
	for i := range k.Columns {
		k.Columns[i].Form, k.Columns[i].Hash, k.Columns[i].Why = wal.FormPlain, statement.Hash{}, ""
	}
	return true
}

// plainSQL is the condition of plain for one column: of such a column no hash is needed.
func plainSQL(col string) string {
	types := slices.Sorted(maps.Keys(plainTypes))
	return fmt.Sprintf("%s.atttypid in (%s) and %s.coll in (%s)", col, list(types), col, list(bytewise))
}

func list(oids []uint32) string {
	texts := make([]string, len(oids))
	for i, oid := range oids {
		texts[i] = strconv.FormatUint(uint64(oid), 10)
	}
	return strings.Join(texts, ", ")
}

// walk lists a type and what it is made of. What a domain is made of stands at its own depth.
func walk(known map[uint32]*typ, folding map[uint32]bool, oid, coll uint32, depth, steps int, out *[]part) {
	t := known[oid]
	if t == nil || steps > maxDepth {
		*out = append(*out, part{typ: typ{oid: oid, sql: "unknown"}, depth: depth})
		return
	}
	*out = append(*out, part{typ: *t, depth: depth, folds: folding[coll]})
	for i, of := range t.of {
		inner := coll
		if i < len(t.colls) && t.colls[i] != 0 {
			inner = t.colls[i]
		}
		next := depth + 1
		if t.kind == "d" {
			next = depth
		}
		walk(known, folding, of, inner, next, steps+1, out)
	}
}

func loadTypes(ctx context.Context, q Querier, oids []int64, known map[uint32]*typ) error {
	rows, err := q.Query(ctx, typesSQL, oids)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		t := &typ{}
		var oid int64
		var of, colls []int64
		if err := rows.Scan(&oid, &t.kind, &t.sql, &t.extension, &of, &colls); err != nil {
			return err
		}
		t.oid, t.made = uint32(oid), len(of) > 0
		for _, o := range of {
			t.of = append(t.of, uint32(o))
		}
		for _, c := range colls {
			t.colls = append(t.colls, uint32(c))
		}
		known[t.oid] = t
	}
	return rows.Err()
}

// folding lists the collations that call different bytes equal.
func folding(ctx context.Context, q Querier) (map[uint32]bool, error) {
	rows, err := q.Query(ctx, `select oid::int8 from pg_catalog.pg_collation where not collisdeterministic`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := map[uint32]bool{}
	for rows.Next() {
		var oid int64
		if err := rows.Scan(&oid); err != nil {
			return nil, err
		}
		found[uint32(oid)] = true
	}
	return found, rows.Err()
}
