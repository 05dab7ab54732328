package pgsync

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/source/poll"
	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A table that the role may not read, or not write, is named with what to grant, and the others are copied. So is one whose rows are hidden from
// the role: it would be taken for one whose rows are gone.
func TestTableThatMayNotBeRead(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.config(map[string]string{"delete: false": "delete: true", "      users:": "      identities: {delete: true}\n      sessions: {delete: true}\n      admin_settings: {delete: true}\n      users:"})
	s.users(1, 5)
	s.exec(s.source, `insert into public.identities (provider, external_id, user_uuid) select 'github', username, uuid from public.users`,
		`insert into public.admin_settings (module_key, role) values ('a', 'b')`)
	s.run("")
	s.same("identities")
	s.exec(s.source, `alter table public.sessions owner to postgres`, `alter table public.identities owner to postgres`, `grant select on public.identities to app`,
		`alter table public.identities enable row level security`)
	s.exec(s.dest, `alter table public.admin_settings owner to postgres`, `grant select on public.admin_settings to app`)
	s.users(6, 9)
	log, code := s.cron("")
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{
		`table=public.sessions reason="may not be read in the source: permission denied for table sessions" try="`,
		`table=public.identities reason="may not be read in the source: query would be affected by row-level security policy`,
		`table=public.admin_settings reason="role \"app\" may not insert, update, delete in the destination" try="in the destination: grant insert, update, delete on table \"public\".\"admin_settings\" to \"app\""`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %s:\n%s", want, log)
		}
	}
	s.same("users")
	s.same("identities")
}

// What was changed without raising version or time is copied too.
func TestRowThatKeptItsStamp(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.users(1, 50)
	s.run("")
	for _, password := range []string{"a", "z", "0"} { // above and below what is there
		s.exec(s.source, `alter table public.users disable trigger user`, `update public.users set password = '`+password+`' where username = 'user7'`, `alter table public.users enable trigger user`)
		s.run("")
		s.same("users")
	}
	// Also where another column has another type there.
	s.exec(s.dest, `alter table public.users alter column email type varchar(300)`)
	for _, password := range []string{"b", "1"} {
		s.exec(s.source, `alter table public.users disable trigger user`, `update public.users set password = '`+password+`' where username = 'user7'`, `alter table public.users enable trigger user`)
		s.run("")
		s.same("users")
	}
	s.exec(s.source, `update public.users set password = 'later' where username = 'user7'`, `delete from public.users where username = 'user8'`)
	s.config(map[string]string{"delete: false": "delete: true"})
	s.run("")
	s.same("users")
	if n := s.get(s.dest, `select count(*)::text from pgwaltz.conflict`); n != "0" {
		t.Errorf("%s conflicts are in the audit log of a copy without any", n)
	}
}

// The same while the table is copied as a whole: what was read of a row before it changed is not put over it, nor beside it.
func TestRowThatKeptItsStampWhileItWasCopied(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.config(map[string]string{"batch_size: 5000": "batch_size: 100"})
	s.run("--once")
	s.users(1, 3_000)
	quietly := func(sql string) {
		s.exec(s.source, `alter table public.users disable trigger user`, sql, `alter table public.users enable trigger user`)
	}
	quietly(`update public.users set password = 'm'`)
	s.killOnce(func(context.Context) (bool, string, error) {
		n := s.get(s.dest, `select coalesce((select max(page) from pgwaltz.poll_stage), 0)::text`)
		return n != "0", n + " pages are staged", nil
	})
	quietly(`update public.users set password = case when username ~ '[02468]$' then 'a' else 'z' end`) // below and above what was read
	if log := s.run("--once"); !strings.Contains(log, "goes on") {
		t.Errorf("it began again:\n%s", log)
	}
	s.same("users")
	if n := s.get(s.dest, `select count(*)::text from pgwaltz.conflict`); n != "0" {
		t.Errorf("%s conflicts are in the audit log of a copy without any", n)
	}
}

// A column that the destination gets later is filled, without emptying anything, and without a change of the rows' versions.
func TestColumnThatComesLater(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.users(1, 50)
	example, err := os.ReadFile("testdata/pgsync.users.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(example), "        columns:")
	list, _, _ = strings.Cut(list, "    batch_size")
	s.config(map[string]string{"        columns:" + list: ""})
	s.run("")
	s.exec(s.source, `alter table public.users add column nickname text`, `update public.users set nickname = 'n' || username where version % 2 = 0`)
	if log := s.run(""); !strings.Contains(log, `column \"nickname\" is not in the destination and is not copied`) {
		t.Errorf("the log says:\n%s", log)
	}
	s.exec(s.dest, `alter table public.users add column nickname text`)
	s.run("")
	s.same("users")
	if log := s.run(""); strings.Contains(log, "how=") {
		t.Errorf("it is copied again:\n%s", log)
	}
}

// Where the role may use replication origins, what is copied carries one: whoever replicates the destination can tell it from the destination's own writes. Parked
// rows that come later carry it too.
func TestReplicationOrigin(t *testing.T) {
	t.Parallel()
	s := newSiteOf(t, "origins", "superuser")
	s.config(map[string]string{"delete: false": "delete: true"})
	s.users(1, 20)
	slot := "watch_" + s.get(s.dest, `select current_database()`)
	s.exec(s.dest, `insert into public.users (username, password) values ('USER7', 'x')`,
		`select pg_create_logical_replication_slot('`+slot+`', 'test_decoding')`)
	s.run("--once")
	s.exec(s.source, `update public.users set password = 'new' where username = 'user3'`, `delete from public.users where username = 'user4'`)
	s.exec(s.dest, `insert into public.users (username, password) values ('own', 'x')`)
	s.run("")
	s.run("")
	s.same("users")
	if own := s.get(s.dest, `select coalesce(string_agg(data, E'\n'), '') from pg_logical_slot_peek_changes('`+slot+`', null, null, 'only-local', '1') where data like 'table public.users:%'`); strings.Count(own, "\n") != 0 || !strings.Contains(own, "INSERT") {
		t.Errorf("what counts as the destination's own is not its own insert alone:\n%s", own)
	}
	if n := s.get(s.dest, `select count(*)::text from pg_logical_slot_get_changes('`+slot+`', null, null) where data like 'table public.users:%'`); n == "1" {
		t.Error("the slot shows nothing of the copy")
	}
	s.exec(s.dest, `select pg_drop_replication_slot('`+slot+`')`)
	s.run("--forget users_one_way")
	if n := s.get(s.dest, `select count(*)::text from pg_replication_origin where roname = 'pgsync_users_one_way'`); n != "0" {
		t.Error("the replication origin is left")
	}
}

// Sessions that are ended in the middle are no reason to give up: the run begins again, and goes on where it was.
func TestSessionsThatEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.config(map[string]string{"batch_size: 5000": "batch_size: 50"})
	s.users(1, 3_000)
	log := filepath.Join(s.dir, "ended.log")
	cmd := s.command(t.Context(), "--once", log)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	err := harness.Poll(t.Context(), time.Minute, time.Millisecond, func(context.Context) (bool, string, error) {
		var n int
		if err := s.dest.QueryRow(t.Context(), `select count(*) from pgwaltz.poll_stage`).Scan(&n); err != nil || n < 2 {
			return false, "nothing is staged", nil // or the table is not there yet
		}
		return s.get(s.source, `select count(pg_terminate_backend(pid))::text from pg_stat_activity where application_name = 'pgwaltz_pgsync_source' and datname = current_database()`) != "0", "no session reads", nil
	})
	if err != nil {
		cmd.Process.Kill()
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, harness.TailFile(log, 20))
	}
	if text := harness.TailFile(log, 20); !strings.Contains(text, "beginning again") || !strings.Contains(text, "goes on") || !strings.Contains(text, "rows=3000") {
		t.Errorf("the log says:\n%s", text)
	}
	s.same("users")
}

// Killed at any moment, the whole copy shows all or nothing of what is new, and comes to its end when it is left alone.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.config(map[string]string{"batch_size: 5000": "batch_size: 100"})
	s.users(1, 1_000)
	s.run("--once")
	before := s.rows(s.dest, "users")
	s.exec(s.source, `update public.users set password = password || '!'`)
	s.users(1_001, 1_500)
	after := s.rows(s.source, "users")
	random := rand.New(rand.NewPCG(1, 2))
	wait, killed := 20*time.Millisecond, 0
	for range 40 {
		ctx, cancel := context.WithTimeout(t.Context(), wait/2+time.Duration(random.Int64N(int64(wait))))
		err := s.command(ctx, "--once", filepath.Join(s.dir, "killed.log")).Run() // the shell has become the worker
		cancel()
		s.ended()
		switch now := s.rows(s.dest, "users"); {
		case now != before && now != after:
			t.Fatalf("killed after some %s, the copy shows %s, which is neither %s nor %s", wait, now, before, after)
		case now == after && err == nil:
			if killed < 5 {
				t.Errorf("it was killed %d times only", killed)
			}
			return
		}
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		killed++
		wait += wait / 4
	}
	t.Errorf("it has not come to its end:\n%s", harness.TailFile(filepath.Join(s.dir, "killed.log"), 20))
}

// A commit that the server does not show yet, one that it shows, and one that is still to come.
func TestShown(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	writer := pgtest.Connect(t, s.source.Config().ConnString())
	s.exec(writer, `begin`, `insert into public.users (username, password) values ('a', 'b')`)
	id, err := strconv.ParseUint(s.get(writer, `select pg_current_xact_id()::text`), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	look := func(id uint64, want bool) {
		t.Helper()
		got, err := poll.Shown(t.Context(), s.source, []wal.XID{wal.XID(id)})
		if err != nil || got != want {
			t.Errorf("%d: %v (%v)", id, got, err)
		}
	}
	look(id, false)
	look(id+1_000_000, false)
	s.exec(writer, `commit`)
	look(id, true)
}
