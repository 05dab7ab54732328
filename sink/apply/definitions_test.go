package apply

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A commit looks by the transactions of the catalog whether its tables are as they were read, and compares names only where
// something was written there since. Every other session of the server would disturb it, so it does not run beside other tests.
func TestACommitSeesThatATableWasAltered(t *testing.T) {
	const trigger = "create trigger %s %s on S.acct for each row execute function suppress_redundant_updates_trigger()"
	one, two := fmt.Sprintf(trigger, "one", "after update"), fmt.Sprintf(trigger, "two", "before insert")
	cases := []struct {
		name, sql string
		same      bool // it changes nothing that is looked at
	}{
		{"nothing", "select 1", true},
		{"a column renamed", "alter table S.acct rename column v to w", false},
		{"a column of another type", "alter table S.acct alter column v type varchar(7)", false},
		{"a column more", "alter table S.acct add column more int", false},
		{"a column less", "alter table S.acct drop column v", false},
		{"two names swapped", "alter table S.acct rename column v to x; alter table S.acct rename column version to v; alter table S.acct rename column x to version", false},
		{"renamed", "alter table S.acct rename to other", false},
		{"dropped", "drop table S.acct", false},
		{"made anew", "create table S.acct2 (like S.acct including all); drop table S.acct; alter table S.acct2 rename to acct", false},
		{"in another schema", "create schema S_else; alter table S.acct set schema S_else", false},
		{"its schema renamed", "alter schema S rename to S_else", false},
		{"a trigger more", two, false},
		{"a trigger less", "drop trigger one on S.acct", false},
		{"one trigger for another", "drop trigger one on S.acct; " + one, false},
		{"a trigger switched off", "alter table S.acct disable trigger one", false},
		{"truncated", "truncate S.acct", true},
		{"rights", "grant select on S.acct to public", true},
		{"statistics of a column", "alter table S.acct alter column v set statistics 7", true},
		{"a trigger made and dropped", two + "; drop trigger two on S.acct", true},
	}
	b := newBench(t, acctDDL)
	a := b.a
	old, err := a.cfg.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close(context.WithoutCancel(t.Context()))
	for n, c := range cases {
		for _, held := range []bool{false, true} {
			schema := fmt.Sprintf("s%d_%v", n, held)
			in := func(sql string) string { return strings.ReplaceAll(sql, "S.", schema+".") }
			b.exec("create schema " + schema + "; " + in(strings.Replace(acctDDL, "public.", "S.", 1)+"; "+one))
			if held { // a transaction that is older than what comes
				sessionExec(t, old, "begin; select pg_catalog.pg_current_xact_id()")
			}
			alter := strings.ReplaceAll(in(c.sql), "S_else", schema+"_else")
			alter = strings.ReplaceAll(alter, "schema S ", "schema "+schema+" ")
			guarded(t, a, wal.RelationName{Schema: schema, Name: "acct"}, c.name, alter, held, c.same, b)
			if held {
				sessionExec(t, old, "rollback")
			}
		}
	}
}

func guarded(t *testing.T, a *Applier, table wal.RelationName, name, alter string, held, same bool, b *bench) {
	t.Helper()
	s, err := loadSchema(t.Context(), a.conn, table, true)
	if err != nil {
		t.Fatal(err)
	}
	guard := func() string {
		t.Helper()
		a.named = map[*tableSchema]struct{}{s: {}}
		p := pipeline{fence: -1}
		if err := a.guardDefinitions(t.Context(), &p); err != nil {
			t.Fatal(err)
		}
		err := a.run(t.Context(), &p, nil, nil, nil)
		if err != nil && sqlState(err) == "" {
			t.Fatal(err)
		}
		return sqlState(err)
	}
	b.exec("select pg_catalog.pg_current_xact_id()")
	for tries := 0; ; tries++ {
		before := s.unaltered.since
		if got := guard(); got != "" {
			t.Fatalf("%s, held %v: before it: %s", name, held, got)
		}
		if s.unaltered.since == before && !held || held {
			break
		}
		if tries > 500 {
			t.Fatalf("%s: the names of a table that nobody has altered are compared each time", name)
		}
		if err := pause.For(t.Context(), 10*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	b.exec(alter)
	want := "22012"
	if same {
		want = ""
	}
	for range 2 {
		if got := guard(); got != want {
			t.Errorf("%s, held %v: state %q, want %q", name, held, got, want)
		}
	}
	s.unaltered.asked = time.Now().Add(-2 * maxUnaltered)
	if got := guard(); got != want {
		t.Errorf("%s, held %v, name by name: state %q, want %q", name, held, got, want)
	}
	if same && time.Since(s.unaltered.asked) > maxUnaltered {
		t.Errorf("%s, held %v: what was compared is not relied on", name, held)
	}
}

func sessionExec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatal(err)
	}
}
