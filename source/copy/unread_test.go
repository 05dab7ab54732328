package copy

import (
	"context"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Rows behind the horizon are noted once, whatever becomes of the process and of the pages between two looks; those before it, those
// that came with their entry, and tables with a stamp column are left alone. Copies of the tables begin again.
func TestUnread(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dsn := pgtest.New(t).Database(t) // the horizon is the server's: transactions of other tests would keep it back
	c := pgtest.Connect(t, dsn)
	pgtest.Exec(t, c, "create schema pgwaltz", Schema, UnreadSchema, tombstone.Schema, tombstone.PastSchema, tombstone.ClockSchema,
		"create table public.s (id int, part int, v text, primary key (id, part)) partition by list (part)", "create table public.s1 partition of public.s for values in (1)", "create table public.s2 partition of public.s default",
		"create table public.n (k numeric primary key, v text)", "create table public.j (k jsonb primary key, v text)", "create table public.bare (v text)", "create table public.out (id int primary key)",
		"create table public.ty (id int primary key, updated_at timestamptz)", "create publication p for table public.s, public.n, public.j, public.ty, public.bare, public.out with (publish_via_partition_root)",
		// 2,000 rows of 2 kB are some 700 pages: more than one look takes.
		"alter table public.s1 alter v set storage plain", "insert into public.s select g, 1, repeat('x', 2000) from generate_series(1, 2000) g", "insert into public.s values (1, 2, 'old')", "insert into public.n values (1.50, 'old'), (2, 'old')",
		RequestSQL([]wal.RelationName{{Schema: "public", Name: "s"}}))
	h, _, err := tombstone.ReadHorizon(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, c, "update public.s set v = v || 'y' where id in (1, 1990)", "update public.n set v = 'new' where k = 1.5", `insert into public.j values ('[1]', 'new')`,
		"insert into public.bare values ('new')", "insert into public.out values (1)", "insert into public.ty values (1, now())", "insert into public.s values (5000, 2, 'applied')",
		// The row and its entry are of one transaction.
		`do $$ begin update public.s set v = 'applied' where id = 5000;
  insert into pgwaltz.tombstone (relation, key, generation, version, updated_at, live, origin, lsn) values ('public.s', '["5000","2"]', -1, -9223372036854775808, 7, true, 'b', '0/1'); end $$`,
		`insert into pgwaltz.tombstone (relation, key, generation, version, updated_at, live, origin, lsn) values ('public.n', '["1.5"]', -1, -9223372036854775808, 9, true, 'b', '0/1')`)
	pages := 0
	look := &Unread{
		Connect: func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, dsn) },
		Stamps:  func(wal.RelationName) StampColumns { return StampColumns{UpdatedAt: "updated_at"} }, Index: tombstone.NewIndex(0), Publication: "p",
		LeftOut: func(n wal.RelationName) bool { return n.Name == "out" },
		Gap:     tombstone.Gap{End: 1 << 20, Least: 1000, Floor: wal.MinMicros, Region: "a"}, Horizon: h,
		Told: func(string, int64, int64) { pages++ }, Public: error.Error, Log: slog.New(slog.DiscardHandler),
	}
	// The session is ended in the middle of the first partition, and its pages are written anew.
	connect := look.Connect
	look.Connect = func(ctx context.Context) (*pgx.Conn, error) {
		conn, err := connect(ctx)
		if err == nil {
			look.Told = func(table string, done, _ int64) {
				if pages++; table == "public.s" && done > 0 {
					conn.Close(ctx)
				}
			}
		}
		return conn, err
	}
	if err := look.Run(ctx); err == nil {
		t.Fatal("the look goes on without its session")
	}
	if done, err := UnreadDone(ctx, c, look.Gap.End); done || err != nil {
		t.Errorf("it counts as done: %v", err)
	}
	pgtest.Exec(t, c, "vacuum full public.s1")
	look.Connect, look.Told = connect, func(string, int64, int64) { pages++ }
	for range 2 { // the second time is after a crash behind the last look
		if err := look.Run(ctx); err != nil {
			t.Fatal(err)
		}
		pgtest.Exec(t, c, "delete from pgwaltz.unread where relid = 0")
	}
	var got string
	if err := c.QueryRow(ctx, `select string_agg(format('%s %s %s %s %s', relation, key, updated_at, plain, lsn), E'\n' order by relation, key) from pgwaltz.tombstone`).Scan(&got); err != nil {
		t.Fatal(err)
	}
	rest := ""
	if err := c.QueryRow(ctx, `select key from pgwaltz.tombstone where relation = 'public.j'`).Scan(&rest); err != nil {
		t.Fatal(err)
	}
	want := `public.j ` + rest + ` 1001 t 0/FFFFF
public.n ["1.5"] 10 f 0/FFFFF
public.s ["1","1"] 1001 t 0/FFFFF
public.s ["1","2"] 1001 t 0/FFFFF
public.s ["1990","1"] 1001 t 0/FFFFF
public.s ["5000","2"] 7 f 0/1`
	if got != want {
		t.Errorf("the entries are\n%s\nwant\n%s", got, want)
	}
	if pages < 6 {
		t.Errorf("it was told of %d looks", pages)
	}
	if high, err := tombstone.LoadClock(ctx, c, look.Gap.End); err != nil || high != 1001 {
		t.Errorf("what is stamped next is above %d: %v", high, err)
	}
	var again bool
	if err := c.QueryRow(ctx, "select bool_and(requested_at > now() - interval '1 minute' and state = 'pending') from pgwaltz.copy").Scan(&again); err != nil || !again {
		t.Errorf("the copies do not begin again: %v", err)
	}
}
