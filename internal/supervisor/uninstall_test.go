package supervisor_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/internal/supervisor"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// footprint is what a region may have left in a server: slots, publications, origins, roles, schemas, functions, triggers, tables and columns.
const footprint = `select string_agg(x, E'\n' order by x) from (
  select 'slot ' || slot_name from pg_replication_slots where database = current_database()
  union all select 'publication ' || pubname from pg_publication union all select 'origin ' || roname from pg_replication_origin where roname like 'pgwaltz_gone%'
  union all select 'role ' || rolname from pg_roles where rolname not like 'pg\_%' and rolname like '%gone%' union all select 'schema ' || nspname from pg_namespace where nspname !~ '^pg_(toast_)?temp'
  union all select 'event trigger ' || evtname from pg_event_trigger union all select 'trigger ' || tgname from pg_trigger
  union all select 'column ' || attrelid::regclass || '.' || attname from pg_attribute where attrelid >= 16384 and attnum > 0 and attrelid in (select oid from pg_class where relkind = 'r')
  union all select 'function ' || oid::regprocedure from pg_proc where oid >= 16384) x (x)`

// What setup makes is gone, also where each statement was run by a process of its own, and nothing else is.
func TestUninstall(t *testing.T) {
	t.Parallel()
	dsn := east.Database(t)
	r := newRegion(t, fmt.Sprintf("cluster: gone\nregion: eu\ndirection: both\nnats: {listen: '127.0.0.1:0'}\napply: {privileges: restorer}\npostgres: {dsn: %q, unbounded_wal: true}\npeers: [{region: us}]\n", dsn), dsn)
	r.exec(`create table public.item (id int primary key, body text)`, `create function public.f() returns trigger language plpgsql as 'begin return new; end'`,
		`create trigger own before update on public.item for each row execute function public.f()`, `create publication theirs for table public.item`)
	look := func() (out string) {
		t.Helper()
		if err := r.conn.QueryRow(t.Context(), footprint).Scan(&out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	before := look()
	for _, cut := range []bool{true, false} {
		r.setup()
		if text := look(); !strings.Contains(text, "slot pgwaltz_gone_eu") || !strings.Contains(text, "event trigger") || !strings.Contains(text, "origin pgwaltz_gone_us") || !strings.Contains(text, "!pgwaltz_save") {
			t.Fatalf("setup has made\n%s", text)
		}
		for _, other := range []struct{ is, code, make, drop string }{
			{"a view", "needed", `create view public.mine as select * from pgwaltz.conflict`, `drop view public.mine`},
			{"a function", "needed", `create function public.mine() returns bigint language sql begin atomic select count(*) from pgwaltz.conflict; end`, `drop function public.mine()`},
			{"a column", "needed", `create table public.mine (c pgwaltz.conflict)`, `drop table public.mine`},
			{"a foreign key", "needed", `create table public.mine (region text references pgwaltz.peer)`, `drop table public.mine`},
		} {
			r.exec(other.make)
			var no *preflight.Refusal
			if _, err := supervisor.Uninstall(t.Context(), r.here, r.cfg, nil); !errors.As(err, &no) || !no.Only(other.code) || !strings.HasPrefix(err.Error(), "uninstall: ") {
				t.Fatalf("with %s of somebody else: %v", other.is, err)
			}
			r.exec(other.drop)
		}
		// A region that is no peer any more has left its origin.
		r.exec(`select pg_replication_origin_create('pgwaltz_gone_ap')`, `insert into pgwaltz.checkpoint (origin, system_id, timeline, slot, incarnation, frame_no, end_lsn, chain, stream_seq) values ('ap', '1', 1, 's', 1, 1, '0/1', '', 1)`)
		for runs := 0; cut; runs++ {
			p, err := supervisor.PlanUninstall(t.Context(), r.here, r.cfg)
			if err != nil {
				t.Fatal(err)
			}
			if p.Pending() == 0 {
				if runs < 5 {
					t.Errorf("%d statements", runs)
				}
				break
			}
			for _, s := range p.Statements {
				if !s.Done {
					pgtest.Exec(t, r.here, s.SQL)
					break
				}
			}
		}
		for range 2 {
			if _, err := supervisor.Uninstall(t.Context(), r.here, r.cfg, nil); err != nil {
				t.Fatal(err)
			}
		}
		if after := look(); after != before {
			t.Errorf("there was\n%s\nand is\n%s", before, after)
		}
	}
}
