package apply

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/wal"
)

// TestTheApplicationIsNeverTheVictim: an application waits for a row of the applier, and then the
// applier comes to wait for a row of the application. PostgreSQL ends the session that looks
// for a deadlock first, which would be the application's.
func TestTheApplicationIsNeverTheVictim(t *testing.T) {
	t.Parallel()
	const ddl = `(id int primary key, v text, version bigint, updated_at timestamptz)`
	b := newBench(t, `create table t1`+ddl+`; create table t2`+ddl+`; create table t3`+ddl)
	b.a.cfg.LockWait, b.a.cfg.LockTimeout = 250*time.Millisecond, time.Minute
	b.a.Close()
	connect := b.a.cfg.Connect
	b.a.cfg.Connect = func(ctx context.Context) (*pgx.Conn, error) {
		conn, err := connect(ctx)
		if err == nil {
			_, err = conn.Exec(ctx, "set lock_timeout = '250ms'")
		}
		return conn, err
	}
	if _, err := b.a.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	table := func(name string) *wal.Relation {
		r := acct()
		r.Name = name
		return r
	}
	for _, n := range []string{"t1", "t2", "t3"} {
		b.apply(b.tx(nil, insert(table(n), row("1", "a", 1, 1))))
	}
	session := func() *pgx.Conn {
		c, err := pg.Connect(t.Context(), b.dsn, pg.Options{Region: "b", Role: "app"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(context.Background()) })
		return c
	}
	exec := func(c *pgx.Conn, sql string) {
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	app, other := session(), session()
	exec(other, "begin")
	exec(other, "update public.t2 set v = 'other' where id = 1") // holds the applier between t1 and t3
	exec(app, "begin")
	exec(app, "update public.t3 set v = 'app' where id = 1")
	applied := make(chan struct{})
	go func() {
		defer close(applied)
		b.apply(b.tx(nil,
			update(table("t1"), row("1", "a", 1, 1), row("1", "b", 2, 2)),
			update(table("t2"), row("1", "a", 1, 1), row("1", "b", 2, 2)),
			update(table("t3"), row("1", "a", 1, 1), row("1", "b", 2, 2))))
	}()
	waits := func(role string) {
		for {
			var n int
			if err := b.conn.QueryRow(t.Context(), `select count(*) from pg_stat_activity where datname = current_database() and application_name = $1 and wait_event_type = 'Lock'`, "pgwaltz_b_"+role).Scan(&n); err != nil {
				t.Error(err)
				return
			}
			if n > 0 {
				return
			}
		}
	}
	waits("apply")
	done := make(chan struct{})
	go func() {
		defer close(done)
		exec(app, "update public.t1 set v = 'app' where id = 1")
		exec(app, "commit")
	}()
	exec(other, "rollback")
	<-done
	<-applied
	b.want("select v, version from t1 union all select v, version from t2 union all select v, version from t3", "b|2;b|2;b|2")
	b.want("select count(*) from pgwaltz.parked", "0")
}
