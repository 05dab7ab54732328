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

// LedgerSchema makes the table of ledgers: of tables that were renamed, or got a name that another table had before. A table that is not
// there has its ledger under its own name. A row is never changed: changes that came by that name are in that ledger. It may be run again.
const LedgerSchema = `create table if not exists pgwaltz.ledger (
  table_oid   oid not null,
  schema_name text collate "C" not null,
  table_name  text collate "C" not null,
  relation    text collate "C" not null,
  noted_at    timestamptz not null default now(),
  primary key (table_oid, schema_name, table_name)
)`

// Named is a table of this region, by its OID, under a name that it has or had.
type Named struct {
	Table uint32
	Name  wal.RelationName
}

// Ledger is the name under which entries of a table are kept, which is called name, or was.
func (x *Index) Ledger(table uint32, name wal.RelationName) wal.RelationName {
	if m := x.ledgers.Load(); m != nil {
		if l, ok := (*m)[Named{table, name}]; ok {
			return l
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

// Renamed reports whether any table has its ledger under another name than its own.
func (x *Index) Renamed() bool { return x.ledgers.Load() != nil }

// SetLedgers is told which ledgers tables have that are not called as these.
func (x *Index) SetLedgers(of map[Named]wal.RelationName) {
	if len(of) == 0 {
		x.ledgers.Store(nil)
		return
	}
	x.ledgers.Store(&of)
}

// Ledgers reads which ledgers tables have. A database that an earlier program has set up has none.
func Ledgers(ctx context.Context, q Querier) (map[Named]wal.RelationName, error) {
	rows, err := q.Query(ctx, `select pg_catalog.to_regclass('pgwaltz.ledger') is not null`)
	if err != nil {
		return nil, fmt.Errorf("read ledgers of tables: %w", err)
	}
	out := map[Named]wal.RelationName{}
	if there, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool]); err != nil || !there {
		return out, err
	}
	if rows, err = q.Query(ctx, `select table_oid::int8, schema_name, table_name, relation from pgwaltz.ledger`); err != nil {
		return nil, fmt.Errorf("read ledgers of tables: %w", err)
	}
	var table int64
	var n wal.RelationName
	var ledger string
	if _, err := pgx.ForEachRow(rows, []any{&table, &n.Schema, &n.Name, &ledger}, func() error {
		out[Named{uint32(table), n}] = relationName(ledger)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read ledgers of tables: %w", err)
	}
	return out, nil
}

// NoteLedgers stores which ledgers tables have. What stands there stays.
func NoteLedgers(ctx context.Context, q Querier, of map[Named]wal.RelationName) error {
	if len(of) == 0 {
		return nil
	}
	var tables []int64
	var schemas, names, ledgers []string
	for n, l := range of {
		tables, schemas, names, ledgers = append(tables, int64(n.Table)), append(schemas, n.Name.Schema), append(names, n.Name.Name), append(ledgers, relationText(l))
	}
	if _, err := q.Exec(ctx, `insert into pgwaltz.ledger (table_oid, schema_name, table_name, relation)
select o::oid, s, t, l from unnest($1::int8[], $2::text[], $3::text[], $4::text[]) as u(o, s, t, l) on conflict do nothing`, tables, schemas, names, ledgers); err != nil {
		return fmt.Errorf("note ledgers of tables: %w", err)
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
	of, err := Ledgers(ctx, q)
	if err != nil || len(of) == 0 {
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
	if l, ok := of[Named{uint32(table), name}]; ok {
		return l, nil
	}
	return name, nil
}
