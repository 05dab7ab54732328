package apply

import "testing"

// An AFTER trigger that changes applied rows again, takes them away or puts them back is found out.
func TestRowsStayAsTheyCame(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+`; create function again() returns trigger language plpgsql as $$ begin
  if tg_op = 'DELETE' then insert into public.acct values (old.*); return null; end if;
  if new.v = 'up' then update public.acct set v = 'UP' where id = new.id; elsif new.v = 'away' then delete from public.acct where id = new.id; end if;
  return null; end $$; create trigger again after insert or update or delete on acct for each row when (pg_trigger_depth() = 0) execute function again();
alter table acct enable always trigger again`), acct()
	b.exec("set session_replication_role = replica; alter table acct disable trigger again; insert into acct(id, v, version, updated_at) values (1, 'a', 1, '2024-01-01 00:00:00+00'), (5, 'a', 1, '2024-01-01 00:00:00+00'); alter table acct enable always trigger again")
	b.apply(b.tx(nil, insert(r, row("2", "up", 1, 1)), insert(r, row("3", "away", 1, 1)), insert(r, row("4", "as it is", 1, 1)),
		remove(r, row("1", "a", 1, 1)), update(r, row("5", "a", 1, 1), row("5", "up", 2, 2))))
	b.want(acctRows, "1|a|1;4|as it is|1;5|a|1")
	b.want("select key, sqlstate from pgwaltz.parked order by key", `["1"]|PW002;["2"]|PW002;["3"]|PW002;["5"]|PW002`)
	b.exec("drop trigger again on acct")
	b.turns(b.retrier(), 3)
	b.want(acctRows, "2|up|1;3|away|1;4|as it is|1;5|up|2")
}

// What a trigger does to the settings of the session is undone, within the transaction and after it.
func TestSettingsArePutBack(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+`; create function rude() returns trigger language plpgsql as $$ begin
  perform set_config('DateStyle', 'German', false), set_config('TimeZone', 'Asia/Kolkata', false), set_config('lock_timeout', '1', false), set_config('search_path', 'public', false);
  return null; end $$; create trigger rude after insert on acct for each statement execute function rude(); alter table acct enable always trigger rude`), acct()
	b.apply(b.tx(nil, insert(r, row("1", "a", 1, 1))))
	b.apply(b.tx(nil, update(r, row("1", "a", 1, 1), row("1", "b", 2, 2))))
	var got [4]string
	if err := b.a.conn.QueryRow(t.Context(), "select current_setting('DateStyle'), current_setting('TimeZone'), current_setting('lock_timeout'), current_setting('search_path')").
		Scan(&got[0], &got[1], &got[2], &got[3]); err != nil {
		t.Fatal(err)
	}
	if want := [4]string{"ISO, YMD", "UTC", "0", "pg_catalog, pg_temp"}; got != want {
		t.Errorf("settings are %q, want %q", got, want)
	}
	b.want(acctRows, "1|b|2")
}
