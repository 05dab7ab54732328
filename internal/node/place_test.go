package node

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// A session is told whose database it is in, and what is not the wanted one is refused.
func TestPlace(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dsn := server.Database(t)
	c := pgtest.Connect(t, dsn)
	role := "place_" + c.Config().Database
	pgtest.Exec(t, c, "create role "+role+" login")
	plain := pgtest.Connect(t, pgtest.As(dsn, role))
	us := Row{"us", "shop"}
	for _, step := range []struct {
		name, sql string
		asRole    bool
		want      Row
		says      string // of Is; "" is fine
		against   bool   // Contradicts says so too
	}{
		{"no schema", "select", false, us, "is no region of pgwaltz", false},
		{"no schema, for anybody", "select", true, us, "is no region of pgwaltz", false},
		{"no name", "create schema pgwaltz; " + Schema, false, us, "is no region of pgwaltz", false},
		{"the wanted one", InsertSQL(us), false, us, "", false},
		{"another region", "select", false, Row{"eu", "shop"}, "which is region us of cluster shop", true},
		{"another cluster", "select", false, Row{"us", "mill"}, "which is region us of cluster shop", true},
		{"no right", "select", true, us, "may not read whose database", false},
		{"a right on the table alone", "grant select (region, cluster, created_at) on pgwaltz.node to " + role, true, us, "may not read whose database", false},
		{"what the hint says", "grant usage on schema pgwaltz to " + role, true, us, "", false},
		{"what the hint says, at another region", "select", true, Row{"eu", "shop"}, "which is region us of cluster shop", true},
	} {
		pgtest.Exec(t, c, step.sql)
		conn := c
		if step.asRole {
			conn = plain
		}
		p, err := LookAt(ctx, conn)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if p.System.SystemID == 0 || p.System.Database != c.Config().Database || !strings.HasSuffix(p.ID(), "/"+p.System.Database) {
			t.Errorf("%s: %+v", step.name, p)
		}
		err = p.Is(step.want, "peers[].dsn")
		var wrong *WrongError
		switch {
		case step.says == "" && err != nil:
			t.Errorf("%s: %v", step.name, err)
		case step.says != "" && (!errors.As(err, &wrong) || !strings.Contains(err.Error(), step.says) || wrong.Hint() == "" || wrong.ExitCode() != 4):
			t.Errorf("%s: %v, want %q", step.name, err, step.says)
		}
		if err := p.Contradicts(step.want, "peers[].dsn"); (err != nil) != step.against {
			t.Errorf("%s: %v", step.name, err)
		}
	}
}

// A copy of schema pgwaltz is one until a sidecar was at work in it.
func TestPlaceOfACopy(t *testing.T) {
	t.Parallel()
	c := pgtest.Connect(t, server.Database(t))
	moved := func(want bool) {
		t.Helper()
		if p, err := LookAt(t.Context(), c); err != nil || p.Moved != want {
			t.Errorf("%+v %v, want %t", p, err, want)
		}
	}
	pgtest.Exec(t, c, "create schema pgwaltz", Schema, HomeSchema, InsertSQL(Row{"us", "shop"}))
	moved(false)
	pgtest.Exec(t, c, "insert into pgwaltz.home (system_id, database) values (7, 8)")
	moved(true)
	sys, err := pg.LoadSystem(t.Context(), c)
	if err == nil {
		err = Settle(t.Context(), c, sys.SystemID)
	}
	if err != nil {
		t.Fatal(err)
	}
	moved(false)
}

// A standby is no region's, and one connection string leads to one database.
func TestPlaceOfAnotherServer(t *testing.T) {
	t.Parallel()
	p := Place{System: pg.System{SystemID: 7, Database: "d", InRecovery: true}, Row: Row{"us", "shop"}}
	if err := p.Contradicts(p.Row, "peers[].dsn"); err == nil || !strings.Contains(err.Error(), "is a standby (7/d)") {
		t.Error(err)
	}
	for _, c := range []struct {
		before pg.System
		same   bool
	}{{pg.System{}, true}, {pg.System{SystemID: 7, Database: "d"}, true}, {pg.System{SystemID: 8, Database: "d"}, false}, {pg.System{SystemID: 7, Database: "e"}, false}} {
		var wrong *WrongError
		if err := p.Same(c.before, "us"); (err == nil) != c.same || err != nil && !errors.As(err, &wrong) {
			t.Errorf("%+v: %v", c.before, err)
		}
	}
}
