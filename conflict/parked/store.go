package parked

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// Querier is the part of a pgx connection or transaction that the store needs.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Change is one parked change.
type Change struct {
	ID      int64
	Origin  string
	Table   uint32 // the OID of the table here when the change was parked; 0 where it was not here
	Key     string // key text, or what Keyless makes
	Kind    conflict.EventKind
	Waiting conflict.Waiting
	// Transaction is the one that the change belongs to, with this change alone.
	Transaction *wal.Transaction
	Row         []byte // JSON for people; nil for none
	State       string // SQLSTATE
	Message     string
	Attempts    int
	// Definition names the table's definition under which the change must not be tried again; ""
	// for none.
	Definition string
	// Stray: the change's origin has begun anew since (Strays) and may have lost it.
	Stray bool
	// Denied are the peers that do not hold what an own change lacks.
	Denied []string
}

// Keyless names a change of a table without a key: the transaction's commit, its part and
// the change's place in it.
func Keyless(tx *wal.Transaction, place int) string {
	return fmt.Sprintf("@%s/%d/%d", tx.CommitLSN, tx.Part, place)
}

// IsKeyless reports whether a key was made by Keyless.
func IsKeyless(key string) bool { return len(key) > 0 && key[0] == '@' }

// encode makes the event that keeps the change whole.
func (c *Change) encode() ([]byte, error) {
	w := &c.Waiting
	ch := wal.Change{Op: w.Op, Relation: w.Relation, Stamp: w.Stamp, Base: w.Base}
	switch {
	case c.Transaction != nil && len(c.Transaction.Changes) == 1 && IsKeyless(c.Key):
		ch = c.Transaction.Changes[0]
	case w.Op == wal.Delete:
		ch.Old, ch.OldFull = w.Image, w.Full
	default:
		ch.New = w.Image
		if w.Born {
			ch.Op = wal.Insert // the net effect of an insert and what followed
		}
	}
	tx := c.Transaction
	one := wal.Transaction{XID: tx.XID, Origin: tx.Origin, CommitLSN: tx.CommitLSN, EndLSN: tx.EndLSN, CommitTime: tx.CommitTime, Changes: []wal.Change{ch}}
	if one.EndLSN == 0 {
		one.EndLSN = tx.CommitLSN + 1 // a part of a giant transaction: its end is not known yet
	}
	return wire.EncodeTransaction(&one)
}

// decode reads what encode wrote.
func (c *Change) decode(event []byte, born bool) error {
	tx, ch, err := wire.ParseChange(event)
	if err != nil {
		return fmt.Errorf("read parked change %d: %w", c.ID, err)
	}
	c.Transaction = tx
	c.Waiting = conflict.Waiting{Relation: ch.Relation, Op: ch.Op, Born: born, Base: ch.Base, Stamp: ch.Stamp, Image: ch.New}
	if ch.Op == wal.Delete {
		c.Waiting.Image, c.Waiting.Full = ch.Old, ch.OldFull
		tx.Changes[0].Brief = born
	}
	return nil
}

// rename gives the change the name that its table has by now (Follow).
func (c *Change) rename(name wal.RelationName) {
	if c.Waiting.Relation.Ref() == name {
		return
	}
	rel := *c.Waiting.Relation
	rel.Schema, rel.Name = name.Schema, name.Name
	c.Waiting.Relation = &rel
	for i := range c.Transaction.Changes {
		c.Transaction.Changes[i].Relation = &rel
	}
}

// Follow gives the changes of an origin whose table was renamed, or moved to another schema, its
// new name, and puts them into the index under that. Where something waits under the new name and
// the same key already, they stay as they are.
func Follow(ctx context.Context, q Querier, origin string, x *Index) error {
	rows, err := q.Query(ctx, `update pgwaltz.parked p set schema_name = t.s, table_name = t.n
from (select c.oid, n.nspname::text as s, c.relname::text as n from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace) as t
where p.origin = $1 and t.oid = p.table_oid and (t.s, t.n) is distinct from (p.schema_name, p.table_name)
  and not exists (select from pgwaltz.parked o where o.schema_name = t.s and o.table_name = t.n and o.key = p.key)
returning p.schema_name, p.table_name, p.key`, origin)
	if err != nil {
		return fmt.Errorf("follow renamed tables: %w", err)
	}
	var name wal.RelationName
	var key string
	if _, err := pgx.ForEachRow(rows, []any{&name.Schema, &name.Name, &key}, func() error { x.Put(name, key); return nil }); err != nil {
		return fmt.Errorf("follow renamed tables: %w", err)
	}
	return nil
}

// FollowSchema gives changes that were set aside because their table was not here the new name of its
// schema, once the table is there under that. A change that was under way while both regions
// renamed the schema comes by the old name.
func FollowSchema(ctx context.Context, q Querier, was, is string, x *Index) error {
	rows, err := q.Query(ctx, `update pgwaltz.parked p set schema_name = $2
where p.schema_name = $1 and p.table_oid = 0 and pg_catalog.to_regclass(pg_catalog.format('%I.%I', $2::text, p.table_name)) is not null
  and not exists (select from pgwaltz.parked o where o.schema_name = $2 and o.table_name = p.table_name and o.key = p.key)
returning p.table_name, p.key`, was, is)
	if err != nil {
		return fmt.Errorf("follow a renamed schema: %w", err)
	}
	name, key := wal.RelationName{Schema: is}, ""
	if _, err := pgx.ForEachRow(rows, []any{&name.Name, &key}, func() error { x.Put(name, key); return nil }); err != nil {
		return fmt.Errorf("follow a renamed schema: %w", err)
	}
	return nil
}

const columns = `id, origin, schema_name, table_name, table_oid::int8, key, kind, born, event, coalesce(sqlstate, ''), coalesce(message, ''), attempts, stray, denied`

func scan(rows pgx.Rows) ([]*Change, error) {
	defer rows.Close()
	var out []*Change
	for rows.Next() {
		c := &Change{}
		var kind int16
		var born bool
		var event []byte
		var table int64
		var name wal.RelationName
		if err := rows.Scan(&c.ID, &c.Origin, &name.Schema, &name.Name, &table, &c.Key, &kind, &born, &event, &c.State, &c.Message, &c.Attempts, &c.Stray, &c.Denied); err != nil {
			return nil, fmt.Errorf("read parked changes: %w", err)
		}
		c.Kind, c.Table = conflict.EventKind(kind), uint32(table)
		if err := c.decode(event, born); err != nil {
			return nil, err
		}
		c.rename(name)
		out = append(out, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read parked changes: %w", err)
	}
	return out, nil
}

// FindSQL reads and locks what waits under keys of a table; its parameters are the table's schema,
// its name, and an array of keys. A key is looked up by index, one after the other, in the order of
// the keys: planned while the table was empty, key = any(array) read all that waits for the table,
// each time. The keys keep the collation of the database: the columns have "C", which decides.
const FindSQL = `select ` + columns + `
from (select k from unnest($3::text[]) as u(k) group by k order by k collate "C") as u
cross join lateral (select * from pgwaltz.parked where schema_name = $1 and table_name = $2 and key = u.k for update) as p`

// Find returns what waits under the given keys of a table, by key. The rows are locked: what
// the caller decides about them stays true until its transaction ends.
func Find(ctx context.Context, q Querier, rel wal.RelationName, keys []string) (map[string]*Change, error) {
	rows, err := q.Query(ctx, FindSQL, rel.Schema, rel.Name, keys)
	if err != nil {
		return nil, fmt.Errorf("find parked changes: %w", err)
	}
	list, err := scan(rows)
	if err != nil {
		return nil, err
	}
	found := make(map[string]*Change, len(list))
	for _, c := range list {
		found[c.Key] = c
	}
	return found, nil
}

// putBytes bounds one statement of Put.
const putBytes = 4 << 20

const putSQL = `insert into pgwaltz.parked as p (origin, schema_name, table_name, table_oid, key, commit_lsn, kind, born, generation, version, updated_at, op, event, row, sqlstate, message, definition)
select u.o, $1, $2, u.oid::oid, u.k, u.l::pg_lsn, u.kind, u.born, u.g, u.v, u.t, u.op, u.e, u.r::jsonb, u.s, u.m, u.d
from unnest($3::text[], $4::text[], $5::text[], $6::int2[], $7::bool[], $8::int8[], $9::int8[], $10::int8[], $11::text[], $12::bytea[], $13::text[], $14::text[], $15::text[], $16::int8[], $17::text[])
  as u(o, k, l, kind, born, g, v, t, op, e, r, s, m, oid, d)
on conflict (schema_name, table_name, key) do update
set origin = excluded.origin, table_oid = excluded.table_oid, commit_lsn = excluded.commit_lsn, kind = excluded.kind, born = excluded.born,
    generation = excluded.generation, version = excluded.version, updated_at = excluded.updated_at,
    op = excluded.op, event = excluded.event, row = excluded.row, sqlstate = excluded.sqlstate, message = excluded.message, definition = excluded.definition,
    parked_at = pg_catalog.now(), retried_at = null, attempts = 0, stray = false, denied = '{}'
where p.id = any($18::int8[]) or p.key like '@%'`

// ErrRace says that another applier has set a change of the same key aside since the caller looked.
var ErrRace = errors.New("another change of the key was set aside meanwhile")

// Put writes changes of one table, each of another key. The change that stands under the key is
// replaced when it is the one with ID: the caller has found, locked and compared it (Find,
// conflict.Policy.Wait). ID 0 says that there was none. Errors: ErrRace, when there is one by now;
// the transaction has to be tried again.
func Put(ctx context.Context, q Querier, rel wal.RelationName, changes []Change) error {
	for len(changes) > 0 {
		n, size := 0, 0
		var origins, keys, lsns, ops, states, messages, definitions []string
		var kinds []int16
		var born []bool
		var gens, vers, ats, oids, found []int64
		var events [][]byte
		var images []*string
		for ; n < len(changes) && n < 2000 && size < putBytes; n++ {
			c := &changes[n]
			event, err := c.encode()
			if err != nil {
				return fmt.Errorf("park a change of %s: %w", rel, err)
			}
			w := &c.Waiting
			origins, keys, lsns = append(origins, c.Origin), append(keys, c.Key), append(lsns, c.Transaction.CommitLSN.String())
			kinds, born = append(kinds, int16(c.Kind)), append(born, w.Born)
			gens, vers, ats = append(gens, int64(w.Stamp.Generation)), append(vers, w.Stamp.Version), append(ats, int64(w.Stamp.UpdatedAt))
			ops, events, images = append(ops, w.Op.String()), append(events, event), append(images, text(c.Row))
			states, messages, oids = append(states, c.State), append(messages, c.Message), append(oids, int64(c.Table))
			definitions, found = append(definitions, c.Definition), append(found, c.ID)
			size += len(event) + len(c.Row) + 256
		}
		tag, err := q.Exec(ctx, putSQL, rel.Schema, rel.Name, origins, keys, lsns, kinds, born, gens, vers, ats, ops, events, images, states, messages, oids, definitions, found)
		if err != nil {
			return fmt.Errorf("park %d changes of %s: %w", n, rel, err)
		}
		if tag.RowsAffected() != int64(n) {
			return fmt.Errorf("park %d changes of %s: %w", n, rel, ErrRace)
		}
		changes = changes[n:]
	}
	return nil
}

func text(b []byte) *string {
	if b == nil {
		return nil
	}
	s := string(b)
	return &s
}

// DeleteSQL removes the changes with the ids $1.
const DeleteSQL = `delete from pgwaltz.parked where id = any($1::int8[])`

// StraysSQL notes that the origin $1 has begun anew, behind a gap that it admits: it may have been
// restored from an older state, and not hold any more what waits here. Who shows such a change sends
// it back.
const StraysSQL = `update pgwaltz.parked set stray = true where origin = $1 and not stray`

// DenySQL notes that the region $2 does not hold what the changes with the ids $1 lack.
const DenySQL = `update pgwaltz.parked set denied = array_append(denied, $2::text) where id = any($1::int8[]) and $2::text <> all(denied)`

// Claim locks and returns those of the given changes that nobody else is dealing with, in
// the order of their ids.
func Claim(ctx context.Context, q Querier, ids []int64) ([]*Change, error) {
	rows, err := q.Query(ctx, `select `+columns+` from pgwaltz.parked where id = any($1::int8[]) order by id for update skip locked`, ids)
	if err != nil {
		return nil, fmt.Errorf("claim parked changes: %w", err)
	}
	return scan(rows)
}

// Read returns changes without locking them, in the order of their ids.
func Read(ctx context.Context, q Querier, ids []int64) ([]*Change, error) {
	rows, err := q.Query(ctx, `select `+columns+` from pgwaltz.parked where id = any($1::int8[]) order by id`, ids)
	if err != nil {
		return nil, fmt.Errorf("read parked changes: %w", err)
	}
	return scan(rows)
}

// OfState reads the oldest changes of an origin that wait under one state, without locking them,
// at most limit of them and pageBytes in all.
func OfState(ctx context.Context, q Querier, origin, state string, limit int) ([]*Change, error) {
	rows, err := q.Query(ctx, `select `+columns+` from (
  select p.*, sum(octet_length(p.event)) over (order by p.id) as size from pgwaltz.parked p where p.origin = $1 and p.sqlstate = $2) as p
where size <= $3 order by id limit $4`, origin, state, int64(pageBytes), limit)
	if err != nil {
		return nil, fmt.Errorf("read parked changes: %w", err)
	}
	return scan(rows)
}

// Any reports whether changes of a table wait whose id is below before.
func Any(ctx context.Context, q Querier, rel wal.RelationName, origin string, before int64) (bool, error) {
	rows, err := q.Query(ctx, `select 1 from pgwaltz.parked where origin = $1 and schema_name = $2 and table_name = $3 and id < $4 limit 1`,
		origin, rel.Schema, rel.Name, before)
	if err != nil {
		return false, fmt.Errorf("find parked changes: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return false, fmt.Errorf("find parked changes: %w", err)
	}
	return len(found) > 0, nil
}

// Queue is what waits for the same reason: changes of one origin and table under one state.
type Queue struct {
	Origin   string
	Relation wal.RelationName
	State    string
}

// Size is how much waits in a queue.
type Size struct {
	Changes int64
	Oldest  time.Time
	Wanted  bool // an operator asked for another try
	// Definitions are those under which changes must not be tried again.
	Definitions []string
}

// Queues lists what waits, of one origin, or of all when origin is "".
func Queues(ctx context.Context, q Querier, origin string) (map[Queue]Size, error) {
	rows, err := q.Query(ctx, `select origin, schema_name, table_name, sqlstate, count(*), min(parked_at), bool_or(wanted),
  coalesce(array_agg(distinct definition) filter (where definition <> ''), '{}')
from pgwaltz.parked where $1 = '' or origin = $1 group by 1, 2, 3, 4`, origin)
	if err != nil {
		return nil, fmt.Errorf("list parked changes: %w", err)
	}
	defer rows.Close()
	out := map[Queue]Size{}
	for rows.Next() {
		var k Queue
		var s Size
		if err := rows.Scan(&k.Origin, &k.Relation.Schema, &k.Relation.Name, &k.State, &s.Changes, &s.Oldest, &s.Wanted, &s.Definitions); err != nil {
			return nil, fmt.Errorf("list parked changes: %w", err)
		}
		out[k] = s
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list parked changes: %w", err)
	}
	return out, nil
}

// pageBytes bounds what the changes of one page hold.
const pageBytes = 8 << 20

// Page returns the ids of a queue behind one, in order; with wanted only those that an
// operator asked for. Together they are small enough to be read at once; a single large one
// is returned alone.
func Page(ctx context.Context, q Querier, k Queue, after int64, limit int, wanted bool) ([]int64, error) {
	rows, err := q.Query(ctx, `select id from (
  select id, row_number() over w as n, sum(octet_length(event)) over w as size from (
    select id, event from pgwaltz.parked
    where origin = $1 and schema_name = $2 and table_name = $3 and sqlstate = $4 and id > $5 and (wanted or not $7)
    order by id limit $6) as page
  window w as (order by id)) as sized
where n = 1 or size <= $8 order by id`,
		k.Origin, k.Relation.Schema, k.Relation.Name, k.State, after, limit, wanted, int64(pageBytes))
	if err != nil {
		return nil, fmt.Errorf("list parked changes: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("list parked changes: %w", err)
	}
	return ids, nil
}

// Since is when the change was set aside that waits longest; 0 when none waits.
func Since(ctx context.Context, q Querier) (wal.Micros, error) {
	rows, err := q.Query(ctx, `select coalesce((extract(epoch from min(parked_at)) * 1000000)::int8, 0) from pgwaltz.parked`)
	if err != nil {
		return 0, fmt.Errorf("find the oldest parked change: %w", err)
	}
	at, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int64])
	if err != nil {
		return 0, fmt.Errorf("find the oldest parked change: %w", err)
	}
	return wal.Micros(at), nil
}

// Failure is a change that was tried again and failed again.
type Failure struct {
	ID             int64
	State, Message string
	Definition     string // as in Change
}

// Tried notes changes that failed again, in one statement.
func Tried(ctx context.Context, q Querier, failures []Failure) error {
	if len(failures) == 0 {
		return nil
	}
	ids, states, messages, definitions := make([]int64, len(failures)), make([]string, len(failures)), make([]string, len(failures)), make([]string, len(failures))
	for i, f := range failures {
		ids[i], states[i], messages[i], definitions[i] = f.ID, f.State, f.Message, f.Definition
	}
	_, err := q.Exec(ctx, `update pgwaltz.parked p set attempts = attempts + 1, retried_at = pg_catalog.now(), wanted = false, sqlstate = u.s, message = u.m, definition = u.d
from unnest($1::int8[], $2::text[], $3::text[], $4::text[]) as u(id, s, m, d) where p.id = u.id`, ids, states, messages, definitions)
	if err != nil {
		return fmt.Errorf("note failed retries: %w", err)
	}
	return nil
}

// Refused notes that nothing of a queue can be tried: its table is not here or does not fit.
func Refused(ctx context.Context, q Querier, k Queue) error {
	_, err := q.Exec(ctx, `update pgwaltz.parked set attempts = attempts + 1, retried_at = pg_catalog.now(), wanted = false
where origin = $1 and schema_name = $2 and table_name = $3 and sqlstate = $4 and wanted`,
		k.Origin, k.Relation.Schema, k.Relation.Name, k.State)
	if err != nil {
		return fmt.Errorf("note failed retries: %w", err)
	}
	return nil
}

// AnyWanted reports whether an operator asked for another try of some change.
func AnyWanted(ctx context.Context, q Querier) (bool, error) {
	rows, err := q.Query(ctx, `select exists (select from pgwaltz.parked where wanted)`)
	if err != nil {
		return false, fmt.Errorf("find wanted retries: %w", err)
	}
	ok, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
	if err != nil {
		return false, fmt.Errorf("find wanted retries: %w", err)
	}
	return ok, nil
}
