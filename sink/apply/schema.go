package apply

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/adapter/rowkey"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// querier is what reading the catalog needs.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// tableSchema is a local table as the catalog has it now.
type tableSchema struct {
	name      wal.RelationName
	oid       uint32
	signature string
	due       time.Time     // when it is looked at again
	rel       *wal.Relation // the description that it was read for
	columns   []tableColumn
	index     map[string]int
	plain     bool     // no partitioned table: statements must not reach its children
	immediate bool     // every unique index is checked at once, so ON CONFLICT may be used
	fires     bool     // a row trigger fires here also for applied rows (ENABLE REPLICA or ALWAYS)
	disturbs  bool     // a trigger of the application, of any kind, fires for what this session writes
	after     bool     // one of them is an AFTER trigger
	late      []string // the constraints of those that may fire at the end of the transaction, as SQL
	rewrites  bool     // a trigger of the application may change a row of ours before it is stored
	key       *rowkey.Key
	deferred  []deferred // deferrable constraints
	// references are foreign keys onto the table that cascade; read only where they are enforced.
	references []reference
	// parent: rows of other tables may reference rows of this one. children says which; it is read
	// when a row is deleted.
	parent       bool
	children     []child
	childrenRead bool
	names        string // naming
	triggers     string // triggersOf
	attributes   string // attributesOf
	unaltered    unaltered
}

type tableColumn struct {
	name      string
	num       int16
	typ       string // format_type under an empty search_path, without a length
	oid       uint32
	wire      string // the name that an origin gives a type of this kind (wal.Column.Type); "" for built-in ones
	mod       int32  // its modifier: a length, a scale, a precision; -1 for none
	coerces   bool   // a domain, a composite or a range, or an array of them, which may hold modifiers of its own
	generated bool
	always    bool // GENERATED ALWAYS AS IDENTITY
	input     bool // statement.Param.Input
}

// stamps finds the stamp columns of the table as it is here.
func (s *tableSchema) stamps(version, updatedAt string) conflict.Columns {
	here := wal.Relation{}
	for _, c := range s.columns {
		if !c.generated { // the WAL does not have it
			here.Columns = append(here.Columns, wal.Column{Name: c.name, OID: c.oid})
		}
	}
	return conflict.ColumnsOf(&here, version, updatedAt)
}

// moves reports whether an update of the table may make the server change rows of others.
func (s *tableSchema) moves() bool {
	return slices.ContainsFunc(s.references, func(r reference) bool { return r.updates })
}

// itself reports whether deletes of rows of the table may make the server change others of it.
func (s *tableSchema) itself() bool {
	return slices.ContainsFunc(s.references, func(r reference) bool { return r.holder == s.name })
}

// treeSQL finds a table, and all of its partitions where it has them: what is on one of these
// counts as its own. pg_partition_tree would wait for locks on them.
const treeSQL = `with recursive rel as materialized (
  select c.oid, c.relkind from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p')
), tree as (
  select oid from rel union select h.inhrelid from tree join pg_catalog.pg_inherits h on h.inhparent = tree.oid join rel on rel.relkind = 'p'
)`

// signature is another text whenever the definition of a table was changed.
const signature = `pg_catalog.concat_ws('.', (select oid from rel),
  (select pg_catalog.sum(pg_catalog.hashint8(oid::int8)) from tree),
  (select pg_catalog.sum(pg_catalog.hashint8(a.xmin::text::int8 * 2048 + a.attnum)) from pg_catalog.pg_attribute a join tree on a.attrelid = tree.oid where a.attnum > 0),
  (select pg_catalog.sum(pg_catalog.hashint8(i.xmin::text::int8)) from pg_catalog.pg_index i join tree on i.indrelid = tree.oid),
  (select pg_catalog.sum(pg_catalog.hashint8(g.xmin::text::int8)) from pg_catalog.pg_trigger g join tree on g.tgrelid = tree.oid))`

const signatureSQL = treeSQL + ` select ` + signature

// schemaSQL reads a table; $3 tells whether the session is a replica.
var schemaSQL = treeSQL + `, whole as materialized (
  select not exists (select from pg_catalog.pg_index i join tree on i.indrelid = tree.oid
      where (i.indisunique or i.indisexclusion) and not i.indimmediate) as immediate,
    exists (select from pg_catalog.pg_trigger g join tree on g.tgrelid = tree.oid where not g.tgisinternal and g.tgenabled in ('R', 'A')) as fires,
    exists (select from pg_catalog.pg_trigger g join tree on g.tgrelid = tree.oid
      where g.tgtype & 3 = 3 and g.tgtype & 20 <> 0 -- before, for each row, insert or update
        and g.tgenabled in (case when $3 then 'R' else 'O' end, 'A') and g.tgname not in ('` + pg.SaveTrigger + `', '` + pg.RestoreTrigger + `')) as rewrites,
    exists (select from pg_catalog.pg_trigger g join tree on g.tgrelid = tree.oid where not g.tgisinternal
        and g.tgenabled in (case when $3 then 'R' else 'O' end, 'A') and g.tgname not in ('` + pg.SaveTrigger + `', '` + pg.RestoreTrigger + `')) as disturbs,
    exists (select from pg_catalog.pg_trigger g join tree on g.tgrelid = tree.oid where not g.tgisinternal and g.tgtype & 2 = 0
        and g.tgenabled in (case when $3 then 'R' else 'O' end, 'A')) as after,
    array(select distinct pg_catalog.format('%I.%I', n.nspname, k.conname) from pg_catalog.pg_trigger g join tree on g.tgrelid = tree.oid
      join pg_catalog.pg_constraint k on k.oid = g.tgconstraint join pg_catalog.pg_namespace n on n.oid = k.connamespace
      where not g.tgisinternal and g.tgdeferrable and g.tgenabled in (case when $3 then 'R' else 'O' end, 'A') order by 1) as late,
    exists (select from pg_catalog.pg_trigger g join tree on g.tgrelid = tree.oid where g.tgisinternal and g.tgtype & 8 <> 0 and g.tgconstrrelid <> 0) as parent,
    ` + triggersOf("(select oid from rel)") + ` as triggers,
    (` + attributesOf("(select oid from rel)") + `)::text as attributes,
    (select pg_catalog.count(*) from pg_catalog.pg_trigger g where g.tgrelid = (select oid from rel)) as ntriggers, ` + horizonSQL + ` as horizon,
    ` + signature + ` as signature
)
select coalesce(col.attname, ''), coalesce(col.attnum, 0), coalesce(pg_catalog.format_type(col.atttypid, -1), ''), coalesce(col.atttypid::int8, 0), coalesce(col.atttypmod, 0),
  exists (select from pg_catalog.pg_type t left join pg_catalog.pg_type e on e.oid = t.typelem
    where t.oid = col.atttypid and (t.typtype in ('d', 'c', 'r', 'm') or e.typtype in ('d', 'c', 'r', 'm'))),
  (with recursive base as (select t.oid, t.typbasetype, t.typname, t.typnamespace, t.typtype from pg_catalog.pg_type t where t.oid = col.atttypid and t.oid >= 16384
    union all select t.oid, t.typbasetype, t.typname, t.typnamespace, t.typtype from base join pg_catalog.pg_type t on base.typtype = 'd' and t.oid = base.typbasetype)
   select coalesce(pg_catalog.max(n.nspname || '.' || base.typname), '') from base join pg_catalog.pg_namespace n on n.oid = base.typnamespace where base.typtype <> 'd'),
  coalesce(col.attgenerated <> '', false), coalesce(col.attidentity = 'a', false), ` + rowkey.InputSQL + `, rel.oid::int8, rel.relkind = 'r', whole.immediate, whole.fires, whole.disturbs, whole.after, whole.late, whole.rewrites, whole.parent, whole.triggers, coalesce(whole.attributes, ''), whole.ntriggers, whole.horizon, whole.signature
from rel cross join whole left join pg_catalog.pg_attribute col on col.attrelid = rel.oid and col.attnum > 0 and not col.attisdropped
order by col.attnum`

// loadSchema reads a table; replica tells whether the session that writes it is one.
func loadSchema(ctx context.Context, q querier, name wal.RelationName, replica bool) (*tableSchema, error) {
	rows, err := q.Query(ctx, schemaSQL, name.Schema, name.Name, replica)
	if err != nil {
		return nil, fmt.Errorf("read definition of %s: %w", name, err)
	}
	defer rows.Close()
	t := &tableSchema{name: name, index: map[string]int{}, due: time.Now().Add(schemaAge), unaltered: unaltered{asked: time.Now()}}
	for rows.Next() {
		var c tableColumn
		var oid, table int64
		if err := rows.Scan(&c.name, &c.num, &c.typ, &oid, &c.mod, &c.coerces, &c.wire, &c.generated, &c.always, &c.input, &table, &t.plain, &t.immediate, &t.fires, &t.disturbs, &t.after, &t.late, &t.rewrites, &t.parent, &t.triggers, &t.attributes, &t.unaltered.triggers, &t.unaltered.since, &t.signature); err != nil {
			return nil, fmt.Errorf("read definition of %s: %w", name, err)
		}
		if t.oid = uint32(table); oid == 0 {
			continue // a table without columns
		}
		c.oid = uint32(oid)
		t.index[c.name] = len(t.columns)
		t.columns = append(t.columns, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read definition of %s: %w", name, err)
	}
	if t.oid == 0 {
		return nil, &schemaError{name: name, code: "42P01", what: "the table does not exist here"}
	}
	if t.key, err = rowkey.Load(ctx, q, name); err != nil || t.immediate {
		return t, err
	}
	t.deferred, err = loadDeferred(ctx, q, name)
	return t, err
}

// schemaAge is how long a definition is relied on before it is looked at again. What a batch has
// to know exactly it asks for by itself: an error, guardDeferred, or guardDefinitions.
const schemaAge = 2 * time.Second

// current reports whether the table is what it was when it was read.
func (s *tableSchema) current(ctx context.Context, q querier) (bool, error) {
	began := time.Now()
	if began.Before(s.due) {
		return true, nil
	}
	rows, err := q.Query(ctx, signatureSQL, s.name.Schema, s.name.Name)
	if err != nil {
		return false, fmt.Errorf("read definition of %s: %w", s.name, err)
	}
	now, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	if err != nil {
		return false, fmt.Errorf("read definition of %s: %w", s.name, err)
	}
	// Of a table with thousands of partitions the look takes long; it is seldom, then.
	s.due = time.Now().Add(max(schemaAge, 50*time.Since(began)))
	return now == s.signature, nil
}

// schemaError says that a table here cannot take the events of a table there.
type schemaError struct {
	name wal.RelationName
	code string // the SQLSTATE that PostgreSQL would give
	what string
	home uint32 // the table that they belong into (stateApart)
}

func (e *schemaError) Error() string { return fmt.Sprintf("apply to %s: %s", e.name, e.what) }

// Hint says what to do about it.
func (e *schemaError) Hint() string {
	return "bring the table to the same definition in both regions; parked changes are retried by themselves"
}
