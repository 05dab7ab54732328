package pgsync

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// The line of the crontab copies what changed since the line before: also what was committed late, and what was stamped with an older
// time, or with none at all. It runs alone: transactions of other databases of the server count as running too.
func TestCronLineCopiesWhatChanged(t *testing.T) {
	s := newSite(t)
	s.users(1, 500)
	late := pgtest.Connect(t, s.source.Config().ConnString())
	s.exec(late, `begin`, `update public.users set password = 'late' where username = 'user5'`)
	s.run("")
	s.exec(late, `commit`)
	s.exec(s.source, `update public.users set password = 'new' where username = 'user6'`,
		`alter table public.users disable trigger user`, `update public.users set updated_at = '2001-01-01', version = version + 1, password = 'old' where username = 'user7'`,
		`alter table public.users enable trigger user`)
	s.users(501, 510)
	log := s.run("")
	s.same("users")
	if !strings.Contains(log, "how=changed rows=13") {
		t.Errorf("more or less was read than changed:\n%s", log)
	}
	if log := s.run(""); strings.Contains(log, "how=") {
		t.Errorf("without any change something was copied:\n%s", log)
	}
	if n := s.get(s.dest, `select count(*)::text from pgwaltz.conflict`); n != "0" {
		t.Errorf("%s conflicts are in the audit log of a copy without any", n)
	}
}

// Where an index begins with updated_at, rows are found by it.
func TestCronLineByIndex(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.exec(s.source, `create index on public.users (updated_at)`)
	s.users(1, 500)
	s.run("")
	s.exec(s.source, `update public.users set password = 'new' where username = 'user300'`)
	log := s.run("")
	s.same("users")
	// Those of the last ten minutes are read again: user1 to user9 or 10, and user300.
	if strings.Contains(log, "rows=500") || !strings.Contains(log, "how=changed") {
		t.Errorf("rows were not found by the index:\n%s", log)
	}
}

// A worker stays while the file has a poll_interval, takes up changes and new tables, and another start of the same line ends at once.
func TestOneWorker(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.config(map[string]string{"poll_interval: 0": "poll_interval: 1s"})
	s.users(1, 10)
	worker := s.command(t.Context(), "", filepath.Join(s.dir, "worker.log"))
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		worker.Process.Kill()
		worker.Wait()
	}()
	s.within("select count(*)::text from public.users", "10")
	began := time.Now()
	if log := s.run(""); !strings.Contains(log, "another worker is at work") || strings.Count(log, "\n") != 1 {
		t.Errorf("the second start says:\n%s", log)
	}
	if d := time.Since(began); d > 30*time.Second {
		t.Errorf("the second start took %s", d)
	}
	s.users(11, 20)
	s.within("select count(*)::text from public.users", "20")
	s.config(map[string]string{"poll_interval: 0": "poll_interval: 1s", "      users:": "      sessions:\n      users:"})
	s.exec(s.source, `insert into public.sessions (token, expires_at, user_uuid) select 't' || username, now(), uuid from public.users`)
	s.within("select count(*)::text from public.sessions", "20")
	s.same("sessions")
}

// The file as it is in the kit, and cron that starts the line again and again: one worker stays, the others end with 0 and a line each, nothing piles up; when
// the worker is killed, the next start is the worker.
func TestCronIsTheWatchdog(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.config(map[string]string{"poll_interval: 0": "poll_interval: 30s"})
	s.users(1, 10)
	path := filepath.Join(s.dir, "worker.log")
	for round := range 2 {
		worker := s.command(t.Context(), "", path)
		if err := worker.Start(); err != nil {
			t.Fatal(err)
		}
		kill := sync.OnceFunc(func() {
			worker.Process.Kill()
			worker.Wait()
		})
		defer kill()
		s.within("select count(*)::text from public.users", strconv.Itoa(10+10*round))
		for range 10 {
			if log := s.run(""); !strings.Contains(log, "another worker is at work") || strings.Count(log, "\n") != 1 {
				t.Errorf("another start says:\n%s", log)
			}
		}
		if n := s.get(s.dest, `select count(distinct application_name)::text from pg_stat_activity where application_name = 'pgwaltz_pgsync_destination' and datname = current_database()`); n > "1" {
			t.Errorf("%s workers are at work", n)
		}
		kill()
		s.ended()
		s.users(11+10*round, 20+10*round)
	}
}

// A source that is another database, empty perhaps, because somebody has named it by mistake, does not empty the destination. --once says that it is meant.
func TestOtherSource(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.config(map[string]string{"delete: false": "delete: true"})
	s.users(1, 20)
	s.run("")
	other := newSite(t)
	other.users(21, 22)
	s.sourceDSN = other.sourceDSN
	s.config(map[string]string{"delete: false": "delete: true"})
	for range 2 {
		if log := s.run(""); !strings.Contains(log, "nothing is deleted before --once") {
			t.Errorf("the log says:\n%s", log)
		}
		if n := s.get(s.dest, `select count(*)::text from public.users`); n != "22" {
			t.Errorf("the destination has %s rows", n)
		}
	}
	s.run("--once")
	if a, b := s.rows(other.source, "users"), s.rows(s.dest, "users"); a != b {
		t.Errorf("the source has %s, the destination %s", a, b)
	}
}

func (s *site) within(sql, want string) {
	s.t.Helper()
	if err := harness.Poll(s.t.Context(), time.Minute, 50*time.Millisecond, func(context.Context) (bool, string, error) {
		got := s.get(s.dest, sql)
		return got == want, got, nil
	}); err != nil {
		s.t.Fatalf("%s: %v\n%s", sql, err, harness.TailFile(filepath.Join(s.dir, "worker.log"), 20))
	}
}

// A database that is away ends the line with another code than 0, and one clear line; so does a wrong file. No password is in it.
func TestWhatIsWrongIsSaidInOneLine(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, tt := range []struct {
		name, old, new, want string
		code                 int
	}{
		{"away", s.destDSN, "postgresql://app:topsecret@127.0.0.1:1/account", "connect to database", 5},
		{"unknown key", "delete: false", "delet: false", "delet", 3},
		{"no table", "      users:", "      nousers:", "", 1},
	} {
		s.config(map[string]string{tt.old: tt.new})
		log, code := s.cron("")
		if code != tt.code || !strings.Contains(log, tt.want) || strings.Contains(log, "topsecret") {
			t.Errorf("%s: exit code %d:\n%s", tt.name, code, log)
		}
		if tt.code != 1 && strings.Count(log, "\n") != 1 {
			t.Errorf("%s is said in more than one line:\n%s", tt.name, log)
		}
	}
}

// A row that the destination cannot take is parked and recorded, the others are copied, and it comes by itself when it can. A
// newer row of the destination stays, and the older one is in the audit log.
func TestNaturalKeysAndConflicts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.users(1, 20)
	s.exec(s.dest, `insert into public.users (username, password) values ('USER7', 'x')`)
	log := s.run("--once")
	if n := s.get(s.dest, `select count(*)::text from public.users`); n != "20" || !strings.Contains(log, "parked=1") {
		t.Errorf("%s rows are there:\n%s", n, log)
	}
	if c := s.get(s.dest, `select string_agg(type || ' ' || verdict || ' ' || coalesce(winner, 'nobody'), ',' order by id) from pgwaltz.conflict`); c != "update_exists park nobody,update_exists keep destination" {
		t.Errorf("the audit log has %s", c)
	}
	s.exec(s.dest, `delete from public.users where username = 'USER7'`)
	s.run("")
	s.same("users")

	s.exec(s.dest, `update public.users set password = 'here' where username = 'user8'`, `update public.users set password = 'here' where username = 'user8'`)
	s.exec(s.source, `update public.users set password = 'there' where username = 'user8'`)
	s.run("")
	if p := s.get(s.dest, `select password from public.users where username = 'user8'`); p != "here" {
		t.Errorf("a newer row of the destination became %q", p)
	}
	if c := s.get(s.dest, `select string_agg(type || ' ' || verdict || ' ' || winner, ',' order by id) from pgwaltz.conflict where type <> 'update_exists'`); c != "update_origin_differs keep destination" {
		t.Errorf("the audit log has %s", c)
	}
}

// Of two rows with one natural key the one of the lower version goes, also with delete: false, and stands in the audit log as a whole. What is referenced stays, and so does
// what the source has under another key.
func TestNaturalKeyHasAWinner(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.users(1, 20)
	s.exec(s.source, `update public.users set email = 'nine@example.org' where username = 'user9'`) // version 1
	s.exec(s.dest, `alter table public.users add note text`,
		`insert into public.users (username, password, email, version, updated_at, note) values ('USER7', 'older', null, 0, '2000-01-01', 'kept'), ('USER8', 'newer', null, 5, '2000-01-01', null),
  ('USER9', 'one', null, 0, now(), null), ('other', 'two', 'NINE@example.org', 0, now(), null), ('USER10', 'referenced', null, 0, '2000-01-01', null)`,
		`insert into public.sessions (token, expires_at, user_uuid) select 't', now(), uuid from public.users where username = 'USER10'`)
	log := s.run("--once")
	want := func(what, sql, is string) {
		t.Helper()
		if got := s.get(s.dest, sql); got != is {
			t.Errorf("%s: %s, want %s\n%s", what, got, is, log)
		}
	}
	names := `select string_agg(username, ' ' order by username collate "C") from public.users where lower(username) in ('user7', 'user8', 'user9', 'user10', 'other')`
	audit := `select string_agg(type || ' ' || verdict || ' ' || winner || ' ' || reason || ' ' || (local_row ->> 'username'), ',' order by local_row ->> 'username' collate "C") from pgwaltz.conflict where verdict <> 'park'`
	conflicts := "update_exists apply pgsync_users_one_way updated_at USER7,update_exists keep destination version USER8,multiple_unique_conflicts apply pgsync_users_one_way version USER9,multiple_unique_conflicts apply pgsync_users_one_way version other"
	want("the rows", names, "USER10 USER8 user7 user9")
	want("the audit log", audit, conflicts)
	want("what the loser had, in a column that is not copied too", `select local_row ->> 'note' from pgwaltz.conflict where local_row ->> 'username' = 'USER7'`, "kept")
	if !strings.Contains(log, "rows=3") || !strings.Contains(log, "rows of public.sessions reference it") || !strings.Contains(log, "parked=2") {
		t.Errorf("the log says:\n%s", log)
	}
	log = s.run("")
	want("the rows, again", names, "USER10 USER8 user7 user9")
	want("the audit log, again", audit, conflicts)
	// The source's row rises above the destination's, and what referenced is gone.
	s.exec(s.source, `update public.users set version = 9 where username = 'user8'`, `alter table public.users disable trigger user`, `update public.users set version = 9 where username = 'user8'`, `alter table public.users enable trigger user`)
	s.exec(s.dest, `delete from public.sessions`)
	log = s.run("")
	want("the rows, in the end", names, "user10 user7 user8 user9")
	want("what waits", `select count(*)::text from pgwaltz.parked`, "0")
	s.exec(s.dest, `alter table public.users drop note`)
	s.same("users")
	// A name that goes from one row of the source to another one costs no row.
	s.exec(s.source, `update public.users set username = 'moved' where username = 'user1'`, `update public.users set username = 'user1' where username = 'user2'`)
	log = s.run("")
	log += s.run("")
	s.same("users")
	want("what was deleted", `select count(*)::text from pgwaltz.conflict where verdict = 'apply' and type like '%exists' and local_row ->> 'username' in ('user1', 'user2')`, "0")
}

// Deletes come with delete: true only, children before parents; a row that comes back with the same key is there again.
func TestDeletes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.config(map[string]string{"delete: false": "delete: true", "      users:": "      sessions: {delete: true}\n      users:"})
	s.users(1, 30)
	s.exec(s.source, `insert into public.sessions (token, expires_at, user_uuid) select 't' || username, now(), uuid from public.users`)
	s.run("--once")
	s.same("sessions")
	s.exec(s.source, `create table public.kept as select * from public.users where username in ('user3', 'user4')`, `alter table public.kept drop column email_verified`,
		`delete from public.users where username in ('user3', 'user4', 'user5')`)
	s.exec(s.dest, `insert into public.users (username, password) values ('stranger', 'x')`)
	log := s.run("")
	s.same("users")
	s.same("sessions")
	if !strings.Contains(log, "table=public.users how=changed rows=0 deleted=4") || !strings.Contains(log, "table=public.sessions how=changed rows=0 deleted=3") {
		t.Errorf("the log says:\n%s", log)
	}
	s.exec(s.source, `insert into public.users (uuid, username, password, email, role, level, groups, permissions, created_at, updated_at, version, origin_node)
select uuid, username, password, email, role, level, groups, permissions, created_at, updated_at, version, origin_node from public.kept`)
	s.run("")
	s.same("users")
	// A table that was made again is not taken for one whose rows were deleted.
	before := s.rows(s.dest, "users")
	s.exec(s.source, `alter table public.users rename to users_old`, `create table public.users (like public.users_old including all)`, `alter table public.users owner to app`)
	s.config(map[string]string{"delete: false": "delete: true"})
	if log := s.run(""); !strings.Contains(log, "is another one than the one that was copied") {
		t.Errorf("the log says:\n%s", log)
	}
	if now := s.rows(s.dest, "users"); now != before {
		t.Error("a table that was made again has emptied the destination")
	}
}
