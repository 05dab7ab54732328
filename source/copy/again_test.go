package copy

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

// tape is a stream that keeps what is sent.
type tape struct {
	mu      sync.Mutex
	sent    []Chunk
	acked   Place
	sending func(n int) // is told of the n-th chunk before it is durable
	looked  chan struct{}
}

func (s *tape) Send(_ context.Context, c Chunk) (Place, error) {
	s.mu.Lock()
	s.sent = append(s.sent, c)
	n := len(s.sent)
	s.mu.Unlock()
	if s.sending != nil {
		s.sending(n)
	}
	return Place{3, uint64(n)}, nil
}

func (s *tape) Applied() Place {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.looked <- struct{}{}:
	default:
	}
	return s.acked
}

func (s *tape) Newest() Place { return Place{3, uint64(len(s.rows()))} }

func (s *tape) Open() bool { return true }

func (s *tape) rows() []Chunk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent
}

// last is the second column of a row as it was sent last.
func (s *tape) last(id string) (v string) {
	for _, c := range s.rows() {
		for i := range c.Rows.Changes {
			if row := c.Rows.Changes[i].New; string(row[0].Bytes) == id {
				v = string(row[1].Bytes)
			}
		}
	}
	return v
}

var orders = wal.RelationName{Schema: "public", Name: "orders"}

// copying starts a copier of a database with one table of some rows, whose copy is asked for.
func copying(t *testing.T, s *tape) (c *pgx.Conn, reached func(want string)) {
	t.Helper()
	dsn := server.Database(t)
	c = pgtest.Connect(t, dsn)
	pgtest.Exec(t, c, "create schema pgwaltz", Schema, tombstone.Schema, "create table pgwaltz.stream (incarnation bigint)", "insert into pgwaltz.stream values (3)",
		"create table public.orders (id int primary key, v text)", "insert into public.orders select g, 'old' from generate_series(1, 5) g", "create publication p for table public.orders", RequestSQL([]wal.RelationName{orders}))
	var mu sync.Mutex
	shared := pgtest.Connect(t, dsn)
	s.looked = make(chan struct{}, 1)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- New(Config{
			Connect: func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, dsn) },
			Do: func(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
				mu.Lock()
				defer mu.Unlock()
				return f(ctx, shared)
			},
			ChunkRows: 2, Stamps: func(wal.RelationName) StampColumns { return StampColumns{} }, Index: tombstone.NewIndex(0), Stream: s,
			Watch: &Watch{}, Arrived: &Arrived{}, Publication: "p", Jobs: func([]Job) {}, Public: error.Error, Log: slog.New(slog.DiscardHandler),
		}).Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; ctx.Err() == nil || err == nil {
			t.Errorf("the copier ended: %v", err)
		}
	})
	return c, func(want string) {
		t.Helper()
		late := time.After(time.Minute)
		for {
			var got string
			if err := c.QueryRow(ctx, "select concat_ws(' ', state, coalesce(last_key, '-'), coalesce(applied_key, '-'), applied_at is not null) from pgwaltz.copy").Scan(&got); err != nil {
				t.Fatal(err)
			}
			if got == want {
				return
			}
			select {
			case err := <-ended:
				t.Fatalf("the copier ended: %v", err)
			case <-late:
				t.Fatalf("the copy is at %q, want %q", got, want)
			case <-s.looked:
			}
		}
	}
}

// What was read for one request does not count for a later one: rows may have changed between the two, in what a gap
// has lost.
func TestAChunkOfAnEarlierRequestIsReadAgain(t *testing.T) {
	t.Parallel()
	for what, again := range map[string]func(ctx context.Context, c *pgx.Conn) error{
		"resync": func(ctx context.Context, c *pgx.Conn) error {
			return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
				_, err := Request(ctx, tx, "p", nil)
				return err
			})
		},
		"await": func(ctx context.Context, c *pgx.Conn) error { return Await(ctx, c, orders, "for a test") },
		"back": func(ctx context.Context, c *pgx.Conn) error {
			_, err := CopyBack(ctx, c, Place{})
			return err
		},
	} {
		for _, rows := range []int{1, 5} {
			if rows == 1 && what != "resync" {
				continue // a table of one chunk: once is enough
			}
			t.Run(what, func(t *testing.T) {
				t.Parallel()
				s, first := &tape{}, make(chan struct{})
				asked := make(chan struct{})
				s.sending = func(n int) {
					if n == 1 {
						close(first)
						<-asked
					}
				}
				c, reached := copying(t, s)
				<-first
				pgtest.Exec(t, c, "update pgwaltz.copy set asked = true", "delete from public.orders where id > "+string(rune('0'+rows)), "update public.orders set v = 'new' where id = 1")
				if err := again(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				close(asked)
				key := map[int]string{1: "1:1", 5: "1:5"}[rows]
				reached("done " + key + " - f")
				if got := s.last("1"); got != "new" {
					t.Errorf("the row was sent as %q", got)
				}
			})
		}
	}
}

// A copy that is under way when its table gives its name to another one, and nobody asks for it anew, does not go on with that one behind its cursor.
func TestACopyOfAnotherTableBeginsAgain(t *testing.T) {
	t.Parallel()
	s := &tape{}
	c, reached := copying(t, s)
	reached("done 1:5 - f")
	pgtest.Exec(t, c, `begin; update pgwaltz.copy set state = 'running', last_key = '1:4', rows_done = 4;
alter table public.orders rename to former; create table public.orders (id int primary key, v text); insert into public.orders select g, 'other' from generate_series(1, 5) g;
alter publication p set table public.orders; commit`)
	reached("done 1:5 - f")
	if got := s.last("1"); got != "other" {
		t.Errorf("the first row was sent as %q", got)
	}
	sent := len(s.rows())
	pgtest.Exec(t, c, "update pgwaltz.copy set state = 'running', last_key = '1:4', rows_done = 4")
	reached("done 1:5 - f")
	if n := len(s.rows()) - sent; n != 1 {
		t.Errorf("the rest of the same table went in %d chunks, want 1", n)
	}
}

// What peers have of an earlier copy says nothing of the one that was asked for since.
func TestWhatPeersHaveOfAnEarlierCopyDoesNotCount(t *testing.T) {
	t.Parallel()
	s := &tape{}
	c, reached := copying(t, s)
	reached("done 1:5 - f")
	pgtest.Exec(t, c, RequestSQL([]wal.RelationName{orders}))
	reached("done 1:5 - f")
	for len(s.rows()) < 6 {
		<-s.looked
	}
	reached("done 1:5 - f")
	ack := func(frame uint64) {
		s.mu.Lock()
		s.acked = Place{3, frame}
		s.mu.Unlock()
		for range 3 { // the last of them began behind the word of the peers
			<-s.looked
		}
	}
	ack(3)
	reached("done 1:5 - f")
	ack(4)
	reached("done 1:5 1:2 f")
	ack(6)
	reached("done 1:5 1:5 t")
}

// A chunk is bounded in bytes, too: it is one packet, which has to fit into the stream and into memory.
func TestLargeRowsMakeSmallChunks(t *testing.T) {
	t.Parallel()
	c := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, c, "create schema pgwaltz", tombstone.Schema, "create table public.docs (id int primary key, v text)",
		"insert into public.docs select g, repeat('x', case when g > 100 and g <= 140 then 300000 else 10 end) from generate_series(1, 5000) g")
	p, err := newPlan(t.Context(), c, wal.RelationName{Schema: "public", Name: "docs"}, func(wal.RelationName) StampColumns { return StampColumns{} }, tombstone.Tracked{})
	if err != nil {
		t.Fatal(err)
	}
	ahead := p.readAhead(t.Context(), c, Config{Index: tombstone.NewIndex(0), Arrived: &Arrived{}}, nil, 2000)
	defer ahead.close()
	rows, chunks, most := 0, 0, 0
	for more := true; more; {
		read, err := ahead.next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range read.tx.Changes {
			if rows++; string(read.tx.Changes[i].New[0].Bytes) != strconv.Itoa(rows) {
				t.Fatalf("row %d is %s", rows, read.tx.Changes[i].New[0].Bytes)
			}
		}
		if size := read.tx.Size(); size > chunkBytes+400_000 {
			t.Errorf("a chunk of %d bytes", size)
		}
		most = max(most, read.count)
		chunks, more = chunks+1, read.more
	}
	if rows != 5000 || most != 2000 || chunks > 30 {
		t.Errorf("%d rows in %d chunks, of %d rows at most", rows, chunks, most)
	}
}
