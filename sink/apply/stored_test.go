package apply

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// A column that would store something else than what came parks the row, whatever way it takes,
// and lets it in when the column is what it is at the origin.
func TestWhatIsStoredIsWhatCame(t *testing.T) {
	t.Parallel()
	b := newBench(t, `create table public.n(id int primary key, v numeric(10,1), note varchar(3), version bigint, updated_at timestamptz);
create table public.k(a numeric(10,1), b text);
insert into n values (1, 1.5, 'abc', 1, '2024-01-01')`)
	rel := &wal.Relation{Schema: "public", Name: "n", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Columns: []wal.Column{
		{Name: "id", OID: 23, TypeMod: -1}, {Name: "v", OID: 1700, TypeMod: -1}, {Name: "note", OID: 25, TypeMod: -1},
		{Name: "version", OID: 20, TypeMod: -1}, {Name: "updated_at", OID: 1184, TypeMod: -1},
	}}
	keyless := &wal.Relation{Schema: "public", Name: "k", Identity: wal.IdentityFull, Columns: []wal.Column{
		{Name: "a", OID: 1700, TypeMod: -1}, {Name: "b", OID: 25, TypeMod: -1}}}
	at := func(id, v, note, version string) wal.Tuple {
		return text(id, v, note, version, "2024-01-0"+version+" 00:00:00+00")
	}
	tx := b.tx(nil,
		update(rel, at("1", "1.5", "abc", "1"), at("1", "1.55", "abc", "2")), // rounded
		insert(rel, at("2", "2.5", "ab", "1")),                               // fits
		insert(rel, at("3", "2.5", "abc  ", "1")),                            // spaces are cut off
		insert(rel, at("4", "2.25", "\\N", "1")),                             // rounded
		insert(keyless, text("1.25", "x")), insert(keyless, text("1.5", "\\N")),
		update(keyless, text("1.5", "\\N"), text("1.05", "y")),
	)
	tx.Changes[len(tx.Changes)-1].Old = text("1.5", "\\N")
	b.apply(tx)
	b.want("select id, v::text, note, version from n order by id", "1|1.5|abc|1;2|2.5|ab|1")
	b.want("select a::text, b is null from k", "1.5|true")
	b.want("select table_name, case when table_name = 'n' then key end, sqlstate from pgwaltz.parked order by table_name, key", `k|<nil>|PW002;k|<nil>|PW002;n|["1"]|PW002;n|["3"]|PW002;n|["4"]|PW002`)
	b.exec("alter table n alter v type numeric, alter note type text; alter table k alter a type numeric")
	b.turns(b.retrier(), 3)
	b.want("select id, v::text, note, version from n order by 1", "1|1.55|abc|2;2|2.5|ab|1;3|2.5|abc  |1;4|2.25|<nil>|1")
	b.want("select a::text, b from k order by 1", "1.05|y;1.25|x")
	b.want("select count(*) from pgwaltz.parked", "0")
}

// A range takes over what its subtype makes of its bounds.
func TestRangesOverDomains(t *testing.T) {
	t.Parallel()
	b := newBench(t, `create domain public.dn as numeric(6,1); create type public.rn as range (subtype = public.dn);
create table public.r(id int primary key, r rn, a rn[], m rn_multirange)`)
	rel := &wal.Relation{Schema: "public", Name: "r", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Columns: []wal.Column{
		{Name: "id", OID: 23, TypeMod: -1}, {Name: "r", OID: 30001, Type: "public.rn", TypeMod: -1}, {Name: "a", OID: 30002, Type: "public._rn", TypeMod: -1}, {Name: "m", OID: 30003, Type: "public.rn_multirange", TypeMod: -1}}}
	b.apply(b.tx(nil, insert(rel, text("1", "[1.25,2.25)", "\\N", "\\N")), insert(rel, text("2", "\\N", `{"[1.25,2.25)"}`, "\\N")),
		insert(rel, text("3", "\\N", "\\N", "{[1.25,2.25)}")), insert(rel, text("4", "[1.5,2.5)", "\\N", "\\N"))))
	b.want("select id, r::text from r", "4|[1.5,2.5)")
	b.want("select key, sqlstate from pgwaltz.parked order by key", `["1"]|PW002;["2"]|PW002;["3"]|PW002`)
}

// A trigger that changes applied rows is found out, also when it was made while the applier ran.
func TestTriggerThatChangesRows(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+`; create function up() returns trigger language plpgsql as $$ begin new.v := pg_catalog.upper(new.v); return new; end $$`), acct()
	b.apply(b.tx(nil, insert(r, row("1", "a", 1, 1))))
	b.exec("create trigger up before insert or update on acct for each row execute function up(); alter table acct enable always trigger up")
	for _, s := range b.a.tables {
		s.due = s.due.Add(-schemaAge)
	}
	b.apply(b.tx(nil, update(r, row("1", "a", 1, 1), row("1", "b", 2, 2)), insert(r, row("2", "B", 1, 1)), insert(r, row("3", "c", 1, 1))))
	b.want(acctRows, "1|a|1;2|B|1")
	b.want("select key, sqlstate from pgwaltz.parked order by id", `["1"]|PW002;["3"]|PW002`)
}

func TestMayDiffer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		here  tableColumn
		there wal.Column
		want  bool
	}{
		{"the same", tableColumn{oid: 1700, mod: 655366}, wal.Column{OID: 1700, TypeMod: 655366}, false},
		{"no modifier here", tableColumn{oid: 1700, mod: -1}, wal.Column{OID: 1700, TypeMod: 655366}, false},
		{"another scale", tableColumn{oid: 1700, mod: 655365}, wal.Column{OID: 1700, TypeMod: 655366}, true},
		{"a scale here alone", tableColumn{oid: 1700, mod: 655365}, wal.Column{OID: 1700, TypeMod: -1}, true},
		{"integers", tableColumn{oid: 23, mod: -1}, wal.Column{OID: 20, TypeMod: -1}, false},
		{"float for numeric", tableColumn{oid: 701, mod: -1}, wal.Column{OID: 1700, TypeMod: -1}, true},
		{"uuid for text", tableColumn{oid: 2950, mod: -1}, wal.Column{OID: 25, TypeMod: -1}, true},
		{"two enums", tableColumn{oid: 20001, mod: -1}, wal.Column{OID: 30001, TypeMod: -1}, false},
		{"two types of the application", tableColumn{oid: 20001, mod: -1, wire: "public.hstore"}, wal.Column{OID: 30001, TypeMod: -1, Type: "public.citext"}, true},
		{"one type of the application", tableColumn{oid: 20001, mod: -1, wire: "public.hstore"}, wal.Column{OID: 30001, TypeMod: -1, Type: "public.hstore"}, false},
		{"two domains", tableColumn{oid: 20001, mod: -1, coerces: true}, wal.Column{OID: 30001, TypeMod: -1}, true},
		{"an extension's type of another scale", tableColumn{oid: 20001, mod: 3}, wal.Column{OID: 30001, TypeMod: 4}, true},
		{"a type of the application for text", tableColumn{oid: 20001, mod: -1}, wal.Column{OID: 25, TypeMod: -1}, true},
	} {
		if got := tt.here.mayDiffer(&tt.there); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// Wider types print some values in another way; what they store is no other value.
func TestWiderTypes(t *testing.T) {
	t.Parallel()
	b := newBench(t, `create table public.w(id int primary key, i numeric(12,2), n numeric(12,4), c char(5), d timestamp, e timestamptz, f timestamptz, version bigint, updated_at timestamptz);
create table public.narrow(id int primary key, d date, n numeric(4,2), version bigint, updated_at timestamptz)`)
	columns := func(name string, cols ...wal.Column) *wal.Relation {
		cols = append(append([]wal.Column{{Name: "id", OID: 23, TypeMod: -1}}, cols...), wal.Column{Name: "version", OID: 20, TypeMod: -1}, wal.Column{Name: "updated_at", OID: 1184, TypeMod: -1})
		return &wal.Relation{Schema: "public", Name: name, Identity: wal.IdentityFull, PrimaryKey: []int{0}, Columns: cols}
	}
	wide := columns("w", wal.Column{Name: "i", OID: 23, TypeMod: -1}, wal.Column{Name: "n", OID: 1700, TypeMod: 655366}, wal.Column{Name: "c", OID: 1042, TypeMod: 7},
		wal.Column{Name: "d", OID: 1082, TypeMod: -1}, wal.Column{Name: "e", OID: 1082, TypeMod: -1}, wal.Column{Name: "f", OID: 1114, TypeMod: -1})
	narrow := columns("narrow", wal.Column{Name: "d", OID: 1114, TypeMod: -1}, wal.Column{Name: "n", OID: 1700, TypeMod: -1})
	at := "2024-01-01 00:00:00+00"
	b.apply(b.tx(nil,
		insert(wide, text("1", "5", "1.50", "abc", "2020-01-02", "0044-03-15 BC", "2020-01-02 03:04:05.6", "1", at)),
		insert(wide, text("2", "100", "100", "", "infinity", "-infinity", "infinity", "1", at)),
		insert(narrow, text("1", "2020-01-02 00:00:00", "1.5", "1", at)),  // midnight
		insert(narrow, text("2", "2020-01-02 03:04:05", "1.50", "1", at)), // the time is lost
		insert(narrow, text("3", "infinity", "1.005", "1", at)),           // rounded
	))
	b.want("select id, i::text, n::text, c, d::text, e::text, f::text from w order by id",
		"1|5.00|1.5000|abc  |2020-01-02 00:00:00|0044-03-15 00:00:00+00 BC|2020-01-02 03:04:05.6+00;2|100.00|100.0000|     |infinity|-infinity|infinity")
	b.want("select id, d::text, n::text from narrow", "1|2020-01-02|1.50")
	b.want("select key, sqlstate from pgwaltz.parked order by key", `["2"]|PW002;["3"]|PW002`)
}

// Who gets a deferrable constraint while the applier relies on having none is looked at again
// before the commit; so is a partition that alone has one.
func TestDeferrableConstraintThatIsNew(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.apply(b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(r, row("2", "b", 1, 1))))
	b.exec("alter table acct add unique (v) deferrable")
	b.apply(b.tx(nil, update(r, row("2", "b", 1, 1), row("2", "a", 2, 2))))
	b.want(acctRows, "1|a|1;2|b|1")
	b.want("select key, sqlstate from pgwaltz.parked", `["2"]|23505`)
}

func TestDeferrableConstraintOfOnePartition(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+` partition by range (id); create table one partition of acct for values from (0) to (100) partition by range (id);
create table leaf partition of one for values from (0) to (50); create table two partition of acct for values from (100) to (200); alter table one add unique (id, v) deferrable; alter table leaf add unique (v) deferrable`), acct()
	b.apply(b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(r, row("2", "b", 1, 1)), insert(r, row("100", "a", 1, 1)), insert(r, row("101", "a", 1, 1))))
	b.apply(b.tx(nil, update(r, row("2", "b", 1, 1), row("2", "a", 2, 2))))
	b.want(acctRows, "1|a|1;2|b|1;100|a|1;101|a|1")
	b.want("select key, sqlstate from pgwaltz.parked", `["2"]|23505`)
	b.apply(b.tx(nil, update(r, row("1", "a", 1, 1), row("1", "c", 2, 2)))) // now it goes in
	b.turns(b.retrier(), 2)
	b.want(acctRows, "1|c|2;2|a|2;100|a|1;101|a|1")
}

// What a deferrable constraint means is read from its index: expressions, a condition, NULLs.
func TestDeferrableConstraintsOfEveryKind(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+`; create extension btree_gist schema public; create extension citext schema public;
alter table acct add exclude using gist (lower(v) with =) where (version < 100) deferrable initially deferred`), acct()
	b.apply(b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(r, row("2", "b", 1, 1)), insert(r, row("3", "A", 100, 1)), insert(r, row("4", "A", 101, 1))))
	b.want(acctRows, "1|a|1;2|b|1;3|A|100;4|A|101")
	b.apply(b.tx(nil, update(r, row("2", "b", 1, 1), row("2", "A", 2, 2)), insert(r, row("5", "c", 1, 1))))
	b.want(acctRows, "1|a|1;2|b|1;3|A|100;4|A|101;5|c|1")
	b.want("select key, sqlstate from pgwaltz.parked", `["2"]|23505`)
	if b.query("select current_setting('server_version_num')::int >= 150000") != "true" {
		return
	}
	b = newBench(t, acctDDL+`; alter table acct add unique nulls not distinct (v) deferrable`)
	b.apply(b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(r, text("2", "\\N", "1", "2024-01-01 00:00:00+00"))))
	b.apply(b.tx(nil, insert(r, text("3", "\\N", "1", "2024-01-01 00:00:00+00")), insert(r, row("4", "b", 1, 1))))
	b.want("select id, version from acct order by id", "1|1;2|1;4|1")
	b.want("select key, sqlstate from pgwaltz.parked", `["3"]|23505`)
}

// An update of a table without a key that does not say which row it is of is recorded, and ends nothing.
func TestUpdateOfNoRow(t *testing.T) {
	t.Parallel()
	b := newBench(t, `create table public.loose(a int, b text)`)
	rel := &wal.Relation{Schema: "public", Name: "loose", Identity: wal.IdentityFull, Columns: []wal.Column{{Name: "a", OID: 23, TypeMod: -1}, {Name: "b", OID: 25, TypeMod: -1}}}
	b.exec("insert into loose values (1, 'x')")
	b.apply(b.tx(nil, wal.Change{Op: wal.Update, Relation: rel, New: wal.Tuple{text("1")[0], text("y")[0]}}))
	b.want("select a, b from loose", "1|x")
	b.want("select type from pgwaltz.conflict", "update_missing")
}

// A type that prints one value in another way loses nothing of it; what it cuts off is lost.
func TestSpelling(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		here, there  uint32
		sent, stored string
		want         bool
	}{
		{wal.OIDTimestamp, wal.OIDDate, "2024-01-02", "2024-01-02 00:00:00", true},
		{wal.OIDTimestamptz, wal.OIDDate, "0044-03-15 BC", "0044-03-15 00:00:00+00 BC", true},
		{wal.OIDDate, wal.OIDTimestamp, "2024-01-02 00:00:00", "2024-01-02", true},
		{wal.OIDDate, wal.OIDTimestamp, "2024-01-02 00:00:01", "2024-01-02", false},
		{wal.OIDDate, wal.OIDTimestamptz, "0044-03-15 00:00:00+00 BC", "0044-03-15 BC", true},
		{wal.OIDDate, wal.OIDTimestamptz, "0044-03-15 00:00:00+00 BC", "0044-03-15", false},
		{wal.OIDDate, wal.OIDTimestamp, "infinity", "infinity", true},
		{wal.OIDTimestamp, wal.OIDTimestamptz, "2024-01-02 03:04:05.6+00", "2024-01-02 03:04:05.6", true},
		{wal.OIDTimestamptz, wal.OIDTimestamp, "2024-01-02 03:04:05.6", "2024-01-02 03:04:05.6+00", true},
		{wal.OIDFloat8, wal.OIDNumeric, "1.50", "1.5", true},
		{wal.OIDFloat8, wal.OIDNumeric, "0.12345678901234567890", "0.12345678901234568", false},
		{wal.OIDNumeric, wal.OIDFloat8, "1.5", "1.50", true},
	} {
		if got := sameValue(spellingOf(tt.here, tt.there), wal.Value{Kind: wal.Text, Bytes: []byte(tt.sent)}, []byte(tt.stored)); got != tt.want {
			t.Errorf("%d for %d: %s stored as %s: %t", tt.here, tt.there, tt.sent, tt.stored, got)
		}
	}
}
