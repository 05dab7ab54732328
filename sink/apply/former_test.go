package apply

import (
	"context"
	"fmt"
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// An own change of a table whose name another one has by now never changes a row of that one; where that was made behind the change, it
// is recorded as what was there before.
func TestDecideFormer(t *testing.T) {
	t.Parallel()
	at := func(m wal.Micros) wal.Stamp { return wal.Stamp{Version: wal.NullVersion, UpdatedAt: m} }
	row := func(m wal.Micros) conflict.Side { return conflict.Side{Known: true, Alive: true, Stamp: at(m)} }
	for _, x := range []struct {
		name       string
		op         wal.Op
		row, later bool
		local      conflict.Side
		want       conflict.Verdict
	}{
		{"a row of a table as old", wal.Update, true, false, row(1), conflict.Keep},
		{"a delete, and a row of a table as old", wal.Delete, true, false, row(1), conflict.Keep},
		{"what the copy has made of the row", wal.Update, true, true, row(1), conflict.Same},
		{"another region has written it since", wal.Update, true, true, row(9), conflict.Keep},
		{"the copy has left the row out", wal.Update, false, true, conflict.Side{}, conflict.Keep},
		{"the copy was made of a row that was deleted since", wal.Delete, true, true, row(1), conflict.Same},
		{"the row was deleted before the copy", wal.Delete, false, true, conflict.Side{}, conflict.Same},
	} {
		e := conflict.Event{Op: x.op, Stamp: at(5)}
		if got := decideFormer(conflict.Policy{}, x.op, x.row, x.later, e, x.local); got != x.want {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
}

// An own delete that is read after its table has swapped names with another one as old is a tombstone in the ledger of its table
// at its own position: a copy from a region that did not have it yet does not put the row back. Where the key has a row again, that says enough.
func TestNoteMoved(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; create table public.other (like acct including all); insert into acct values (2, 'again', 3, '2024-01-03')"), acct()
	var oid uint32
	if err := b.conn.QueryRow(t.Context(), "select 'acct'::regclass::oid").Scan(&oid); err != nil {
		t.Fatal(err)
	}
	for i := range r.Columns {
		r.Columns[i].ID = wal.ColumnID(oid, int16(i+1))
	}
	gone := b.tx(nil, wal.Change{Op: wal.Delete, Relation: r, Old: row("1", "gone", 2, 2)}, wal.Change{Op: wal.Delete, Relation: r, Old: row("2", "was", 2, 2)})
	b.ownXID(gone)
	b.exec("alter table acct rename to x; alter table other rename to acct; alter table x rename to other")
	b.idx.SetLedgers(tombstone.Ledgers{Of: map[tombstone.Named]wal.RelationName{{Table: oid, Name: wal.RelationName{Schema: "public", Name: "other"}}: r.Ref()}})
	b.idx.Stamped(gone.EndLSN + 1000)
	b.selfMerge()(gone)
	b.want("select relation, key, live, lsn = '"+gone.CommitLSN.String()+"' from pgwaltz.tombstone", `public.acct|["1"]|false|true`)
	there := *acct()
	there.Name = "other"
	b.apply(b.tx(nil, insert(&there, row("1", "gone", 1, 1)), insert(&there, row("3", "new", 1, 1))))
	b.want("select string_agg(id || v, ' ' order by id) from other", "2again 3new")
}

// TestNoteMovedOfAReplacedTable: where a table has been replaced, and begun a ledger of its own, what its own changes by the former name say is in both ledgers, whether the other table was
// made in front of the change or behind it: entries, and the items of what later changes of the batch have superseded. A delete that comes later is in the one of its table alone.
func TestNoteMovedOfAReplacedTable(t *testing.T) {
	t.Parallel()
	for _, behind := range []bool{false, true} {
		b, r := newBench(t, acctDDL+"; insert into acct values (2, 'again', 3, '2024-01-03')"), acct()
		var oid uint32
		if err := b.conn.QueryRow(t.Context(), "select 'acct'::regclass::oid").Scan(&oid); err != nil {
			t.Fatal(err)
		}
		for i := range r.Columns {
			r.Columns[i].ID = wal.ColumnID(oid, int16(i+1))
		}
		const made = "create table public.other (like acct including all)"
		if !behind {
			b.exec(made)
		}
		gone := b.tx(nil, wal.Change{Op: wal.Delete, Relation: r, Old: row("1", "gone", 2, 2)}, wal.Change{Op: wal.Delete, Relation: r, Old: row("2", "was", 2, 2)})
		b.ownXID(gone)
		if behind {
			b.exec(made)
		}
		b.exec("alter table acct rename to acct_old; alter table other rename to acct")
		was, is, own := r.Ref(), wal.RelationName{Schema: "public", Name: "acct_old"}, wal.RelationName{Schema: "public", Name: "acct_old [7]"}
		b.idx.SetLedgers(tombstone.Ledgers{
			Of:   map[tombstone.Named]wal.RelationName{{Table: oid, Name: was}: was, {Table: oid, Name: is}: own},
			Also: map[tombstone.Named][]wal.RelationName{{Table: oid, Name: was}: {own}},
		})
		b.idx.Stamped(gone.EndLSN + 1000)
		b.selfMerge()(gone)
		b.want("select relation, live, lsn = '"+gone.CommitLSN.String()+"' from pgwaltz.tombstone where key = '[\"1\"]' order by 1", `public."acct_old [7]"|false|true;public.acct|false|true`)
		b.want(`select count(*) from (select relation, lsn from pgwaltz.tombstone where key = '["2"]' union select relation, lsn from pgwaltz.past where key = '["2"]') as e`, "2")
		later := *r
		later.Name = is.Name
		b.exec("delete from acct_old where id = 2")
		del := b.tx(nil, wal.Change{Op: wal.Delete, Relation: &later, Old: row("2", "again", 3, 3)})
		b.ownXID(del)
		b.idx.Stamped(del.EndLSN + 1000)
		b.selfMerge()(del)
		b.want("select relation from pgwaltz.tombstone where lsn = '"+del.CommitLSN.String()+"'", `public."acct_old [7]"`)
	}
}

// The same with rows of a table without stamp columns: when they were written is known in the ledger of their table, and of a row that is another one by now it is not.
func TestNoteMovedRows(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, plainDDL+"; create table public.other (like plain including all); insert into plain values (1, 'mine'), (2, 'newer'), (3, 'again'); insert into other values (1, 'mine'), (2, 'y')"), plainTable()
	var oid uint32
	if err := b.conn.QueryRow(t.Context(), "select 'plain'::regclass::oid").Scan(&oid); err != nil {
		t.Fatal(err)
	}
	for i := range r.Columns {
		r.Columns[i].ID = wal.ColumnID(oid, int16(i+1))
	}
	wrote := b.tx(map[string]uint32{"3": 1}, insert(r, text("1", "mine")), insert(r, text("2", "was")), insert(r, text("3", "again")))
	b.ownXID(wrote)
	b.exec("alter table plain rename to x; alter table other rename to plain; alter table x rename to other")
	b.idx.SetLedgers(tombstone.Ledgers{Of: map[tombstone.Named]wal.RelationName{{Table: oid, Name: wal.RelationName{Schema: "public", Name: "other"}}: r.Ref()}})
	b.idx.Stamped(wrote.EndLSN + 1000)
	b.selfMerge()(wrote)
	b.want("select relation, key, live, generation, updated_at = "+fmt.Sprint(int64(wrote.CommitTime))+", lsn = '"+wrote.CommitLSN.String()+"' from pgwaltz.tombstone order by key", `public.plain|["1"]|true|-1|true|true;public.plain|["3"]|true|0|true|true`)
	b.want("select string_agg(id || v, ' ' order by id) from plain", "1mine 2y")
}

// TestADeleteThatWaitedForARetiredTable: own deletes were set aside, and their table was replaced, and begun a ledger of its own, before they were decided. What they say is in
// both ledgers, but where a later life of the key has begun in the one of the name.
func TestADeleteThatWaitedForARetiredTable(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; create table public.other (like acct including all); insert into acct select i, 'theirs', 1, '2023-12-31' from generate_series(1, 2) i"), acct()
	var oid uint32
	if err := b.conn.QueryRow(t.Context(), "select 'acct'::regclass::oid").Scan(&oid); err != nil {
		t.Fatal(err)
	}
	for i := range r.Columns {
		r.Columns[i].ID = wal.ColumnID(oid, int16(i+1))
	}
	far := true
	cfg := b.selfConfig(func(ctx context.Context) (*tombstone.Snapshot, error) {
		if far {
			return nil, tombstone.ErrFarBehind
		}
		return tombstone.ReadSnapshot(ctx, b.conn)
	})
	gone := b.tx(nil, remove(r, row("1", "old", 1, 1)), remove(r, row("2", "old", 1, 1)))
	b.mergeWith(New(cfg))(gone)
	b.want("select string_agg(key || sqlstate, ' ' order by key) from pgwaltz.parked", `["1"]PW005 ["2"]PW005`)
	b.exec("delete from pgwaltz.tombstone; alter table acct rename to acct_old; alter table other rename to acct")
	b.exec(`insert into pgwaltz.tombstone (relation, key, generation, version, updated_at, live, origin, lsn) values ('public.acct', '["2"]', 0, 1, 0, true, 'b', '0/9000')`)
	was, is, own := r.Ref(), wal.RelationName{Schema: "public", Name: "acct_old"}, wal.RelationName{Schema: "public", Name: "acct_old [7]"}
	b.idx.SetLedgers(tombstone.Ledgers{
		Of:   map[tombstone.Named]wal.RelationName{{Table: oid, Name: was}: was, {Table: oid, Name: is}: own},
		Also: map[tombstone.Named][]wal.RelationName{{Table: oid, Name: was}: {own}},
	})
	if _, _, err := parked.Follow(t.Context(), b.conn, "b", cfg.Parked); err != nil {
		t.Fatal(err)
	}
	far = false
	b.idx.Merged(gone.EndLSN)
	re := patientRetrier(cfg)
	t.Cleanup(re.a.Close)
	b.turns(re, 3)
	b.want("select count(*) from pgwaltz.parked", "0")
	b.want("select count(*) from acct_old", "0")
	b.want("select string_agg(relation || key || live, ' ' order by relation, key) from pgwaltz.tombstone",
		`public."acct_old [7]"["1"]false public."acct_old [7]"["2"]false public.acct["1"]false public.acct["2"]true`)
}
