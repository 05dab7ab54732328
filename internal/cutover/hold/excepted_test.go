package hold_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// What a role that is left alone writes is checked with the rights of an owner who is held: it is said before, and it is so.
func TestExceptedByForeignKeys(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.exec(`create role %s_keeper login; create role %s_batch login; create table parent (id int primary key); create table child (p int references parent); insert into parent values (1);
create view seen as select * from parent; alter table parent owner to %s_keeper; alter view seen owner to %s_keeper; alter table child owner to %s_owner; grant %s_keeper to %s_owner;
grant insert, select on child, seen to %s_batch`)
	p.o.Except = append(p.o.Except, p.name+"_batch")
	says := func() string {
		t.Helper()
		plan, err := hold.Try(t.Context(), p.owner, p.o)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(plan.Findings, func(f preflight.Finding) bool { return f.Code == "except_checks" })
		if i < 0 {
			return ""
		}
		return plan.Findings[i].What
	}
	if got := says(); !strings.Contains(got, strings.ReplaceAll("foreign keys of public.child (role %s_batch, owner %s_keeper), view public.seen (role %s_batch, owner %s_keeper)", "%s", p.name)) {
		t.Errorf("%q", got)
	}
	p.take()
	batch := pgtest.Connect(t, pgtest.As(p.dsn, p.name+"_batch"))
	for _, sql := range []string{"insert into child values (1)", "insert into seen values (2)"} {
		if _, err := batch.Exec(t.Context(), sql); pg.Code(err) != "42501" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	p.exec(`grant pg_signal_backend, pg_read_all_stats to %s_owner`)
	p.giveBack()
	p.o.Except = append(p.o.Except, p.name+"_keeper")
	if got := says(); got != "" {
		t.Errorf("%q", got)
	}
	p.take()
	for _, sql := range []string{"insert into child values (1)", "insert into seen values (2)"} {
		if _, err := batch.Exec(t.Context(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	p.giveBack()
}
