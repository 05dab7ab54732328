package tombstone

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Entries and items are kept under a name, and tables are renamed, or swap their names. So a table has a ledger: the name under which everything
// is kept that is known of its keys. That is what the table was called first, whatever it is called later. Which ledger a change belongs to
// is told by the number of its table and the name by which it came, so it is the same at every decoding. Nothing is moved when a table is
// renamed. Who notes the names of tables says which ledger a table has under a new one (source/names).
//
// A ledger may be begun as a copy of another one: a table that another one has replaced goes on with what was known of its rows, and shares nothing that comes behind
// that (CopyLedger). What its own changes by the former name say, and was not merged at the time of the copy, is in both ledgers (Ledgers.Also).

// LedgerSchema makes the table of ledgers: of tables that were renamed, or got a name that another table had before. A table that is not
// there has its ledger under its own name. A row keeps its relation for good: changes that came by that name are in that ledger. also are those that were begun as
// copies of it, and have what own changes by that name say, too. It may be run again.
const LedgerSchema = `create table if not exists pgwaltz.ledger (
  table_oid   oid not null,
  schema_name text collate "C" not null,
  table_name  text collate "C" not null,
  relation    text collate "C" not null,
  noted_at    timestamptz not null default now(),
  also        text[],
  primary key (table_oid, schema_name, table_name)
)`

// Named is a table of this region, by its OID, under a name that it has or had.
type Named struct {
	Table uint32
	Name  wal.RelationName
}

// Ledgers says which ledgers tables have that are not called as these.
type Ledgers struct {
	Of map[Named]wal.RelationName
	// Also are the ledgers that were begun as copies of what Of says, and have what own changes of the table by that name say, too.
	Also map[Named][]wal.RelationName
}

// Ledger is the name under which entries of a table are kept, which is called name, or was.
func (x *Index) Ledger(table uint32, name wal.RelationName) wal.RelationName {
	if l := x.ledgers.Load(); l != nil {
		if of, ok := l.Of[Named{table, name}]; ok {
			return of
		}
	}
	return name
}

// Own is the ledger of a change of this region. A relation of which nobody knows what its columns are goes by its name.
func (x *Index) Own(rel *wal.Relation) wal.RelationName {
	if !x.Renamed() || len(rel.Columns) == 0 || !rel.Numbered() {
		return rel.Ref()
	}
	return x.Ledger(wal.TableOf(rel.Columns[0].ID), rel.Ref())
}

// Also are the other ledgers that have what a change of this region says. Who notes something in Own asks behind that: a copy that is begun meanwhile either finds it
// there, or is told of.
func (x *Index) Also(rel *wal.Relation) []wal.RelationName {
	l := x.ledgers.Load()
	if l == nil || len(l.Also) == 0 || len(rel.Columns) == 0 || !rel.Numbered() {
		return nil
	}
	return l.Also[Named{wal.TableOf(rel.Columns[0].ID), rel.Ref()}]
}

// Renamed reports whether any table has its ledger under another name than its own.
func (x *Index) Renamed() bool { return x.ledgers.Load() != nil }

// SetLedgers is told which ledgers tables have that are not called as these. A ledger that is new as a copy of another one gets what is known of own changes there
// that are not merged; what the table has of it the index is told by TakeLedgers, or Load.
func (x *Index) SetLedgers(l Ledgers) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for n, list := range l.Also {
		of, ok := l.Of[n]
		if !ok {
			of = n.Name
		}
		for _, copied := range list {
			if _, ok := x.copies[copied]; !ok {
				x.copies[copied] = struct{}{}
				x.copyOwn(of, copied)
			}
		}
	}
	if len(l.Of) == 0 {
		x.ledgers.Store(nil)
	} else {
		x.ledgers.Store(&l)
	}
	x.wake()
}

// knowsCopy reports whether SetLedgers was told of a copy.
func (x *Index) knowsCopy(ledger wal.RelationName) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	_, ok := x.copies[ledger]
	return ok
}

// TakeLedgers is SetLedgers for an index that is in use: it takes in first what the table has of ledgers that are new as copies.
func TakeLedgers(ctx context.Context, q Querier, x *Index, l Ledgers) error {
	for _, list := range l.Also {
		for _, copied := range list {
			if x.knowsCopy(copied) {
				continue
			}
			for _, sql := range []string{itemsSQL + ` and relation = $1`, pastSQL + ` where relation = $1`} {
				if err := load(ctx, q, x.Put, sql, relationText(copied)); err != nil {
					return fmt.Errorf("load tombstones of %s: %w", copied, err)
				}
			}
		}
	}
	x.SetLedgers(l)
	return nil
}

// CopyLedger begins a ledger as a copy of another one, which it leaves as it is. It is called in the transaction that notes whose ledger it is, when no change can be noted any more of the table
// whose history it is but own ones that are merged later.
func CopyLedger(ctx context.Context, q Querier, from, to wal.RelationName) error {
	for _, sql := range []string{
		`insert into pgwaltz.tombstone (relation, key, generation, version, updated_at, live, origin, lsn, deleted_at, plain)
select $2, key, generation, version, updated_at, live, origin, lsn, deleted_at, plain from pgwaltz.tombstone where relation = $1 on conflict do nothing`,
		`insert into pgwaltz.past (relation, key, lsn, next, at, live) select $2, key, lsn, next, at, live from pgwaltz.past where relation = $1 on conflict do nothing`,
	} {
		if _, err := q.Exec(ctx, sql, relationText(from), relationText(to)); err != nil {
			return fmt.Errorf("copy what is noted of %s: %w", from, err)
		}
	}
	return nil
}

// ReadLedgers reads which ledgers tables have. A database that an earlier program has set up has none.
func ReadLedgers(ctx context.Context, q Querier) (Ledgers, error) {
	out := Ledgers{Of: map[Named]wal.RelationName{}, Also: map[Named][]wal.RelationName{}}
	rows, err := q.Query(ctx, `select pg_catalog.to_regclass('pgwaltz.ledger') is not null`)
	if err != nil {
		return out, fmt.Errorf("read ledgers of tables: %w", err)
	}
	if there, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool]); err != nil || !there {
		return out, err
	}
	// The column may not be there either.
	if rows, err = q.Query(ctx, `select table_oid::int8, schema_name, table_name, relation,
  array(select pg_catalog.jsonb_array_elements_text(coalesce(nullif(pg_catalog.to_jsonb(l) -> 'also', 'null'), '[]'))) from pgwaltz.ledger l`); err != nil {
		return out, fmt.Errorf("read ledgers of tables: %w", err)
	}
	var table int64
	var n wal.RelationName
	var ledger string
	var also []string
	if _, err := pgx.ForEachRow(rows, []any{&table, &n.Schema, &n.Name, &ledger, &also}, func() error {
		of := Named{uint32(table), n}
		out.Of[of] = relationName(ledger)
		for _, a := range also {
			out.Also[of] = append(out.Also[of], relationName(a))
		}
		return nil
	}); err != nil {
		return out, fmt.Errorf("read ledgers of tables: %w", err)
	}
	return out, nil
}

// NoteLedgers stores which ledgers tables have. What stands there stays, but for the copies that were begun of it.
func NoteLedgers(ctx context.Context, q Querier, l Ledgers) error {
	if len(l.Of) == 0 {
		return nil
	}
	var tables []int64
	var schemas, names, ledgers []string
	for n, of := range l.Of {
		tables, schemas, names, ledgers = append(tables, int64(n.Table)), append(schemas, n.Name.Schema), append(names, n.Name.Name), append(ledgers, relationText(of))
	}
	if _, err := q.Exec(ctx, `insert into pgwaltz.ledger (table_oid, schema_name, table_name, relation)
select o::oid, s, t, l from unnest($1::int8[], $2::text[], $3::text[], $4::text[]) as u(o, s, t, l) on conflict do nothing`, tables, schemas, names, ledgers); err != nil {
		return fmt.Errorf("note ledgers of tables: %w", err)
	}
	for n, list := range l.Also {
		for _, copied := range list {
			if _, err := q.Exec(ctx, `update pgwaltz.ledger set also = coalesce(also, '{}') || $4::text
where table_oid = $1::int8::oid and schema_name = $2 and table_name = $3 and not $4::text = any(coalesce(also, '{}'))`, int64(n.Table), n.Name.Schema, n.Name.Name, relationText(copied)); err != nil {
				return fmt.Errorf("note ledgers of tables: %w", err)
			}
		}
	}
	return nil
}

// ForgetLedgers deletes all, or with an age those of tables that are gone for as long; an interval as text, empty for all.
func ForgetLedgers(ctx context.Context, q Querier, age string) error {
	if _, err := q.Exec(ctx, `delete from pgwaltz.ledger l where $1 = '' or noted_at < pg_catalog.now() - nullif($1, '')::interval and not exists (select from pg_catalog.pg_class c where c.oid = l.table_oid)`, age); err != nil {
		return fmt.Errorf("forget ledgers of tables: %w", err)
	}
	return nil
}

// LedgerOf is the ledger of the table that has a name now, as it is stored.
func LedgerOf(ctx context.Context, q Querier, name wal.RelationName) (wal.RelationName, error) {
	of, err := ReadLedgers(ctx, q)
	if err != nil || len(of.Of) == 0 {
		return name, err
	}
	rows, err := q.Query(ctx, `select coalesce(pg_catalog.max(c.oid::int8), 0) from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p')`, name.Schema, name.Name)
	if err != nil {
		return name, fmt.Errorf("find %s: %w", name, err)
	}
	table, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int64])
	if err != nil {
		return name, fmt.Errorf("find %s: %w", name, err)
	}
	if l, ok := of.Of[Named{uint32(table), name}]; ok {
		return l, nil
	}
	return name, nil
}
