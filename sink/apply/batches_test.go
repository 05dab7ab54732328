package apply

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/wal"
)

// TestBatchesOfOneRegionTakeTurns: a batch of one origin holds rows for longer than another one's waits for locks.
// The second one begins again behind the first: nothing of it is set aside, and it does not go in one by one,
// where each row that the first one holds would cost a wait of its own.
func TestBatchesOfOneRegionTakeTurns(t *testing.T) {
	t.Parallel()
	b, table := newTwoTables(t)

	c := b.impatient("c")
	cfg := c.cfg
	app, err := pg.Connect(t.Context(), b.dsn, pg.Options{Region: "b", Role: "app"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { app.Close(context.Background()) })
	if _, err := app.Exec(t.Context(), "begin; update public.t2 set v = 'app' where id = 1"); err != nil {
		t.Fatal(err)
	}
	first := b.tx(nil, update(table("t1"), row("1", "a", 1, 1), row("1", "b", 2, 2)), update(table("t2"), row("1", "a", 1, 1), row("1", "b", 2, 2)))
	second := b.tx(nil, update(table("t1"), row("1", "b", 2, 2), row("1", "c", 3, 3)))
	done := make(chan error, 2)
	go func() {
		done <- b.a.Apply(t.Context(), []Unit{{Transactions: []*wal.Transaction{first}, Next: after(b.a, first)}})
	}()
	for b.query(`select count(*) from pg_stat_activity where datname = current_database() and application_name = 'pgwaltz_b_apply' and wait_event_type = 'Lock'`) == "0" {
	}
	go func() {
		done <- c.Apply(t.Context(), []Unit{{Transactions: []*wal.Transaction{second}, Next: after(c, second)}})
	}()
	for waits := false; !waits; {
		cfg.Batches.mu.Lock()
		u := cfg.Batches.in["c"]
		waits = u != nil && u.beaten && !u.open
		cfg.Batches.mu.Unlock()
		if len(done) > 0 {
			t.Fatalf("the second batch did not wait for the first: %v", <-done)
		}
	}
	if _, err := app.Exec(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	b.want("select v, version from t1 union all select v, version from t2", "c|3;b|2")
	b.want("select count(*) from pgwaltz.parked", "0")
	if n := c.Stats.Ordered.Load(); n != 0 {
		t.Errorf("%d batches went in one by one", n)
	}
	if len(cfg.Batches.in) != 0 {
		t.Errorf("turns are left behind: %v", cfg.Batches.in)
	}
}

// impatient is an open applier of another origin, on the same rows, that waits for no lock longer than a moment.
func (b *bench) impatient(origin string) *Applier {
	b.t.Helper()
	cfg := b.a.cfg
	cfg.Origin, cfg.LockWait, cfg.LockTimeout = origin, 20*time.Millisecond, 100*time.Millisecond
	cfg.Connect = func(ctx context.Context) (*pgx.Conn, error) {
		conn, err := b.a.cfg.Connect(ctx)
		if err == nil {
			_, err = conn.Exec(ctx, "set lock_timeout = '20ms'")
		}
		return conn, err
	}
	c := New(cfg)
	if _, err := c.Open(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(c.Close)
	return c
}

// TestAPartWaitsForABatch: a batch of one origin holds a row that a part of a giant transaction of another one wants. Only that part is
// tried again, behind the batch: what went in before it stays.
func TestAPartWaitsForABatch(t *testing.T) {
	t.Parallel()
	b, table := newTwoTables(t)
	c := b.impatient("c")
	app, err := pg.Connect(t.Context(), b.dsn, pg.Options{Region: "b", Role: "app"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { app.Close(context.Background()) })
	if _, err := app.Exec(t.Context(), "begin; update public.t2 set v = 'app' where id = 1"); err != nil {
		t.Fatal(err)
	}
	batch := b.tx(nil, update(table("t1"), row("1", "a", 1, 1), row("1", "b", 2, 2)), update(table("t2"), row("1", "a", 1, 1), row("1", "b", 2, 2)))
	giant := b.tx(nil, insert(table("t1"), row("5", "c", 1, 1)), update(table("t1"), row("1", "b", 2, 2), row("1", "c", 3, 3)), insert(table("t1"), row("6", "c", 1, 1)))
	done := make(chan error, 1)
	go func() {
		done <- b.a.Apply(t.Context(), []Unit{{Transactions: []*wal.Transaction{batch}, Next: after(b.a, batch)}})
	}()
	for b.query(`select count(*) from pg_stat_activity where datname = current_database() and application_name = 'pgwaltz_b_apply' and wait_event_type = 'Lock'`) == "0" {
	}
	freed := make(chan error, 1)
	go func() {
		for c.Stats.Retries.Load() == 0 && t.Context().Err() == nil {
			runtime.Gosched()
		}
		_, err := app.Exec(t.Context(), "rollback")
		freed <- err
	}()
	g := *b
	g.a = c
	for i := range 3 {
		if err := g.part(giant, i, 3); err != nil {
			t.Fatalf("part %d: %v", i, err)
		}
	}
	for _, err := range []error{<-freed, <-done} {
		if err != nil {
			t.Error(err)
		}
	}
	b.want("select string_agg(id || v || version, ' ' order by id) from t1", "1c3 5c1 6c1")
	b.want("select count(*) from pgwaltz.parked", "0")
	if len(c.cfg.Batches.in)+len(c.cfg.Giants.in) != 0 {
		t.Errorf("turns are left behind: %v, %v", c.cfg.Batches.in, c.cfg.Giants.in)
	}
}

// newTwoTables is a bench with two tables as acct, t1 and t2, that have a row each, and what describes them.
func newTwoTables(t *testing.T) (*bench, func(name string) *wal.Relation) {
	t.Helper()
	const ddl = `(id int primary key, v text, version bigint, updated_at timestamptz)`
	b := newBench(t, `create table t1`+ddl+`; create table t2`+ddl)
	table := func(name string) *wal.Relation {
		r := acct()
		r.Name = name
		return r
	}
	b.apply(b.tx(nil, insert(table("t1"), row("1", "a", 1, 1)), insert(table("t2"), row("1", "a", 1, 1))))
	return b, table
}
