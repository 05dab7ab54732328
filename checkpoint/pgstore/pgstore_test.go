package pgstore_test

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

var (
	_ pgstore.Querier = (*pgx.Conn)(nil)
	_ pgstore.Querier = pgx.Tx(nil)
	_ pgstore.Querier = (*pgxpool.Pool)(nil)
	_ pgstore.Execer  = (*pgx.Conn)(nil)
	_ pgstore.Execer  = pgx.Tx(nil)
	_ pgstore.Execer  = (*pgxpool.Pool)(nil)
)

func sample(origin string) checkpoint.Checkpoint {
	return checkpoint.Checkpoint{
		Origin: origin, Epoch: wal.Epoch{SystemID: math.MaxUint64 - 5, Timeline: 7, Slot: "pgwaltz_eu"},
		Incarnation: math.MaxUint32, FrameNo: 1 << 40, EndLSN: 0xFFFFFFFF00000010, Chain: [32]byte{1, 2, 31: 255},
		StreamSeq: 99, Transactions: 12345, CommitTime: 1_760_000_000_123_456, AppliedAt: 1_760_000_000_223_457,
	}
}

func TestStore(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dsn := server.Database(t)
	setup := pgtest.Connect(t, dsn)
	if _, err := setup.Exec(ctx, "CREATE SCHEMA pgwaltz"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := setup.Exec(ctx, pgstore.Schema); err != nil {
			t.Fatalf("create the table: %v", err)
		}
	}
	t.Run("init and load", func(t *testing.T) {
		t.Parallel()
		conn := pgtest.Connect(t, dsn)
		if _, found, err := pgstore.Load(ctx, conn, "init"); found || err != nil {
			t.Fatalf("before: %t, %v", found, err)
		}
		want := sample("init")
		if created, err := pgstore.Init(ctx, conn, want); !created || err != nil {
			t.Fatalf("init: %t, %v", created, err)
		}
		if got := load(ctx, t, conn, "init"); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		other := want
		other.FrameNo++
		if created, err := pgstore.Init(ctx, conn, other); created || err != nil {
			t.Errorf("init again: %t, %v", created, err)
		}
		if got := load(ctx, t, conn, "init"); got != want {
			t.Error("a second init changed the row")
		}
	})
	t.Run("empty checkpoint", func(t *testing.T) {
		t.Parallel()
		conn := pgtest.Connect(t, dsn)
		want := checkpoint.Checkpoint{Origin: "empty"}
		if _, err := pgstore.Init(ctx, conn, want); err != nil {
			t.Fatal(err)
		}
		if got := load(ctx, t, conn, "empty"); got != want {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("save", func(t *testing.T) {
		t.Parallel()
		conn := pgtest.Connect(t, dsn)
		prev := sample("save")
		if _, err := pgstore.Init(ctx, conn, prev); err != nil {
			t.Fatal(err)
		}
		next := prev
		next.FrameNo, next.EndLSN, next.Chain[5] = prev.FrameNo+3, prev.EndLSN+64, 9
		next.StreamSeq, next.Transactions = 102, 12400
		for _, commit := range []bool{false, true} {
			tx, err := conn.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := save(ctx, tx, prev, next); err != nil {
				t.Fatal(err)
			}
			end, want := tx.Rollback, prev
			if commit {
				end, want = tx.Commit, next
			}
			if err := end(ctx); err != nil {
				t.Fatal(err)
			}
			if got := load(ctx, t, conn, "save"); got != want {
				t.Errorf("commit %t: got %+v, want %+v", commit, got, want)
			}
		}
	})
	t.Run("save in a batch", func(t *testing.T) {
		t.Parallel()
		conn := pgtest.Connect(t, dsn)
		prev := sample("batch")
		if _, err := pgstore.Init(ctx, conn, prev); err != nil {
			t.Fatal(err)
		}
		next := prev
		next.FrameNo++
		var b pgx.Batch
		b.Queue("SELECT 1")
		b.Queue(pgstore.SaveSQL, pgstore.SaveArgs(prev, next)...)
		results := conn.SendBatch(ctx, &b)
		if _, err := results.Exec(); err != nil {
			t.Fatal(err)
		}
		tag, err := results.Exec()
		if err != nil {
			t.Fatal(err)
		}
		if err := results.Close(); err != nil {
			t.Fatal(err)
		}
		if err := pgstore.Fenced(prev, tag.RowsAffected()); err != nil {
			t.Error(err)
		}
		if got := load(ctx, t, conn, "batch"); got != next {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("fenced", func(t *testing.T) {
		t.Parallel()
		one, two := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
		prev := sample("fenced")
		if _, err := pgstore.Init(ctx, one, prev); err != nil {
			t.Fatal(err)
		}
		next := prev
		next.FrameNo++
		first, err := one.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := save(ctx, first, prev, next); err != nil {
			t.Fatal(err)
		}
		// The second applier waits for the row and then finds it moved.
		saved := make(chan error, 1) // one result, read below
		go func() { saved <- save(ctx, two, prev, next) }()
		waitForLock(ctx, t, pgtest.Connect(t, dsn), two.PgConn().PID())
		if err := first.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		err = <-saved
		var fenced *pgstore.FencedError
		if !errors.Is(err, pgstore.ErrFenced) || !errors.As(err, &fenced) || fenced.Hint() == "" {
			t.Errorf("second applier: %v", err)
		}
		if err := save(ctx, one, sample("absent"), next); !errors.Is(err, pgstore.ErrFenced) {
			t.Errorf("no row: %v", err)
		}
	})
	t.Run("damaged row", func(t *testing.T) {
		t.Parallel()
		conn := pgtest.Connect(t, dsn)
		for origin, set := range map[string]string{
			"chain": "chain = '\\x00'", "system": "system_id = 'x'", "frame": "frame_no = -1", "incarnation": "incarnation = 1::bigint << 40",
		} {
			if _, err := pgstore.Init(ctx, conn, sample(origin)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(ctx, "UPDATE pgwaltz.checkpoint SET "+set+" WHERE origin = $1", origin); err != nil {
				t.Fatal(err)
			}
			if _, _, err := pgstore.Load(ctx, conn, origin); err == nil {
				t.Errorf("%s: a damaged row was loaded", origin)
			}
		}
	})
	t.Run("closed connection", func(t *testing.T) {
		t.Parallel()
		conn := pgtest.Connect(t, dsn)
		_ = conn.Close(ctx)
		if _, _, err := pgstore.Load(ctx, conn, "x"); err == nil {
			t.Error("load")
		}
		if _, err := pgstore.Init(ctx, conn, sample("x")); err == nil {
			t.Error("init")
		}
		if err := save(ctx, conn, sample("x"), sample("x")); err == nil || errors.Is(err, pgstore.ErrFenced) {
			t.Errorf("save: %v", err)
		}
	})
}

func load(ctx context.Context, t *testing.T, q pgstore.Querier, origin string) checkpoint.Checkpoint {
	t.Helper()
	c, found, err := pgstore.Load(ctx, q, origin)
	if err != nil || !found {
		t.Fatalf("load %s: found %t, %v", origin, found, err)
	}
	return c
}

// waitForLock returns once the backend waits for a lock.
func waitForLock(ctx context.Context, t *testing.T, conn *pgx.Conn, pid uint32) {
	t.Helper()
	for {
		var waiting bool
		err := conn.QueryRow(ctx, "SELECT coalesce(wait_event_type = 'Lock', false) FROM pg_stat_activity, pg_sleep(0.01) WHERE pid = $1", int32(pid)).Scan(&waiting)
		if err != nil {
			t.Fatal(err)
		}
		if waiting {
			return
		}
	}
}

// save moves the row from prev to next as the applier does, which sends the statement among others.
func save(ctx context.Context, tx pgstore.Execer, prev, next checkpoint.Checkpoint) error {
	tag, err := tx.Exec(ctx, pgstore.SaveSQL, pgstore.SaveArgs(prev, next)...)
	if err != nil {
		return err
	}
	return pgstore.Fenced(prev, tag.RowsAffected())
}
