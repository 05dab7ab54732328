package tombstone

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Querier is the part of a pgx connection or transaction that the store needs.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Schema is the DDL of the entries: a dead one is a tombstone, a live one says in which
// generation its row is (generation + 1), and when it was written where no column says so. A
// plain one says only when this region wrote a row last; no stamp depends on it.
const Schema = `create table if not exists pgwaltz.tombstone (
  relation   text collate "C" not null,
  key        text collate "C" not null,
  generation bigint not null,
  version    bigint not null,
  updated_at bigint not null,
  live       boolean not null default false,
  origin     text,
  lsn        pg_lsn not null,
  deleted_at timestamptz not null default now(),
  plain      boolean not null default false,
  primary key (relation, key)
)`

// IndexSQL creates the index for the collection of tombstones. It may be run again.
const IndexSQL = `create index if not exists tombstone_deleted_at on pgwaltz.tombstone (deleted_at)`

// PastSchema is the DDL of the items that entries had before, kept until no change below them
// can be decoded again.
const PastSchema = `create table if not exists pgwaltz.past (
  relation text collate "C" not null,
  key      text collate "C" not null,
  lsn      pg_lsn not null,
  next     bigint not null,
  at       bigint not null,
  live     boolean not null default false,
  noted_at timestamptz not null default now(),
  primary key (relation, key, lsn)
)`

// WriteSQL writes entries, set-based: arrays of relation, key, next generation, version, time
// in microseconds, live flag, position and plain flag, then one origin, and those of the relations whose order is
// by time (conflict.TimeFirst). It returns how many keys got an entry from another transaction at the same time: where that is not 0, the
// transaction has to be tried again.
//
// What stands there is replaced: the writer has locked it (FindSQL) and decided. Only of two
// tombstones the higher stays, by the order of the table: an own delete is written when it is merged, and
// another one may stand there by then. What does not stay in the entry is kept as an item, unless the
// new entry is plain: then the change that wrote it gets its stamp also from the item just below the
// old entry, if that is of the same generation. It has to be the one just below: an older one of that
// generation may have something lower above it, and the change would be taken for one over that.
//
// Each key is looked up once, by index, whatever the planner thinks of the sizes: the applier's
// statements are prepared when the table may be empty.
const WriteSQL = `with met as materialized (
  select n.*, t.key is not null as there, t.lsn as olsn, t.generation + 1 as onext, t.updated_at as oat, t.live as olive, t.plain as empty,
         t.live or n.l or case when n.r = any($10::text[]) then (t.generation + 1, t.updated_at, t.version) < (n.n, n.t, n.v)
           else (t.generation + 1, t.version, t.updated_at) < (n.n, n.v, n.t) end as replaced
  from unnest($1::text[], $2::text[], $3::int8[], $4::int8[], $5::int8[], $6::bool[], $7::text[]::pg_lsn[], $8::bool[]) as n(r, k, n, v, t, l, p, plain)
  left join lateral (select * from pgwaltz.tombstone t where t.relation = n.r and t.key = n.k for update) as t on true
), kept as (
  insert into pgwaltz.past (relation, key, lsn, next, at, live)
  select o.r, o.k, case when o.replaced then o.olsn else o.p end, case when o.replaced then o.onext else o.n end, case when o.replaced then o.oat else o.t end,
    case when o.replaced then o.olive else o.l end
  from met o
  where o.there and o.olsn <> o.p and not o.empty and not (o.replaced and o.plain and o.olsn < o.p and o.onext = o.n and (o.n = 0 or coalesce(o.onext = (
    select a.next from pgwaltz.past a where a.relation = o.r and a.key = o.k and a.lsn < o.olsn order by a.lsn desc limit 1), false)))
  on conflict (relation, key, lsn) do update set next = greatest(past.next, excluded.next), at = greatest(past.at, excluded.at),
    live = past.live and past.next >= excluded.next or excluded.live and excluded.next >= past.next
), changed as (
  update pgwaltz.tombstone as t
  set generation = o.n - 1, version = o.v, updated_at = o.t, live = o.l, origin = $9, lsn = o.p, deleted_at = pg_catalog.now(), plain = false
  from met o where o.there and o.replaced and t.relation = o.r and t.key = o.k
  returning 1
), added as (
  insert into pgwaltz.tombstone (relation, key, generation, version, updated_at, live, origin, lsn)
  select o.r, o.k, o.n - 1, o.v, o.t, o.l, $9, o.p from met o where not o.there
  on conflict (relation, key) do nothing
  returning 1
)
select (select count(*) from met where not there or replaced) - (select count(*) from changed) - (select count(*) from added)`

// PlainSQL writes when this region wrote rows last, where nothing else is known of their keys:
// relation, arrays of key, time in microseconds and position, region. It returns the places of
// those that it wrote; the others have an entry of another kind, which has to be looked at.
const PlainSQL = `with new as (
  select * from unnest($2::text[], $3::int8[], $4::text[]::pg_lsn[]) with ordinality as u(k, t, p, n)
), written as (
  insert into pgwaltz.tombstone as t (relation, key, generation, version, updated_at, live, origin, lsn, plain)
  select $1, k, -1, -9223372036854775808, t, true, $5, p, true from new order by k
  on conflict (relation, key) do update set updated_at = excluded.updated_at, lsn = excluded.lsn where t.plain
  returning key
)
select n from new join written on key = k`

// ManyEntries is from how many entries on hash joins are to be switched on for PlainSQL in its
// transaction: the apply session has them off, and nested loops over all pairs of thousands of
// entries take seconds.
const ManyEntries = 64

// KeepSQL writes items that have no entry of their own: arrays of relation, key, position, next
// generation, time in microseconds and live flag.
const KeepSQL = `insert into pgwaltz.past (relation, key, lsn, next, at, live)
select u.r, u.k, u.p, u.n, u.t, u.l from unnest($1::text[], $2::text[], $3::text[]::pg_lsn[], $4::int8[], $5::int8[], $6::bool[]) as u(r, k, p, n, t, l)
on conflict (relation, key, lsn) do update set next = greatest(past.next, excluded.next), at = greatest(past.at, excluded.at),
    live = past.live and past.next >= excluded.next or excluded.live and excluded.next >= past.next`

// Entry is one entry as the table holds it.
type Entry struct {
	Key   string
	Stamp wal.Stamp // of a tombstone
	Next  uint32    // generation of the row over the entry
	Live  bool
	Plain bool       // it says only when this region wrote the row last, or before
	At    wal.Micros // when the entry was written, where no column of the row says so
}

// relationText names a relation in the side tables.
func relationText(n wal.RelationName) string { return n.String() }

func relationName(s string) wal.RelationName {
	n, ok := wal.ParseRelationName(s)
	if !ok {
		schema, name, _ := strings.Cut(s, ".") // written by hand
		n = wal.RelationName{Schema: schema, Name: name}
	}
	return n
}

// RelationText names a relation in the parameters of WriteSQL and KeepSQL.
func RelationText(n wal.RelationName) string { return relationText(n) }

// Load fills the index from the table, which it must hold already in part or not at all; the
// index stays usable meanwhile. No item may have been committed that the index was not told of
// but those that the table shows. Which ledgers tables have it does not say: who notes names may have told it something newer than what could be read here.
func Load(ctx context.Context, q Querier, x *Index) (err error) {
	size, err := count(ctx, q)
	if err != nil {
		return err
	}
	x.begin(size)
	defer func() { x.end(err == nil) }()
	for _, sql := range []string{itemsSQL, pastSQL} {
		if err := load(ctx, q, x.read, sql); err != nil {
			return fmt.Errorf("load tombstones: %w", err)
		}
	}
	return nil
}

func count(ctx context.Context, q Querier) (n int, err error) {
	rows, err := q.Query(ctx, `select count(*) from pgwaltz.tombstone where not plain`)
	if err != nil {
		return 0, fmt.Errorf("count tombstones: %w", err)
	}
	n, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
	if err != nil {
		return 0, fmt.Errorf("count tombstones: %w", err)
	}
	return n, nil
}

// itemsSQL and pastSQL read the items of entries, and those that are kept beside them, for load.
const (
	itemsSQL = `select relation, key, generation + 1, updated_at, live, lsn::text from pgwaltz.tombstone where not plain`
	pastSQL  = `select relation, key, next, at, live, lsn::text from pgwaltz.past`
)

func load(ctx context.Context, q Querier, put func(wal.RelationName, []byte, conflict.Item), sql string, args ...any) error {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var rel, key, lsn string
		var next, at int64
		var live bool
		if err := rows.Scan(&rel, &key, &next, &at, &live, &lsn); err != nil {
			return err
		}
		p, err := wal.ParseLSN(lsn)
		if err != nil {
			return err
		}
		put(relationName(rel), []byte(key), conflict.Item{LSN: p, Next: uint32(next), Live: live, At: wal.Micros(at)})
	}
	return rows.Err()
}

// Lookup joins the items of the given keys strictly below a position, as the table has them.
func Lookup(ctx context.Context, q Querier, at wal.LSN, refs []Ref) ([]conflict.Item, error) {
	rels, keys := make([]string, len(refs)), make([]string, len(refs))
	for i, r := range refs {
		rels[i], keys[i] = relationText(r.Relation), r.Key
	}
	rows, err := q.Query(ctx, `select coalesce(i.next, 0), coalesce(i.at, 0), coalesce(i.live, false), coalesce(i.last, 0), coalesce(i.lsn, '0/0')::text
from unnest($1::text[], $2::text[]) with ordinality as u(r, k, n)
cross join lateral (
  select max(next) as next, max(at) as at, max(lsn) as lsn, bool_or(live) filter (where next = top) as live, (array_agg(next order by lsn desc, next desc))[1] as last
  from (select *, max(next) over () as top from (
    select generation + 1 as next, updated_at as at, live, lsn from pgwaltz.tombstone where relation = u.r and key = u.k and lsn < $3::text::pg_lsn
    union all
    select next, at, live, lsn from pgwaltz.past where relation = u.r and key = u.k and lsn < $3::text::pg_lsn) as e) as e
) as i
order by u.n`, rels, keys, at.String())
	if err != nil {
		return nil, fmt.Errorf("look up tombstones: %w", err)
	}
	items, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (it conflict.Item, err error) {
		var next, last, t int64
		var lsn string
		if err := r.Scan(&next, &t, &it.Live, &last, &lsn); err != nil {
			return it, err
		}
		it.Next, it.Under, it.At = uint32(next), uint32(next-last), wal.Micros(t)
		it.LSN, err = wal.ParseLSN(lsn)
		return it, err
	})
	if err != nil {
		return nil, fmt.Errorf("look up tombstones: %w", err)
	}
	if len(items) != len(refs) {
		return nil, fmt.Errorf("look up tombstones: %d answers for %d keys", len(items), len(refs))
	}
	return items, nil
}

// FindSQL reads the entries of keys of one relation and locks them until the end of the
// transaction. Its parameters are the relation's text and an array of keys; its columns are the
// arguments of EntryOf.
//
// A key is looked up by index, one after the other, whatever the planner thinks of the sizes. Asked
// with = any(array) it once read all entries of the relation, because these come in order.
const FindSQL = `select t.key, t.generation, t.version, t.updated_at, t.live, t.plain
from (select k from unnest($2::text[]) as u(k) order by k collate "C") as u
cross join lateral (select * from pgwaltz.tombstone t where t.relation = $1 and t.key = u.k for update) as t`

const readSQL = `select t.key, t.generation, t.version, t.updated_at, t.live, t.plain from unnest($2::text[]) as u(k)
cross join lateral (select * from pgwaltz.tombstone t where t.relation = $1 and t.key = u.k offset 0) as t`

// WriterSQL tells whether the entry of a key was written by a transaction: the relation's text, the key, and the transaction id as text.
const WriterSQL = `select exists (select from pgwaltz.tombstone t where t.relation = $1::text and t.key = $2::text and t.xmin = $3::text::pg_catalog.xid)`

// NoneSQL fails with 22012 where one of some keys of one relation has an entry that is not plain: such ones are left of a table that got
// stamp columns since, and say nothing. Its parameters are the relation's text and an array of keys.
const NoneSQL = `select 1 / (not exists (select from unnest($2::text[]) as u(k)
cross join lateral (select from pgwaltz.tombstone t where t.relation = $1 and t.key = u.k and not t.plain offset 0) as t))::int`

// EntryOf makes an entry of a row of FindSQL.
func EntryOf(key string, generation, version, updatedAt int64, live, plain bool) Entry {
	e := Entry{Key: key, Next: uint32(generation + 1), Live: live, Plain: plain, At: wal.Micros(updatedAt)}
	if !live {
		e.Stamp = wal.Stamp{Generation: uint32(generation), Version: version, UpdatedAt: wal.Micros(updatedAt)}
	}
	return e
}

// Page reads the tombstones of one relation behind a key, in an order of the server's own, at
// most limit of them.
func Page(ctx context.Context, q Querier, rel wal.RelationName, after string, limit int) ([]Entry, error) {
	rows, err := q.Query(ctx, `select key, generation, version, updated_at from pgwaltz.tombstone
where relation = $1 and key > $2 and not live order by key limit $3`, relationText(rel), after, limit)
	if err != nil {
		return nil, fmt.Errorf("read tombstones of %s: %w", rel, err)
	}
	found, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (Entry, error) {
		var e Entry
		var gen, at int64
		err := r.Scan(&e.Key, &gen, &e.Stamp.Version, &at)
		e.Stamp.Generation, e.Stamp.UpdatedAt = uint32(gen), wal.Micros(at)
		e.Next, e.At = e.Stamp.Generation+1, e.Stamp.UpdatedAt
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("read tombstones of %s: %w", rel, err)
	}
	return found, nil
}

// Read reads the entries of the given keys of one relation, without locks.
func Read(ctx context.Context, q Querier, rel wal.RelationName, keys []string) (map[string]Entry, error) {
	return entries(ctx, q, readSQL, rel, keys)
}

func entries(ctx context.Context, q Querier, sql string, rel wal.RelationName, keys []string) (map[string]Entry, error) {
	rows, err := q.Query(ctx, sql, relationText(rel), keys)
	if err != nil {
		return nil, fmt.Errorf("find tombstones of %s: %w", rel, err)
	}
	defer rows.Close()
	found := map[string]Entry{}
	for rows.Next() {
		var key string
		var gen, ver, at int64
		var live, plain bool
		if err := rows.Scan(&key, &gen, &ver, &at, &live, &plain); err != nil {
			return nil, fmt.Errorf("find tombstones of %s: %w", rel, err)
		}
		found[key] = EntryOf(key, gen, ver, at, live, plain)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("find tombstones of %s: %w", rel, err)
	}
	return found, nil
}

// Adopt gives up positions of another history: those behind the end of the server's WAL, and all
// of them when the region was published from another server before (moved). Whatever is there
// came before everything that this server has to stamp. It is called before the index is loaded.
func Adopt(ctx context.Context, q Querier, moved bool) error {
	where := ` where $1 or lsn > pg_catalog.pg_current_wal_insert_lsn()`
	for _, sql := range []string{`update pgwaltz.tombstone set lsn = '0/0'` + where, `delete from pgwaltz.past` + where, adoptClock} {
		if _, err := q.Exec(ctx, sql, moved); err != nil {
			return fmt.Errorf("adopt tombstones: %w", err)
		}
	}
	return nil
}

// Forget removes the entries that an origin has made which sends nothing any more, and is no region: their rows count as rows of which nothing is known. No
// sidecar may be at work: its index would hold them still.
func Forget(ctx context.Context, q Querier, origin string) error {
	if _, err := q.Exec(ctx, `delete from pgwaltz.tombstone where origin = $1`, origin); err != nil {
		return fmt.Errorf("forget tombstones of %s: %w", origin, err)
	}
	return nil
}

// Trim removes items that no decoding can ask for any more: those below another one that no
// change can be decoded in front of, because the slot begins behind it (horizon). At most limit
// are removed in one call; it returns how many.
func Trim(ctx context.Context, q Querier, horizon wal.LSN, limit int) (int, error) {
	tag, err := q.Exec(ctx, `delete from pgwaltz.past where ctid = any(array(
  select p.ctid from pgwaltz.past p where p.lsn < $1::text::pg_lsn and (
    exists (select from pgwaltz.tombstone t where t.relation = p.relation and t.key = p.key
      and t.lsn <= $1::text::pg_lsn and t.lsn > p.lsn and (t.generation + 1, t.live) >= (p.next, p.live) and t.updated_at >= p.at)
    or exists (select from pgwaltz.past n where n.relation = p.relation and n.key = p.key
      and n.lsn <= $1::text::pg_lsn and n.lsn > p.lsn and (n.next, n.live) >= (p.next, p.live) and n.at >= p.at))
  limit $2))`, horizon.String(), limit)
	if err != nil {
		return 0, fmt.Errorf("trim tombstones: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

// Collect removes what no peer can need any more: tombstones, live entries that say no more
// than their rows do, and the items behind them, all of them older than minAge and written at
// a position that every peer has applied and that the slot has passed (passed). At most limit
// keys are removed in one call; it returns how many. Its transaction is on disk when it
// returns; the index forgets them then.
func Collect(ctx context.Context, q Querier, x *Index, minAge time.Duration, passed wal.LSN, limit int) (int, error) {
	rows, err := q.Query(ctx, `with old as (
  select relation, key, ctid from pgwaltz.tombstone t
  where (not live or generation < 0) and deleted_at < pg_catalog.now() - $1::interval and not (plain and updated_at > $4) and lsn <= $2::text::pg_lsn
    and not exists (select from pgwaltz.past p where p.relation = t.relation and p.key = t.key and p.lsn > $2::text::pg_lsn)
  limit $3
), gone as (
  delete from pgwaltz.past p using old o where p.relation = o.relation and p.key = o.key
)
delete from pgwaltz.tombstone where ctid = any(array(select ctid from old)) returning relation, key`, minAge, passed.String(), limit, int64(wal.MicrosOf(time.Now().Add(-minAge))))
	if err != nil {
		return 0, fmt.Errorf("collect tombstones: %w", err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var rel, key string
		if err := rows.Scan(&rel, &key); err != nil {
			return n, fmt.Errorf("collect tombstones: %w", err)
		}
		x.Remove(relationName(rel), []byte(key))
		n++
	}
	if err := rows.Err(); err != nil {
		return n, fmt.Errorf("collect tombstones: %w", err)
	}
	return n, nil
}
