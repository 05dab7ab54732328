package names

import (
	"context"
	"fmt"
	"regexp"
	"sort"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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
		if l, ok := now.Ledgers.Of[tombstone.Named{Table: table, Name: name}]; ok && l != name {
			out = append(out, name.Name+"="+strings.ReplaceAll(l.Name, fmt.Sprintf("[%d]", table), "[]"))
		}
	}
	sort.Strings(out)
	return strings.Join(out, " ")
}

// TestLedgers: a table takes its ledger along whenever it is renamed, however often and in whatever circle; a table that has replaced another one goes on with
// what was known under the name, and the one that was replaced with a copy.
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
	step("u_old=u_old []", "create table u_new as select * from u", "begin; alter table u rename to u_old; alter table u_new rename to u; commit")
	step("", "drop table u_old", "create table v_new as select * from v", "drop table v")
	step("", "alter table v_new rename to v")
	// Not where tables of other regions stand for it: then it has been what it is all along.
	step("", "create table w_new as select * from v")
	step("v=w_new v_old=v", "insert into pgwaltz.counterpart select 'eu', 77::int8 << 16 | 1, 'w_new'::regclass::oid, 1, 'id'", "begin; alter table v rename to v_old; alter table w_new rename to v; commit")
	// It is made anew under the name of one that was renamed before.
	step("u=u [] v=w_new", "drop table v_old", "drop table u", "create table u (id int)")
}

// TestLedgersOfReplacedTables: two tables that are here share no ledger, however they came to have the same rows; the one that gets a ledger of its own begins with what was noted up to
// then, and what its history has to say later goes into both.
func TestLedgersOfReplacedTables(t *testing.T) {
	t.Parallel()
	also := func(c *pgx.Conn) string {
		rows, err := c.Query(t.Context(), `select table_name || ': ' || relation || ' ' || array_to_string(also, ' ') from pgwaltz.ledger where also is not null order by 1`)
		if err != nil {
			t.Fatal(err)
		}
		list, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		for i := range list {
			list[i] = regexp.MustCompile(`\[\d+\]`).ReplaceAllString(list[i], "[]")
		}
		return strings.Join(list, ", ")
	}
	const replace = "alter table t rename to t_old; alter table t_new rename to t"
	for _, x := range []struct {
		name  string
		steps [][]string // between two looks each
		want  string     // ledgers behind the last
		also  string
		notes string // where key 1, which was noted in the ledger t before, is noted in the end
	}{
		{"one takes the name of the other", [][]string{{replace}}, "t_old=t_old []", `t: public.t public."t_old []"`, `public."t_old []" public.t`},
		{"two looks have seen it", [][]string{{"alter table t rename to t_old"}, {"alter table t_new rename to t"}}, "t=t [] t_old=t", `t: public.t public."t []"`, `public."t []" public.t`},
		{"the former one is gone", [][]string{{replace, "drop table t_old"}}, "", "", "public.t"},
		{"the former one goes later", [][]string{{replace}, {"drop table t_old"}}, "", `t: public.t public."t_old []"`, `public."t_old []" public.t`},
		{"three times", [][]string{{replace}, {"create table t_new as select * from t", "alter table t_old rename to t_oldest", replace}, {"create table t_new as select * from t", "drop table t_oldest", "alter table t_old rename to t_oldest", replace}},
			"t_old=t_old [] t_oldest=t_old []", `t: public.t public."t_old []", t: public.t public."t_old []", t: public.t public."t_old []"`, `public."t_old []" public."t_old []" public."t_old []" public.t`},
		{"and back", [][]string{{replace}, {"alter table t rename to t_bad; alter table t_old rename to t"}}, "t_bad=t_bad []", `t: public.t public."t_bad []", t: public.t public."t_old []"`, `public."t_bad []" public."t_old []" public.t`},
		{"the former one is made from the rows", [][]string{{"alter table t rename to t_old; create table t as select * from t_old"}}, "t_old=t_old []", `t: public.t public."t_old []"`, `public."t_old []" public.t`},
		{"the name is of a table that swapped it away", [][]string{{"alter table t rename to x; alter table u rename to t; alter table x rename to u"}, {"create table u_new as select * from u", "alter table u rename to u_old; alter table u_new rename to u"}},
			"t=u u=t u_old=u_old []", `u: public.t public."u_old []"`, `public."u_old []" public.t`},
		{"and is gone", [][]string{{"alter table t rename to x; alter table u rename to t; alter table x rename to u"}, {"create table u_new as select * from u", "drop table u", "alter table u_new rename to u"}}, "t=u u=t", "", "public.t"},
		{"and was gone before", [][]string{{"alter table t rename to x; alter table u rename to t; alter table x rename to u"}, {"create table u_new as select * from u", "drop table u"}, {"alter table u_new rename to u"}}, "t=u u=u []", "", "public.t"},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			c := open(t)
			pgtest.Exec(t, c, "create table t (id int)", "create table u (id int)", "insert into t values (1)", "insert into u values (1)", "create table t_new as select * from t")
			ledgers(t, c)
			pgtest.Exec(t, c, "insert into pgwaltz.tombstone (relation, key, generation, version, updated_at, lsn) values ('public.t', '[\"1\"]', 3, 4, 5, '0/7')",
				"insert into pgwaltz.past (relation, key, lsn, next, at, live) values ('public.t', '[\"1\"]', '0/6', 3, 4, true)")
			got := ""
			for _, sql := range x.steps {
				for i := range sql {
					if strings.Contains(sql[i], ";") {
						sql[i] = "begin; " + sql[i] + "; commit"
					}
				}
				pgtest.Exec(t, c, sql...)
				got = regexp.MustCompile(`\[\d+\]`).ReplaceAllString(ledgers(t, c), "[]")
			}
			if got != x.want {
				t.Errorf("the ledgers are %q, want %q", got, x.want)
			}
			if got := also(c); got != x.also {
				t.Errorf("what is noted elsewhere as well: %s, want %s", got, x.also)
			}
			for _, table := range []string{"tombstone where generation = 3 and version = 4 and updated_at = 5 and lsn = '0/7' and not live", "past where next = 3 and at = 4 and lsn = '0/6' and live"} {
				var notes string
				if err := c.QueryRow(t.Context(), `select string_agg(regexp_replace(relation, '\d+\]', ']'), ' ' order by relation) from pgwaltz.`+table).Scan(&notes); err != nil || notes != x.notes {
					t.Errorf("it is noted in %s, %v, want %s: %s", notes, err, x.notes, table)
				}
			}
		})
	}
}

// during is a session in which something happens in front of one of the statements.
type during struct {
	pgx.Tx
	left int
	do   func()
}

func (d *during) next() {
	if d.left--; d.left == 0 {
		d.do()
	}
}

func (d *during) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	d.next()
	return d.Tx.Query(ctx, sql, args...)
}

func (d *during) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	d.next()
	return d.Tx.Exec(ctx, sql, args...)
}

// TestLedgersOfASwapDuringTheLook: two tables that swap their names between two statements of a look, and one that is replaced there, are seen by it or by the next one, as a whole.
func TestLedgersOfASwapDuringTheLook(t *testing.T) {
	t.Parallel()
	const before = 12
	for at := 1; at <= before; at++ {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			c := open(t)
			pgtest.Exec(t, c, "create table t (id int)", "create table u (id int)", "create table v (id int)", "insert into t values (1)", "insert into v values (1)", "create table v_new as select * from v", "create table w (id int)")
			ledgers(t, c)
			pgtest.Exec(t, c, "alter table w rename to w2") // something to be said
			other := pgtest.Connect(t, c.Config().ConnString())
			tx, err := c.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			happened := false
			d := &during{Tx: tx, left: at, do: func() {
				happened = true
				pgtest.Exec(t, other, "begin; alter table t rename to x; alter table u rename to t; alter table x rename to u; alter table v rename to v_old; alter table v_new rename to v; commit")
			}}
			if err := Look(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !happened {
				if at < 4 {
					t.Fatal("the look has fewer statements")
				}
				t.Skip("the look has fewer statements")
			}
			if got := regexp.MustCompile(`\[\d+\]`).ReplaceAllString(ledgers(t, c), "[]"); got != "t=u u=t v_old=v_old [] w2=w" {
				t.Errorf("the ledgers are %s", got)
			}
		})
	}
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
	if now, err = LoadNoted(t.Context(), c); err != nil || now.Ledgers.Of[tombstone.Named{Table: table, Name: public("between")}] != public("t") {
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
