package apply

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/wal"
)

// countedConn counts round trips: times that the client asks and then waits.
type countedConn struct {
	net.Conn
	trips *atomic.Int64
	asked *atomic.Bool
}

func (c countedConn) Write(p []byte) (int, error) {
	if !c.asked.Swap(true) {
		c.trips.Add(1)
	}
	return c.Conn.Write(p)
}

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.asked.Store(false)
	}
	return n, err
}

// countTrips opens the applier again, with a connection whose round trips are counted.
func (b *bench) countTrips() *atomic.Int64 {
	b.t.Helper()
	trips, asked := new(atomic.Int64), new(atomic.Bool)
	b.a.cfg.Connect = func(ctx context.Context) (*pgx.Conn, error) {
		conn, err := pg.Connect(ctx, b.dsn, pg.Options{Region: "b", Role: "apply", Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			return countedConn{conn, trips, asked}, err
		}})
		if err == nil {
			_, err = conn.Exec(ctx, "set session_replication_role = replica")
		}
		return conn, err
	}
	if _, err := b.a.Open(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return trips
}

// Rows of a table without a key go in together, where nothing has to be looked at behind each of
// them; one that is refused waits alone, and changes between them keep their places.
func TestInsertsWithoutAKeyGoInTogether(t *testing.T) {
	t.Parallel()
	b, k := newBench(t, "create table k(a text, constraint no check (a <> 'x'))"), keylessRel()
	trips := b.countTrips()
	b.apply(b.tx(nil, insert(k, text("first")))) // what is asked once
	var many []wal.Change
	for n := range 500 {
		many = append(many, insert(k, text(fmt.Sprint("row ", n))))
	}
	before := trips.Load()
	b.apply(b.tx(nil, many...))
	if took := trips.Load() - before; took > 5 {
		t.Errorf("500 rows took %d round trips", took)
	}
	b.want("select count(*), count(distinct a), (select string_agg(a, ',') from (select a from k limit 3) s) from k", "501|501|first,row 0,row 1")
	b.apply(b.tx(nil, insert(k, text("new")), insert(k, text("\\N")), insert(k, text("")), remove(k, text("new")), insert(k, text("new")), insert(k, text("new")), remove(k, text("row 7"))))
	b.want("select count(*) filter (where a = 'new'), count(*) filter (where a is null), count(*) filter (where a = ''), count(*) filter (where a = 'row 7') from k", "2|1|1|0")
	b.apply(b.tx(nil, insert(k, text("y")), insert(k, text("x")), insert(k, text("z"))))
	b.want("select count(*) from k where a in ('y', 'z')", "2")
	b.want("select count(*), min(sqlstate) from pgwaltz.parked", "1|23514")
}

// TestATransactionTakesFewRoundTrips: each is a switch to the server and back, and under load a
// wait for both. A transaction over many tables takes as many as one over a single table.
func TestATransactionTakesFewRoundTrips(t *testing.T) {
	t.Parallel()
	const tables = 6
	for _, c := range []struct {
		what, columns string
		extra         []wal.Column
		most          int64
	}{
		{"without stamp columns", "", nil, 4},
		{"with stamp columns", ", version bigint, updated_at timestamptz", []wal.Column{{Name: "version", OID: 20, Key: true}, {Name: "updated_at", OID: 1184, Key: true}}, 2},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			ddl := ""
			var rels []*wal.Relation
			for n := range tables {
				ddl += fmt.Sprintf("create table public.t%d(id int primary key, v text%s);", n, c.columns)
				rels = append(rels, &wal.Relation{Schema: "public", Name: fmt.Sprintf("t%d", n), Identity: wal.IdentityFull, PrimaryKey: []int{0},
					Columns: append([]wal.Column{{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true}}, c.extra...)})
			}
			b := newBench(t, ddl)
			trips := b.countTrips()
			values := func(v string, version int) wal.Tuple {
				if c.extra == nil {
					return text("1", v)
				}
				return row("1", v, version, version)
			}
			var changes []wal.Change
			for _, r := range rels {
				changes = append(changes, insert(r, values("a", 1)))
			}
			b.apply(b.tx(nil, changes...))
			took := int64(1000)
			for n := range 4 { // statements are prepared at their first use, and definitions looked at now and then
				changes = nil
				for _, r := range rels {
					changes = append(changes, update(r, values(fmt.Sprint("a", n), n+1), values(fmt.Sprint("a", n+1), n+2)))
				}
				if n == 0 {
					for i, r := range rels {
						changes[i] = update(r, values("a", 1), values("a1", 2))
					}
				}
				tx := b.tx(nil, changes...)
				before := trips.Load()
				b.apply(tx)
				took = min(took, trips.Load()-before)
			}
			b.want("select count(*) from public.t5 where v = 'a4'", "1")
			t.Logf("%d round trips", took)
			if took > c.most {
				t.Errorf("a transaction over %d tables took %d round trips, and %d would do", tables, took, c.most)
			}
		})
	}
}
