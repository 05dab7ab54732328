package cutover

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/internal/lead"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// pair is two databases of one server, with a cutover from eu to us.
type pair struct {
	*testing.T
	*Ends
	o      hold.Options
	s, d   *pgx.Conn // superusers' sessions beside the cutover's
	us, eu string
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{T: t, eu: server.Database(t), us: server.Database(t)}
	end := func(region, dsn string) (*End, *pgx.Conn) {
		root := pgtest.Connect(t, dsn)
		pgtest.Exec(t, root, "create schema pgwaltz", lead.Schema)
		var dial func(context.Context) (*End, error)
		dial = func(ctx context.Context) (*End, error) {
			conn, err := pg.Connect(ctx, dsn, pg.Options{Region: "eu", Role: "cutover"})
			if err != nil {
				return nil, err
			}
			t.Cleanup(func() { conn.Close(context.Background()) })
			sys, err := pg.LoadSystem(ctx, conn)
			return &End{Region: region, Conn: conn, Sys: sys, dial: dial}, err
		}
		e, err := dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return e, root
	}
	p.Ends = &Ends{}
	p.Source, p.s = end("eu", p.eu)
	p.Destination, p.d = end("us", p.us)
	p.o = p.options(Pausing{Except: []string{"postgres"}, Hold: time.Hour})
	return p
}

func (p *pair) take() {
	p.Helper()
	if _, err := hold.Take(p.Context(), p.Source.Conn, p.o); err != nil {
		p.Fatal(err)
	}
}

func (p *pair) sequence() {
	p.Helper()
	if _, err := p.Sequences(p.Context(), 0, true); err != nil {
		p.Fatal(err)
	}
}

func (p *pair) abort(back, moved string) {
	p.Helper()
	out, err := p.Abort(p.Context(), false)
	if err != nil || strings.Join(out.Back, " ") != back || strings.Join(out.Moved, " ") != moved {
		p.Fatalf("%+v %v, want %q back and %q moved", out, err, back, moved)
	}
}

func text(t *testing.T, conn *pgx.Conn, sql string) (out string) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "select ("+sql+")::text").Scan(&out); err != nil {
		t.Fatal(sql, err)
	}
	return out
}

// at wants the destination's sequence there.
func (p *pair) at(want string) {
	p.Helper()
	if got := text(p.T, p.d, `select last_value || ' ' || is_called from public.s`); got != want {
		p.Fatalf("the sequence stands at %s, want %s", got, want)
	}
}

// Both regions write, with numbers of their own (steps of two). No number of the destination is given out twice while its sequences are put
// ahead, whether the role may lock them or not.
func TestSequencesInUse(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	pgtest.Exec(t, p.s, `do $$ begin for i in 1..300 loop execute format('create sequence public.s%s increment 2 start 1', lpad(i::text, 3, '0')); end loop; end $$`,
		`select setval(('public.s' || lpad(i::text, 3, '0'))::regclass, 101) from generate_series(1, 299) i`, `select setval('public.s300', 1601)`)
	pgtest.Exec(t, p.d, `do $$ begin for i in 1..300 loop execute format('create sequence public.s%s increment 2 start 2', lpad(i::text, 3, '0')); end loop; end $$`)
	p.take()
	app := pgtest.Connect(t, p.us)
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		seen, n := map[int64]bool{}, 0
		for {
			var v int64
			if err := app.QueryRow(context.Background(), `select nextval('public.s300')`).Scan(&v); err != nil {
				done <- err
				return
			}
			if n++; seen[v] {
				done <- fmt.Errorf("%d was given out twice, behind %d others", v, n)
				return
			}
			seen[v] = true
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
		}
	}()
	p.sequence()
	for range 300 {
		text(t, p.d, "1")
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := p.Abort(t.Context(), false); err != nil {
		t.Fatal(err)
	}
}

// What has come further between the look at all sequences and the setting of this one stays; what has moved goes back to where it stood at that moment.
func TestPutLooksAgain(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for _, c := range []*pgx.Conn{p.s, p.d} {
		pgtest.Exec(t, c, `create sequence public.s`, `create sequence public.down increment -2 minvalue -9223372036854775808 maxvalue 9000 start 900`)
	}
	pgtest.Exec(t, p.s, `select setval('public.s', 100), setval('public.down', -9223372036854775808)`)
	pgtest.Exec(t, p.d, `select setval('public.s', 10)`)
	p.take()
	list, err := p.sequences(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.noteTable(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, owner := range []string{"postgres", ""} {
		for _, c := range []struct {
			meanwhile int64
			want      string
		}{{40, "100 true"}, {99, "100 true"}, {100, "100 true"}, {101, "101 true"}, {250, "250 true"}} {
			pgtest.Exec(t, p.d, `delete from pgwaltz.cutover_sequence`, fmt.Sprintf(`select setval('public.s', %d)`, c.meanwhile))
			for _, q := range list {
				q.owner = owner
				if err := p.put(t.Context(), q); err != nil {
					t.Fatal(err)
				}
			}
			p.at(c.want)
			was := "none"
			if c.meanwhile < 100 {
				was = fmt.Sprint(c.meanwhile)
			}
			if got := text(t, p.d, `select coalesce((select was::text from pgwaltz.cutover_sequence where name = 'public.s'), 'none')`); got != was {
				t.Errorf("%s is noted, want %s", got, was)
			}
		}
	}
	if got := text(t, p.d, `select last_value from public.down`); got != "-9223372036854775808" {
		t.Errorf("it counts down to %s", got)
	}
}

// abort sets nothing back below what was used since it was put ahead, in this run or behind a pause that has ended.
func TestAbortNeverBack(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for _, c := range []*pgx.Conn{p.s, p.d} {
		pgtest.Exec(t, c, `create sequence public.s`)
	}
	pgtest.Exec(t, p.s, `select setval('public.s', 100)`)
	pgtest.Exec(t, p.d, `select setval('public.s', 10)`)
	again := func() {
		t.Helper()
		if _, err := p.ResumeWrite(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		pgtest.Exec(t, p.s, `select setval('public.s', last_value + 300) from public.s`)
		p.take()
		p.sequence()
	}
	p.take()
	p.sequence()
	p.at("100 true")
	p.sequence()
	p.abort("public.s", "")
	p.at("10 true")

	p.take()
	p.sequence()
	pgtest.Exec(t, p.d, `select setval('public.s', 250)`) // both regions write
	again()
	p.at("400 true")
	p.abort("public.s", "")
	p.at("250 true")

	// Not used, and put ahead twice.
	p.take()
	p.sequence()
	again()
	p.at("700 true")
	p.abort("public.s", "")
	p.at("250 true")

	p.take()
	p.sequence()
	pgtest.Exec(t, p.d, `select nextval('public.s')`)
	p.abort("", "public.s")
	p.at("701 true")

	// In use by a transaction that is open: it is put ahead, and stays.
	pgtest.Exec(t, p.s, `select setval('public.s', 1000)`)
	open := pgtest.Connect(t, p.us)
	pgtest.Exec(t, open, `begin`, `select nextval('public.s')`)
	p.take()
	p.sequence()
	p.at("1000 true")
	p.abort("", "public.s")
	p.at("1000 true")
	pgtest.Exec(t, open, `rollback`)
}
