package pglogical

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

var server = pgtest.Server{Settings: []string{"logging_collector = on", "log_filename = 'server-%H%M%S-a.log'"}}

func TestMain(m *testing.M) { pgtest.Main(m, &server) }

// A plain role reads the conflicts, of a file that is finished too, and nothing else; where the server does not collect, that is said.
func TestServerIsAsked(t *testing.T) {
	t.Parallel()
	dsn := server.Database(t)
	admin := pgtest.Connect(t, dsn)
	pgtest.Exec(t, admin, "create role reader login", "create schema pgwaltz", "grant usage on schema pgwaltz to reader")
	plain := pgtest.Connect(t, pgtest.As(dsn, "reader"))
	l := &ServerLog{}
	next := func() (texts []string) {
		t.Helper()
		for range 20 {
			some, more, err := l.Next(t.Context(), plain)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, some...)
			if !more {
				break
			}
		}
		return texts
	}
	if _, _, err := l.Next(t.Context(), plain); !errors.Is(err, ErrUnread) || !strings.Contains(err.Error(), "pgwaltz mode switch pglogical") {
		t.Fatalf("without the function: %v", err)
	}
	pgtest.Exec(t, admin, readerSQL("postgres", "reader"), readerSQL("postgres", "reader"))
	next()
	write := func(number string) {
		t.Helper()
		pgtest.Exec(t, admin, `do $$ begin raise log 'secret'; raise log E'CONFLICT: remote DELETE on relation public.item replica identity index i (tuple not found). Resolution: skip.\nremote tuple {a\\[int4]:`+number+` é} in xact origin=1,timestamp=x,commit_lsn=0/1A' using detail = 'secret'; raise log 'secret'; end $$`)
	}
	write("1")
	var got []string
	wait := func(want string) {
		t.Helper()
		for range 500 { // the collector writes a moment later
			if got = append(got, next()...); strings.Contains(strings.Join(got, ""), want) {
				return
			}
			pgtest.Exec(t, admin, "select pg_sleep(0.02)")
		}
		t.Fatalf("no %q in %q", want, got)
	}
	wait(`{a\[int4]:1 é}`)
	// Another file: what the first one still got is read before it.
	write("2")
	pgtest.Exec(t, admin, "select pg_sleep(1.1)", "select pg_rotate_logfile()")
	write("3")
	wait("int4]:3 ")
	if all := strings.Join(got, ""); !strings.Contains(all, "int4]:2 ") {
		t.Errorf("what stood at the end of the first file is not there: %q", got)
	}
	for _, text := range got {
		if c, ok := Parse(text); !ok || c.Verb != "DELETE" || c.LSN != "0/1A" || strings.Contains(text, "secret") {
			t.Errorf("%t %+v of %q", ok, c, text)
		}
	}
	// It opens no other file.
	for _, file := range []string{"postgresql.conf", "../c/postgresql.conf", "log/../postgresql.conf", "PG_VERSION"} {
		var read string
		if err := plain.QueryRow(t.Context(), `select file from `+readerName+`($1, 0)`, file).Scan(&read); err != nil || !strings.HasPrefix(read, "log/server-") {
			t.Errorf("%s: %s is read (%v)", file, read, err)
		}
	}
	pgtest.Exec(t, admin, "create role stranger login", "grant usage on schema pgwaltz to stranger")
	stranger := pgtest.Connect(t, pgtest.As(dsn, "stranger"))
	if _, err := stranger.Exec(t.Context(), `select * from `+readerName+`(null, null)`); err == nil {
		t.Error("everybody reads the log")
	}
}
