package apply

import (
	"strconv"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// ownXID is a transaction id that is given out now.
func (b *bench) ownXID(tx *wal.Transaction) {
	b.t.Helper()
	var xid int64
	if err := b.conn.QueryRow(b.t.Context(), "select pg_catalog.pg_current_xact_id()::text::int8").Scan(&xid); err != nil {
		b.t.Fatal(err)
	}
	tx.XID = wal.XID(xid)
}

// overwritten is a table without stamp columns whose row 1 this region has written, and region a has put another one in its place (behind some change), before the
// self-merge came to it. It returns the own change, of a time in front of the other one or behind it.
func (b *bench) overwritten(r *wal.Relation, later bool, before ...wal.Change) *wal.Transaction {
	b.t.Helper()
	first := b.tx(nil, update(r, text("1", "x"), text("1", "mine")))
	b.ownXID(first)
	b.exec("update plain set v = 'mine' where id = 1")
	other := b.tx(nil, insert(r, text("1", "theirs")))
	stamp := other.Changes[0].Stamp
	other.Changes = append(before, other.Changes...)
	b.apply(other)
	b.want("select id || '|' || v from plain", "1|theirs")
	if later {
		first.Changes[0].Stamp.UpdatedAt = stamp.UpdatedAt + 1
	}
	return first
}

// TestConvertedRowIsTheOwnOne: what the catalog says of a column is renewed by much that changes no value. A row of another
// region is not taken for the own one for that.
func TestConvertedRowIsTheOwnOne(t *testing.T) {
	t.Parallel()
	for _, ddl := range []string{"alter column v set not null", "alter column v set default 'x'", "alter column v set statistics 7", "alter column v type varchar"} {
		b, r := newBench(t, plainDDL+"; insert into plain values (1, 'first')"), plainTable()
		merge := b.selfMerge()
		own := b.overwritten(r, false)
		entry := b.query("select generation, updated_at, origin from pgwaltz.tombstone")
		b.exec("alter table plain " + ddl)
		merge(own)
		b.want("select id || '|' || v from plain", "1|theirs")
		b.want("select generation, updated_at, origin from pgwaltz.tombstone", entry)

		b, r = newBench(t, plainDDL+"; insert into plain values (1, 'first')"), plainTable()
		merge = b.selfMerge()
		own = b.overwritten(r, true)
		b.exec("alter table plain " + ddl)
		merge(own)
		b.want("select id || '|' || v from plain", "1|mine") // it is above the other one
	}
}

// TestConvertedRowAfterATruncate: a truncate of another region renews what the catalog says of the table.
func TestConvertedRowAfterATruncate(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, plainDDL+"; insert into plain values (1, 'first')"), plainTable()
	merge := b.selfMerge()
	own := b.overwritten(r, false, wal.Change{Op: wal.Truncate, Relation: r})
	entry := b.query("select generation, updated_at, origin from pgwaltz.tombstone")
	b.exec("alter table plain alter column v set not null")
	merge(own)
	b.want("select id || '|' || v from plain", "1|theirs")
	b.want("select generation, updated_at, origin from pgwaltz.tombstone", entry)
}

// TestConvertedRowIsKept: what ALTER TABLE has made of an own row stays, whatever else is altered behind it.
func wantMicros(tx *wal.Transaction) string {
	return strconv.FormatInt(int64(tx.Changes[0].Stamp.UpdatedAt), 10)
}

func TestConvertedRowIsKept(t *testing.T) {
	t.Parallel()
	using := "alter table plain alter column v type text using v || '!'"
	for _, ddl := range [][]string{
		{using},
		{"begin; savepoint a; " + using + "; release savepoint a; commit"},
		{using + ", alter column v set not null"},
		{using, "alter table plain alter column v set not null"},
		{using, "grant select on plain to public"},
		{using, "alter table plain add w int default pg_backend_pid()", "alter table plain drop w"},
	} {
		b, r := newBench(t, plainDDL+"; insert into plain values (1, 'first')"), plainTable()
		merge := b.selfMerge()
		b.apply(b.tx(nil, update(r, text("1", "x"), text("1", "theirs")))) // the key is known of another region
		own := b.tx(nil, update(r, text("1", "theirs"), text("1", "mine")))
		b.ownXID(own)
		b.exec("update plain set v = 'mine' where id = 1")
		for _, sql := range ddl {
			b.exec(sql)
		}
		merge(own)
		b.want("select v from plain", "mine!")
		b.want("select live, plain, origin, updated_at = "+wantMicros(own)+" from pgwaltz.tombstone", "true|false|b|true")
	}
}
