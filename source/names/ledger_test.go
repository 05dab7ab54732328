package names

import (
	"fmt"
	"sort"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

// ledgers looks at the names, and lists which ledger each table has that is there now and has another one than its name.
func ledgers(t *testing.T, c *pgx.Conn) string {
	t.Helper()
	if err := pgx.BeginFunc(t.Context(), c, func(tx pgx.Tx) error { return Look(t.Context(), tx) }); err != nil {
		t.Fatal(err)
	}
	now, err := LoadNoted(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for table, name := range now.of {
		if !now.Knows(table, name) {
			t.Errorf("%s is not known", name)
		}
		if l, ok := now.Ledgers[tombstone.Named{Table: table, Name: name}]; ok && l != name {
			out = append(out, name.Name+"="+strings.ReplaceAll(l.Name, fmt.Sprintf("[%d]", table), "[]"))
		}
	}
	sort.Strings(out)
	return strings.Join(out, " ")
}

// TestLedgers: a table takes its ledger along whenever it is renamed, however often and in whatever circle; a table that has replaced another one goes on with
// what was known under the name.
func TestLedgers(t *testing.T) {
	t.Parallel()
	c := open(t)
	step := func(want string, sql ...string) {
		t.Helper()
		pgtest.Exec(t, c, sql...)
		if got := ledgers(t, c); got != want {
			t.Errorf("behind %s the ledgers are %s, want %s", sql, got, want)
		}
	}
	swap := func(a, b string) string {
		return fmt.Sprintf("begin; alter table %[1]s rename to x; alter table %[2]s rename to %[1]s; alter table x rename to %[2]s; commit", a, b)
	}
	step("", "create table t (id int)", "create table u (id int)", "create table v (id int)", "insert into t values (1)", "insert into u values (1)", "insert into v values (1)")
	step("t=u u=t", swap("t", "u"))
	step("", swap("t", "u"))
	step("t=v u=t v=u", "begin; alter table t rename to x; alter table v rename to t; alter table u rename to v; alter table x rename to u; commit")
	step("t=v v=u w=t", "alter table u rename to w")
	step("t=v u=t v=u", "alter table w rename to u")
	step("", swap("t", "u"), swap("u", "v"))
	// It is moved to another schema, which is renamed.
	step("t=t", "create schema app", "alter table t set schema app")
	step("t=t", "alter schema app rename to prog")
	step("", "alter table prog.t set schema public")
	// A table that is new under the name of one that was renamed has a ledger of its own, and takes it along.
	step("t=t [] t_old=t", "begin; alter table t rename to t_old; create table t (id int); commit; insert into t values (2)")
	step("t=t [] t_old=t []", "drop table t_old; begin; alter table t rename to t_old; create table t (id int); commit")
	// One that was filled before it got the name goes on with what was known under it.
	pgtest.Exec(t, c, "drop table t", "drop table t_old")
	step("u_old=u", "create table u_new as select * from u", "begin; alter table u rename to u_old; alter table u_new rename to u; commit")
	step("", "drop table u_old", "create table v_new as select * from v", "drop table v")
	step("", "alter table v_new rename to v")
	// Not where tables of other regions stand for it: then it has been what it is all along.
	step("", "create table w_new as select * from v")
	step("v=w_new v_old=v", "insert into pgwaltz.counterpart select 'eu', 77::int8 << 16 | 1, 'w_new'::regclass::oid, 1, 'id'", "begin; alter table v rename to v_old; alter table w_new rename to v; commit")
	// It is made anew under the name of one that was renamed before.
	step("u=u [] v=w_new", "drop table v_old", "drop table u", "create table u (id int)")
}

// A name that a table has had for a moment, or that is not there any more, leads to its ledger as well, and stays so.
func TestMeets(t *testing.T) {
	t.Parallel()
	c := open(t)
	pgtest.Exec(t, c, "create table t (id int)")
	ledgers(t, c)
	var table uint32
	if err := c.QueryRow(t.Context(), "select 't'::regclass::oid").Scan(&table); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, c, "alter table t rename to u")
	if got := ledgers(t, c); got != "u=t" {
		t.Fatal(got)
	}
	now, err := LoadNoted(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []wal.RelationName{public("between"), public("t")} {
		if now.Knows(table, n) != (n == public("t")) {
			t.Errorf("%s: %t", n, now.Knows(table, n))
		}
		if err := now.Meets(t.Context(), c, table, n); err != nil {
			t.Fatal(err)
		}
	}
	if now, err = LoadNoted(t.Context(), c); err != nil || now.Ledgers[tombstone.Named{Table: table, Name: public("between")}] != public("t") {
		t.Errorf("%v %v", now.Ledgers, err)
	}
}

// On another server the tables have other numbers.
func TestAdoptLedgers(t *testing.T) {
	t.Parallel()
	c := open(t)
	pgtest.Exec(t, c, "create table t (id int)", "create table u (id int)")
	ledgers(t, c)
	pgtest.Exec(t, c, "alter table t rename to x", "alter table u rename to t", "alter table x rename to u")
	if got := ledgers(t, c); got != "t=u u=t" {
		t.Fatal(got)
	}
	pgtest.Exec(t, c, "drop table t", "drop table u", "create table t (id int)", "create table u (id int)")
	if err := Adopt(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if got := ledgers(t, c); got != "t=u u=t" {
		t.Errorf("behind the move the ledgers are %q", got)
	}
}

// TestLedgersOfTablesThatMayNotBeRead: names are noted of all tables, and a role that may not read some of them, for one reason or the other, notes them all the same.
func TestLedgersOfTablesThatMayNotBeRead(t *testing.T) {
	t.Parallel()
	c := open(t)
	pgtest.Exec(t, c, "create role reader", "grant usage on schema pgwaltz, public to reader", "grant all on all tables in schema pgwaltz to reader", "set row_security = off",
		"create schema shut", "create table hidden (id int)", "create table shut.kept (id int)", "create table closed (id int)", "grant select on hidden, shut.kept to reader",
		"alter table hidden enable row level security")
	look := func() string {
		t.Helper()
		pgtest.Exec(t, c, "set role reader")
		defer pgtest.Exec(t, c, "reset role")
		return ledgers(t, c)
	}
	look()
	for _, n := range []string{"hidden", "shut.kept", "closed"} {
		_, last, schema := strings.Cut(n, ".")
		if !schema {
			last = n
		}
		pgtest.Exec(t, c, fmt.Sprintf("begin; alter table %s rename to %s_old; create table %[1]s (like %[3]s_old); grant select on %[1]s to reader; commit", n, last, n))
		if n == "hidden" {
			pgtest.Exec(t, c, "alter table hidden enable row level security")
		}
	}
	got := look()
	for _, want := range []string{"closed_old=closed", "hidden_old=hidden", "kept_old=kept"} {
		if !strings.Contains(got, want) {
			t.Errorf("the ledgers are %s, want %s among them", got, want)
		}
	}
}
