package apply

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// What was read of a table holds only while the table is as it was then. So each commit looks again, under the locks that its rows
// hold. To put the names of all columns together costs more than the rest of a small transaction. But what is in the catalog
// says which transaction wrote it: where none of it is from a transaction that may have ended since the definition was read, and
// nothing is gone, the definition is the one that was read, and no name is looked at.

// unaltered says from when on a table, as it was read, may have been altered.
type unaltered struct {
	since    int64     // every transaction below this id had ended, and was seen, when the definition was read or compared last
	asked    time.Time // when that was
	triggers int64     // how many triggers the table had
}

// maxUnaltered is how long a definition is relied on before it is compared name by name: ids of transactions in the catalog have
// 32 bits, and tell nothing when half of these have passed.
const maxUnaltered = time.Minute

// horizonSQL is the id of which unaltered.since tells.
const horizonSQL = `pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::int8`

// triggersOf is another text whenever the triggers of a table were changed; it takes an expression that is its oid.
func triggersOf(oid string) string {
	return `coalesce((select pg_catalog.sum(pg_catalog.hashint8(g.xmin::text::int8)) from pg_catalog.pg_trigger g where g.tgrelid = ` + oid + `), 0)::text`
}

// attributesOf selects another array whenever the columns of a table were changed in any way; it takes an expression that is its oid.
func attributesOf(oid string) string {
	return `select pg_catalog.array_agg(c.x) from (select a.xmin as x from pg_catalog.pg_attribute a where a.attrelid = ` + oid + ` and a.attnum > 0 order by a.attnum) as c`
}

// definitionsSQL fails with 22012 where a table is not called as it was when it was read, or its columns are not, or are of other types, or it has other
// triggers; $1 are tables, $2 their columns (naming), $3 their triggers (triggersOf), $4 their schemas, $5 their names. Statements name tables: one that has given its
// name to another one since it was read was not written at all, and the other one holds locks of this transaction, and keeps the name. The names are read from
// the catalog, which takes no right: to_regclass fails where the session may not use a schema, of which changes are merely parked. It returns the id for
// unaltered.since, of its own snapshot.
var definitionsSQL = `select ` + horizonSQL + ` / (` + sameSQL + `)::int`

var sameSQL = `not exists (select from rows from (pg_catalog.unnest($1::int8[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::text[])) as u(o, n, g, s, t)
  where not exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace m on m.oid = c.relnamespace where c.oid = o::oid and c.relname::text = t and m.nspname::text = s) or g is distinct from ` + triggersOf("o::oid") + `
    or n is distinct from (select coalesce(pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attnum, a.atttypid, a.atttypmod, a.attname), ',' order by a.attnum), '')
      from pg_catalog.pg_attribute a where a.attrelid = o::oid and a.attnum > 0 and not a.attisdropped))`

// unalteredSQL is definitionsSQL, which it comes to only where something may be another one than it was: $6 is the lowest of
// unaltered.since, $7 how many triggers there were in all. It returns 0 where it did not. Rows of columns never go
// before that of their table, so they are not counted. An id that lies ahead of that of this transaction has an age below 0.
var unalteredSQL = `select case when (select pg_catalog.count(*) from pg_catalog.pg_class c join pg_catalog.pg_namespace m on m.oid = c.relnamespace
    where c.oid = any($1::int8[]::oid[]) and ` + olderSQL("c") + ` and ` + olderSQL("m") + `) = pg_catalog.cardinality($1::int8[])
  and (select pg_catalog.count(*) from pg_catalog.pg_attribute a where a.attrelid = any($1::int8[]::oid[]) and a.attnum > 0 and not ` + olderSQL("a") + `) = 0
  and (select pg_catalog.count(*) = $7::int8 and pg_catalog.count(*) filter (where ` + olderSQL("g") + `) = $7::int8 from pg_catalog.pg_trigger g where g.tgrelid = any($1::int8[]::oid[]))
then 0 else ` + horizonSQL + ` / (` + sameSQL + `)::int end`

// olderSQL reports whether a row was written by a transaction that had ended before the definitions were read.
func olderSQL(row string) string {
	return `pg_catalog.age(` + row + `.xmin) > (select pg_catalog.age($6::text::pg_catalog.xid))`
}

// guardDefinitions lets the commit fail where columns of a table have other names or types than they had when it was read, or it has other triggers:
// a trigger that nobody knew of may have stored something else than what came, and what a column rounds was not looked at. The rows
// that were written or read hold locks by now, so nobody can alter them any more. A trigger that one partition alone gets, without its table, is
// seen when the definition is looked at again (schemaAge): to go through all partitions at each commit would cost too much.
func (a *Applier) guardDefinitions(ctx context.Context, b *pipeline) error {
	if len(a.named) == 0 {
		return nil
	}
	oids, names, triggers := a.scratch(wal.OIDInt8), a.scratch(wal.OIDText), a.scratch(wal.OIDText)
	schemas, tables := a.scratch(wal.OIDText), a.scratch(wal.OIDText)
	now, quick := time.Now(), true
	since, count := int64(0), int64(0)
	list, seen := make([]*tableSchema, 0, len(a.named)), make(map[uint32]bool, len(a.named))
	for s := range a.named {
		oids.int8(int64(s.oid))
		names.bytes([]byte(s.naming()))
		triggers.bytes([]byte(s.triggers))
		schemas.bytes([]byte(s.name.Schema))
		tables.bytes([]byte(s.name.Name))
		quick = quick && !seen[s.oid] && now.Sub(s.unaltered.asked) < maxUnaltered
		if seen[s.oid] = true; since == 0 || s.unaltered.since < since {
			since = s.unaltered.since
		}
		count += s.unaltered.triggers
		list = append(list, s)
	}
	sql, args := definitionsSQL, [][]byte{oids.param(), names.param(), triggers.param(), schemas.param(), tables.param()}
	if quick {
		sql, args = unalteredSQL, append(args, number(uint64(since)%(1<<32)), binary.BigEndian.AppendUint64(nil, uint64(count)))
	}
	if err := a.exec(ctx, b, sql, args, []int16{1}); err != nil {
		return err
	}
	b.read(rowsInto(func(v [][]byte) {
		if horizon := int8Of(v[0]); horizon > 0 { // they were compared, and are the same
			for _, s := range list {
				s.unaltered.since, s.unaltered.asked = horizon, now
			}
		}
	}, func(err error) error { return err }))
	return nil
}

// naming is what the columns are called, and their types, as definitionsSQL has it.
func (s *tableSchema) naming() string {
	if s.names == "" {
		var b strings.Builder
		for i, c := range s.columns {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "%d %d %d %s", c.num, c.oid, c.mod, c.name)
		}
		s.names = b.String()
	}
	return s.names
}
