package pgsync

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// newStreaming is a site whose role may read slots, with the first copy done and the slot made.
func newStreaming(t *testing.T) *site {
	t.Helper()
	s := newSiteOf(t, "streamer", "replication")
	s.config(map[string]string{"delete: false": "delete: true", "      users:": "      sessions: {delete: true}\n      users:"})
	s.users(1, 200)
	s.exec(s.source, `insert into public.sessions (token, expires_at, user_uuid) select 't' || username, now(), uuid from public.users`)
	if log := s.run(""); strings.Contains(log, "msg=streaming") || !strings.Contains(log, "how=whole rows=200") {
		t.Fatalf("the first run says:\n%s", log)
	}
	s.streams()
	return s
}

// streams runs until the slot tells all that is missing: transactions of other tests that were open when it was made have ended then.
func (s *site) streams() (log string) {
	s.t.Helper()
	if err := harness.Poll(s.t.Context(), time.Minute, 100*time.Millisecond, func(context.Context) (bool, string, error) {
		log = s.run("")
		return strings.Contains(log, "msg=streaming"), log, nil
	}); err != nil {
		s.t.Fatal(err)
	}
	return log
}

// Where the role may, a slot tells what changed: inserts, updates, deletes, changed keys, rows that are as large as to be stored outside of their
// table, what another replication has written, a truncate. Nothing is looked for in the tables, and nothing is a conflict.
func TestSlotTellsWhatChanged(t *testing.T) {
	t.Parallel()
	s := newStreaming(t)
	s.exec(s.source,
		`update public.users set password = 'new' where username = 'user1'`,
		`update public.users set password = 'newer' where username = 'user1'`,
		`update public.users set uuid = gen_random_uuid() where username = 'user200' and false`,
		`delete from public.users where username = 'user2'`,
		`delete from public.sessions where token = 'tuser3'`,
		`update public.sessions set uuid = gen_random_uuid() where token = 'tuser4'`,
		`update public.users set groups = (select jsonb_agg(md5(i::text)) from generate_series(1, 5000) as i) where username = 'user5'`)
	s.users(201, 210)
	log := s.run("")
	s.same("users")
	s.same("sessions")
	if !strings.Contains(log, "msg=streaming") || !strings.Contains(log, "table=public.users how=streamed rows=12 deleted=1") || !strings.Contains(log, "table=public.sessions how=streamed rows=1 deleted=3") {
		t.Errorf("the log says:\n%s", log)
	}
	other := pgtest.Connect(t, s.source.Config().ConnString())
	name := "elsewhere_" + s.get(s.source, `select current_database()`)
	s.exec(other, `select pg_replication_origin_create('`+name+`')`, `select pg_replication_origin_session_setup('`+name+`')`,
		`update public.users set password = 'from elsewhere' where username = 'user6'`, `select pg_replication_origin_session_reset()`, `select pg_replication_origin_drop('`+name+`')`)
	s.exec(s.source, `update public.users set mfa_enabled = true where username = 'user5'`, `delete from public.users where username = 'user7'`,
		`insert into public.users (uuid, username, password, updated_at) select '00000000-0000-0000-0000-000000000007', 'user7', 'again', now()`)
	s.run("")
	s.same("users")
	s.exec(s.source, `truncate public.sessions`, `insert into public.sessions (token, expires_at, user_uuid) select 'behind', now(), uuid from public.users where username = 'user1'`)
	s.run("")
	s.same("sessions")
	if c := s.get(s.dest, `select coalesce(string_agg(type || ' ' || verdict || ' ' || reason || ' ' || table_name || ' ' || key::text, ', '), '') from pgwaltz.conflict where type <> 'update_exists'`); c != "" {
		t.Errorf("in the audit log of a copy without any conflicts is: %s", c)
	}
	s.exec(s.dest, `insert into public.users (username, password) values ('stranger', 'x')`)
	if log := s.run(""); strings.Contains(log, "how=") || !strings.Contains(log, "parked=0") {
		t.Errorf("without any change something was copied, or something waits:\n%s", log)
	}
	end := s.get(s.source, `select pg_current_wal_lsn()::text`)
	// What the source never had is found once in an hour.
	s.exec(s.dest, `update pgwaltz.poll set swept = swept - interval '61 minutes'`)
	if log := s.run(""); !strings.Contains(log, "table=public.users how=streamed rows=0 deleted=1") {
		t.Errorf("the log says:\n%s", log)
	}
	s.same("users")
	// What the slot has told is confirmed: it is not told again.
	if n := s.get(s.source, `select count(*)::text from pg_replication_slots where database = current_database() and slot_name like 'pgwaltz_pgsync_users_one_way_%'
and confirmed_flush_lsn >= '`+end+`'`); n != "1" {
		t.Error("the slot was not confirmed")
	}
}

// Killed while it applies what the slot has told, the worker begins there again.
func TestKilledWhileStreaming(t *testing.T) {
	t.Parallel()
	s := newStreaming(t)
	before := s.rows(s.dest, "users")
	locker := pgtest.Connect(t, s.dest.Config().ConnString())
	s.exec(locker, `begin`, `select from public.users where username = 'user100' for update`)
	s.exec(s.source, `update public.users set password = password || '!'`, `delete from public.users where username = 'user9'`)
	cmd := s.command(t.Context(), "", filepath.Join(s.dir, "killed.log"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	err := harness.Poll(t.Context(), time.Minute, time.Millisecond, func(context.Context) (bool, string, error) {
		n := s.get(s.dest, `select count(*)::text from pg_stat_activity where application_name = 'pgwaltz_pgsync_apply' and datname = current_database() and wait_event_type = 'Lock'`)
		return n != "0", "it does not apply", nil
	})
	killed := cmd.Process.Kill()
	_ = cmd.Wait()
	if err != nil || killed != nil {
		t.Fatalf("%v; kill: %v\n%s", err, killed, harness.TailFile(filepath.Join(s.dir, "killed.log"), 20))
	}
	s.exec(locker, `rollback`)
	s.ended()
	if now := s.rows(s.dest, "users"); now != before {
		t.Errorf("killed while it applied, the copy shows %s instead of %s", now, before)
	}
	if log := s.run(""); !strings.Contains(log, "how=streamed rows=199 deleted=1") {
		t.Errorf("the log says:\n%s", log)
	}
	s.same("users")
}

// A slot that was dropped, moved, or made again by somebody else has not told all: what is missing is looked for in the tables.
func TestSlotThatWasTouched(t *testing.T) {
	t.Parallel()
	s := newStreaming(t)
	slot := s.get(s.source, `select slot_name from pg_replication_slots where database = current_database()`)
	for i, sql := range []string{
		`select pg_drop_replication_slot('` + slot + `')`,
		`select pg_replication_slot_advance('` + slot + `', pg_current_wal_lsn())`,
		`select pg_drop_replication_slot('` + slot + `'); select pg_create_logical_replication_slot('` + slot + `', 'pgoutput')`,
		`drop publication ` + slot,
		`alter publication ` + slot + ` drop table public.users`,
	} {
		before := s.get(s.source, `select username from public.users order by username limit 1`)
		s.exec(s.source, `delete from public.users where username = '`+before+`'`, `update public.users set password = 'p`+string(rune('a'+i))+`' where username = 'user50'`)
		for _, one := range strings.Split(sql, "; ") {
			s.exec(s.source, one)
		}
		s.exec(s.source, `update public.users set password = 'q`+string(rune('a'+i))+`' where username = 'user51'`)
		if log := s.run(""); strings.Contains(log, "msg=streaming") {
			t.Errorf("%s: the slot was believed:\n%s", sql, log)
		}
		s.same("users")
		s.exec(s.source, `update public.users set password = 'r`+string(rune('a'+i))+`' where username = 'user52'`)
		s.streams()
		s.same("users")
	}
}

// A slot that the server has given up, because it kept more WAL than it may, is made again, and nothing is missed. It runs alone: the
// setting is that of all slots.
func TestSlotThatIsLost(t *testing.T) {
	s := newStreaming(t)
	s.exec(s.source, `delete from public.users where username = 'user1'`, `alter system set max_slot_wal_keep_size = '1MB'`, `select pg_reload_conf()`)
	if err := harness.Poll(t.Context(), time.Minute, 100*time.Millisecond, func(context.Context) (bool, string, error) {
		s.exec(s.source, `create table if not exists public.filler (i int)`, `insert into public.filler values (1)`, `select pg_switch_wal()`, `checkpoint`)
		status := s.get(s.source, `select wal_status from pg_replication_slots where database = current_database()`)
		return status == "lost", status, nil
	}); err != nil {
		t.Error(err)
	}
	s.exec(s.source, `alter system reset max_slot_wal_keep_size`, `select pg_reload_conf()`)
	if log := s.run(""); !strings.Contains(log, "cannot be read any more") || strings.Contains(log, "msg=streaming") {
		t.Errorf("the log says:\n%s", log)
	}
	s.same("users")
	s.exec(s.source, `delete from public.users where username = 'user2'`)
	s.streams()
	s.same("users")
}

// Where commits wait for a standby, the WAL tells of them before the server shows them: they are waited for. It runs alone: the setting is that of the server.
func TestCommitThatIsNotShownYet(t *testing.T) {
	s := newStreaming(t)
	s.exec(s.source, `alter system set synchronous_standby_names = 'nobody'`, `select pg_reload_conf()`)
	writer := pgtest.Connect(t, s.source.Config().ConnString())
	committed := make(chan error, 1)
	go func() {
		_, err := writer.Exec(t.Context(), `update public.users set password = 'waits' where username = 'user1'`)
		committed <- err
	}()
	path := filepath.Join(s.dir, "waiting.log")
	cmd := s.command(t.Context(), "", path)
	err := harness.Poll(t.Context(), time.Minute, 10*time.Millisecond, func(context.Context) (bool, string, error) {
		n := s.get(s.source, `select count(*)::text from pg_stat_activity where datname = current_database() and wait_event = 'SyncRep'`)
		return n == "1", n + " commits wait", nil
	})
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		err = harness.Poll(t.Context(), time.Minute, 50*time.Millisecond, func(context.Context) (bool, string, error) {
			text := harness.TailFile(path, 20)
			return strings.Contains(text, "it waits for a synchronous standby"), text, nil
		})
	}
	s.exec(s.source, `alter system reset synchronous_standby_names`, `select pg_reload_conf()`)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-committed, cmd.Wait()); err != nil {
		t.Errorf("%v\n%s", err, harness.TailFile(path, 20))
	}
	s.same("users")
}

// A table that comes into the file later is copied as a whole; a transaction that wrote to it before the slot told of it, and ends behind the copy, is not lost.
func TestTableAddedToSlot(t *testing.T) {
	t.Parallel()
	s := newStreaming(t)
	s.exec(s.source, `insert into public.identities (provider, external_id, user_uuid) select 'github', username, uuid from public.users`)
	open := pgtest.Connect(t, s.source.Config().ConnString())
	s.exec(open, `begin`, `update public.identities set external_id = 'late' where external_id = 'user5'`)
	s.config(map[string]string{"delete: false": "delete: true", "      users:": "      identities: {delete: true}\n      sessions: {delete: true}\n      users:"})
	if log := s.run(""); !strings.Contains(log, "table=public.identities how=whole rows=200") {
		t.Errorf("the log says:\n%s", log)
	}
	if log := s.run(""); strings.Contains(log, "msg=streaming") {
		t.Errorf("the slot does not tell of the open transaction, and was believed:\n%s", log)
	}
	s.exec(open, `commit`)
	s.streams()
	s.same("identities")
	s.exec(s.source, `update public.identities set external_id = 'later' where external_id = 'late'`)
	s.run("")
	s.same("identities")
}

// --forget leaves nothing of a job in either database but the rows and the audit log, and the next run begins anew.
func TestForget(t *testing.T) {
	t.Parallel()
	s := newStreaming(t)
	s.exec(s.source, `delete from public.users where username = 'user1'`)
	s.run("")
	s.run("--forget users_one_way")
	if n := s.get(s.source, `select ((select count(*) from pg_replication_slots where database = current_database()) + (select count(*) from pg_publication))::text`); n != "0" {
		t.Errorf("%s slots and publications are left", n)
	}
	for _, table := range []string{"poll", "poll_stage", "tombstone", "checkpoint", "parked", "counterpart"} {
		if n := s.get(s.dest, `select count(*)::text from pgwaltz.`+table); n != "0" {
			t.Errorf("%s rows are left in pgwaltz.%s", n, table)
		}
	}
	s.run("--forget users_one_way")
	if log := s.run(""); !strings.Contains(log, "how=whole") {
		t.Errorf("the log says:\n%s", log)
	}
	s.same("users")
}

// The log says which way of reading was chosen and what is missing for the better one.
func TestLogSaysWhatWouldStream(t *testing.T) {
	t.Parallel()
	s := newSiteOf(t, "reader", "")
	s.users(1, 3)
	if log := s.run(""); !strings.Contains(log, `level=INFO msg=polling job=users_one_way reason="role \"reader\" of the source has no REPLICATION" try="as a superuser, in the source: alter role \"reader\" replication"`) {
		t.Errorf("the log says:\n%s", log)
	}
	s.exec(s.source, `alter role reader replication`, `alter table public.users owner to postgres`, `grant select on public.users to reader`)
	log := s.run("")
	if !strings.Contains(log, `reason="role \"reader\" of the source may not publish the tables"`) {
		t.Fatalf("the log says:\n%s", log)
	}
	_, sql, _ := strings.Cut(log, "in the source: ")
	sql, _, _ = strings.Cut(sql, "\n")
	s.exec(s.source, strings.ReplaceAll(strings.TrimSuffix(sql, `"`), `\"`, `"`))
	s.users(4, 6)
	s.run("")
	s.streams()
	s.same("users")
	if log := s.run("--forget users_one_way"); !strings.Contains(log, "drop publication") {
		t.Errorf("the log says:\n%s", log)
	}
}
