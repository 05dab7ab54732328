package cutover

import (
	"slices"
	"testing"

	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// A look names what has written in a transaction that is open, before the pause and in it, what cannot come, and which sequences are not ahead.
func TestProgress(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.streamed()
	name := p.s.Config().Database
	pgtest.Exec(t, p.s, `create role `+name+`_app login`, `create table item (a int primary key)`, `grant insert on item to `+name+`_app`, `create sequence public.s`, `select setval('public.s', 5)`)
	pgtest.Exec(t, p.d, `create sequence public.s`)
	app := pgtest.Connect(t, pgtest.As(p.eu, name+"_app"))
	look := func() *Progress {
		t.Helper()
		got, err := p.Progress(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	found := func(p *Progress, code string) preflight.Severity {
		i := slices.IndexFunc(p.Findings, func(f preflight.Finding) bool { return f.Code == code })
		if i < 0 {
			return ""
		}
		return p.Findings[i].Severity
	}
	is := func(session string) (writes bool) {
		t.Helper()
		for _, s := range look().Sessions {
			if s.Role == session {
				return s.Writes && s.Held()
			}
		}
		t.Fatalf("%s has no session", session)
		return false
	}
	got := look()
	if got.State != nil || got.There.Mode != "stream" || got.There.LagBytes <= 0 || len(got.Findings.Errors()) != 0 || found(got, "no_way_back") != preflight.Warning || !slices.Equal(got.Behind, []string{"public.s"}) || got.Sequences != 1 {
		t.Errorf("%+v", got)
	}
	if is(name + "_app") {
		t.Error("a session that does nothing writes")
	}
	pgtest.Exec(t, app, `begin`, `insert into item values (1)`)
	if !is(name + "_app") {
		t.Error("a session that writes does not")
	}
	p.take()
	if got = look(); found(got, "still_writes") != preflight.Error || got.State == nil || !got.State.Paused {
		t.Errorf("%+v", got)
	}
	pgtest.Exec(t, app, `rollback`)
	if got = look(); len(got.Findings.Errors()) != 0 {
		t.Errorf("%+v", got)
	}
	pgtest.Exec(t, p.s, `grant insert on item to `+name+`_app`)
	if got = look(); found(got, "leak") != preflight.Error {
		t.Errorf("%+v", got)
	}
	pgtest.Exec(t, p.d, `delete from pgwaltz.checkpoint`)
	if got = look(); found(got, "no_way") != preflight.Error {
		t.Errorf("%+v", got)
	}
	p.giveBack()
}
