package names

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/counterpart"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// What is known of the keys of a table is kept in its ledger (tombstone.LedgerSchema), which it takes along when it is renamed. So when names are noted it is said
// which ledger each table has that is called otherwise than when it was looked at last, before anything is decided by the new name.
//
// Two tables may have been made to take each other's place, or one to replace the other. One that swaps its name with another one, or passes it on to a third,
// has been what it is all along. One that was filled from another table, and has got its name, holds the same rows: what was kept under that name
// goes for it, too. That is so for a table of which no other region knows, whose former name nobody has got, and that held rows when it was renamed. A
// table that is new under a name, and empty, has nothing to do with who had it before.
//
// Where the table that was replaced is still there, the two do not share what comes from then on: its rows may be deleted by and by, and live on in the other one. One of the two begins
// a ledger of its own, as a copy (tombstone.CopyLedger): the one that was replaced, as nothing but its own region's changes may be on their way to it. Where it was seen under its new name before the
// other one had the name, as two statements rename them, it has its ledger for good, and the other one gets the copy.

// taker is a table that is called otherwise than at the last look, or is new under a name that another one had; or one of which is said which ledger it has.
type taker struct {
	table    uint32
	is       wal.RelationName
	was      wal.RelationName // empty: it is new
	taken    bool             // a table had the name before
	vacant   bool             // no table has the name that it had
	foreign  bool             // tables of other regions stand for it
	holder   uint32           // the table that had the name last; 0: none, or it was gone at the last look
	held     bool             // that is still here
	known    bool             // it had a name at the last look
	said     bool             // nothing is to be said of it
	inherits bool
}

// named is what a taker is called now.
func (t *taker) named() tombstone.Named { return tombstone.Named{Table: t.table, Name: t.is} }

// noteLedgers says which ledgers tables have under their names. It runs behind the look, in its transaction.
func noteLedgers(ctx context.Context, q Querier, stored tombstone.Ledgers, takers []taker) error {
	if !slices.ContainsFunc(takers, func(t taker) bool { return !t.said }) {
		return nil
	}
	foreign, err := counterpart.Tables(ctx, q)
	if err != nil {
		return err
	}
	for i := range takers {
		t := &takers[i]
		t.foreign = slices.Contains(foreign, int64(t.table))
		if t.said || t.known && (!t.taken || !t.vacant || t.foreign) {
			continue
		}
		holder := t.holder
		if !t.held {
			holder = 0
		}
		if t.inherits, err = heldRows(ctx, q, t.table, holder); err != nil {
			return err
		}
	}
	ledgers, copies := decideLedgers(stored.Of, takers)
	if err := tombstone.NoteLedgers(ctx, q, ledgers); err != nil {
		return err
	}
	for to, from := range copies {
		if err := tombstone.CopyLedger(ctx, q, from, to); err != nil {
			return err
		}
	}
	return tombstone.ForgetLedgers(ctx, q, keep)
}

// decideLedgers returns the ledgers of tables that were renamed, under both names, and of new ones whose name is the ledger of another table; and which of them
// begin as copies of which others.
func decideLedgers(stored map[tombstone.Named]wal.RelationName, takers []taker) (out tombstone.Ledgers, copies map[wal.RelationName]wal.RelationName) {
	out = tombstone.Ledgers{Of: map[tombstone.Named]wal.RelationName{}, Also: map[tombstone.Named][]wal.RelationName{}}
	copies = map[wal.RelationName]wal.RelationName{}
	of := func(n tombstone.Named) wal.RelationName {
		if l, ok := stored[n]; ok {
			return l
		}
		return n.Name
	}
	used := map[wal.RelationName]bool{}
	for _, l := range stored {
		used[l] = true
	}
	present := map[wal.RelationName]bool{} // of tables that are here
	for i := range takers {
		if t := &takers[i]; t.said {
			present[of(t.named())] = true
		}
	}
	// begins gives a table a ledger of its own, as a copy of the one of another table or name, whose history it has.
	begins := func(t *taker, history tombstone.Named) {
		own := ofItsOwn(t)
		out.Of[t.named()], copies[own] = own, of(history)
		out.Of[history] = of(history)
		out.Also[history] = append(out.Also[history], own)
	}
	decided := func(t *taker) bool {
		_, is := out.Of[t.named()]
		return is
	}
	inherit := func(t *taker) {
		switch history := (tombstone.Named{Table: t.holder, Name: t.is}); {
		case t.holder == 0 && present[t.is]: // that of a table that has been renamed long ago
			out.Of[t.named()] = ofItsOwn(t)
		case present[of(history)]:
			begins(t, history)
		default:
			out.Of[t.named()] = of(history)
		}
		present[out.Of[t.named()]], used[out.Of[t.named()]] = true, true
	}
	for i := range takers {
		if t := &takers[i]; t.known && t.inherits && !decided(t) {
			out.Of[tombstone.Named{Table: t.table, Name: t.was}] = of(tombstone.Named{Table: t.table, Name: t.was})
			inherit(t)
		}
	}
	for i := range takers {
		t := &takers[i]
		if t.known || t.said || !used[t.is] && !slices.ContainsFunc(takers, func(o taker) bool { return o.known && of(tombstone.Named{Table: o.table, Name: o.was}) == t.is }) {
			continue
		}
		if t.inherits {
			inherit(t)
		} else {
			out.Of[t.named()] = ofItsOwn(t)
		}
	}
	for i := range takers {
		t := &takers[i]
		if !t.known || t.inherits || decided(t) {
			continue
		}
		before := tombstone.Named{Table: t.table, Name: t.was}
		if present[of(before)] {
			begins(t, before)
			continue
		}
		out.Of[before], out.Of[t.named()], present[of(before)] = of(before), of(before), true
	}
	return out, copies
}

// ofItsOwn is the name of a ledger that no table has but this one.
func ofItsOwn(t *taker) wal.RelationName {
	return wal.RelationName{Schema: t.is.Schema, Name: fmt.Sprintf("%s [%d]", t.is.Name, t.table)}
}

// heldRows reports whether a table holds rows that were written before it was renamed, or by who did that; holder is the table that had the name before, 0
// when it is gone. Which rows a partitioned table holds, or one that the role may not read, or of which a policy hides rows from it, is not looked at: it may. It may be
// any table of the database, also one that is not replicated, and no look at names may fail for it.
func heldRows(ctx context.Context, q Querier, table, holder uint32) (bool, error) {
	rows, err := q.Query(ctx, `select pg_catalog.format('%I.%I', n.nspname, c.relname), c.relkind = 'r' and pg_catalog.has_table_privilege(c.oid, 'select') and pg_catalog.has_schema_privilege(n.oid, 'usage') and not pg_catalog.row_security_active(c.oid),
  (select pg_catalog.max(pg_catalog.age(o.xmin)) from pg_catalog.pg_class o where o.oid in ($1::int8::oid, $2::int8::oid))
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $1::int8::oid`, int64(table), int64(holder))
	if err != nil {
		return false, fmt.Errorf("look at a table that was renamed: %w", err)
	}
	var name string
	var may bool
	var age int32
	if _, err := pgx.ForEachRow(rows, []any{&name, &may, &age}, func() error { return nil }); err != nil {
		return false, fmt.Errorf("look at a table that was renamed: %w", err)
	}
	if name == "" || !may {
		return name != "", nil
	}
	if rows, err = q.Query(ctx, `select exists (select from only `+name+` as r where pg_catalog.age(r.xmin) >= $1)`, age); err != nil {
		return false, fmt.Errorf("look for rows of %s: %w", name, err)
	}
	held, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
	if err != nil {
		return false, fmt.Errorf("look for rows of %s: %w", name, err)
	}
	return held, nil
}

// adoptLedgers tells the ledgers on another server, where tables have other numbers: under the names that they have now.
func adoptLedgers(ctx context.Context, q Querier) error {
	stored, err := tombstone.ReadLedgers(ctx, q)
	if err != nil || len(stored.Of) == 0 {
		return err
	}
	rows, err := q.Query(ctx, `select k.table_oid::int8, c.oid::int8, k.schema_name, k.table_name from pgwaltz.name k
join pg_catalog.pg_namespace n on n.nspname = k.schema_name join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = k.table_name and c.relkind in ('r', 'p')
where k.left_at is null and k.table_oid <> 0`)
	if err != nil {
		return err
	}
	of := map[tombstone.Named]wal.RelationName{}
	var was, is int64
	var n wal.RelationName
	if _, err := pgx.ForEachRow(rows, []any{&was, &is, &n.Schema, &n.Name}, func() error {
		if l, ok := stored.Of[tombstone.Named{Table: uint32(was), Name: n}]; ok {
			of[tombstone.Named{Table: uint32(is), Name: n}] = l
		}
		return nil
	}); err != nil {
		return err
	}
	if err := tombstone.ForgetLedgers(ctx, q, ""); err != nil {
		return err
	}
	return tombstone.NoteLedgers(ctx, q, tombstone.Ledgers{Of: of})
}

// Noted is what a process remembers of the names that were noted. The zero value knows none.
type Noted struct {
	of      map[uint32]wal.RelationName
	by      map[wal.RelationName]uint32
	Ledgers tombstone.Ledgers
}

// LoadNoted reads it.
func LoadNoted(ctx context.Context, q Querier) (n Noted, err error) {
	if n.Ledgers, err = tombstone.ReadLedgers(ctx, q); err != nil {
		return n, err
	}
	rows, err := q.Query(ctx, `select schema_name, table_name, table_oid::int8 from pgwaltz.name where left_at is null`)
	if err != nil {
		return n, fmt.Errorf("read names of tables: %w", err)
	}
	n.of, n.by = map[uint32]wal.RelationName{}, map[wal.RelationName]uint32{}
	var name wal.RelationName
	var table int64
	if _, err := pgx.ForEachRow(rows, []any{&name.Schema, &name.Name, &table}, func() error {
		if table != 0 {
			n.of[uint32(table)], n.by[name] = name, uint32(table)
		}
		return nil
	}); err != nil {
		return n, fmt.Errorf("read names of tables: %w", err)
	}
	return n, nil
}

// Table is the table that was noted under a name; 0 for none.
func (n *Noted) Table(name wal.RelationName) uint32 { return n.by[name] }

// Name is the name under which a table was noted.
func (n *Noted) Name(table uint32) (name wal.RelationName, ok bool) {
	name, ok = n.of[table]
	return name, ok
}

// Knows reports whether it is said which ledger a table has under a name.
func (n *Noted) Knows(table uint32, name wal.RelationName) bool {
	_, said := n.Ledgers.Of[tombstone.Named{Table: table, Name: name}]
	return said || n.by[name] == table
}

// Meets says which ledger a table has under a name by which the WAL has it, where the look behind that has not said it: the table has had the name for a
// moment between two looks, or is gone. It returns the ledger.
func (n *Noted) Meets(ctx context.Context, q Querier, table uint32, name wal.RelationName) error {
	ledger := name
	if now, ok := n.of[table]; ok {
		if ledger, ok = n.Ledgers.Of[tombstone.Named{Table: table, Name: now}]; !ok {
			ledger = now
		}
	}
	of := map[tombstone.Named]wal.RelationName{{Table: table, Name: name}: ledger}
	if err := tombstone.NoteLedgers(ctx, q, tombstone.Ledgers{Of: of}); err != nil {
		return err
	}
	n.Ledgers.Of[tombstone.Named{Table: table, Name: name}] = ledger
	return nil
}
