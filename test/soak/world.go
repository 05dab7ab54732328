package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/tpcc"
)

// world is two regions and the application at the left one.
type world struct {
	room        *harness.Room
	left, right *harness.Cluster
	tool        *tpcc.Tool
	pair        *tpcc.Pair
	keep        bool
	burst       int // rows of the next burst begin here
	rows        int // of a burst
}

const database = "soak"

// newWorld starts both regions with one warehouse each, and the sidecars between them.
func newWorld(ctx context.Context, keep bool) (_ *world, err error) {
	bin, err := harness.FindBinaries()
	if err != nil {
		return nil, err
	}
	w := &world{keep: keep}
	if w.room, err = harness.NewRoom(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	settings := map[string]string{"track_commit_timestamp": "on", "shared_buffers": "'256MB'", "max_wal_size": "'4GB'"}
	for _, s := range []struct {
		name string
		c    **harness.Cluster
	}{{"left", &w.left}, {"right", &w.right}} {
		c, err := harness.NewCluster(w.room, bin, harness.ClusterConfig{Name: s.name + "-pg", Settings: settings})
		if err != nil {
			return nil, err
		}
		*s.c = c
		if err := c.Start(ctx); err != nil {
			return nil, err
		}
		if err := w.exec(ctx, c, "postgres", "create database "+database); err != nil {
			return nil, err
		}
	}
	if w.tool, err = tpcc.Build(ctx, w.room.Dir); err != nil {
		return nil, err
	}
	if err := w.tool.Prepare(ctx, w.left, database); err != nil {
		return nil, err
	}
	if err := w.exec(ctx, w.left, database, `create table mark (id bigint primary key)`); err != nil {
		return nil, err
	}
	file := filepath.Join(w.room.Dir, "base.sql")
	if err := errors.Join(w.left.Dump(ctx, database, file), w.right.Load(ctx, database, file)); err != nil {
		return nil, err
	}
	if w.pair, err = tpcc.NewPair(filepath.Join(w.room.Dir, database), w.left, w.right, database, false, nil); err != nil {
		return nil, err
	}
	return w, errors.Join(w.pair.Setup(ctx), w.pair.Start())
}

func (w *world) exec(ctx context.Context, c *harness.Cluster, db, sql string) error {
	conn, err := c.Connect(ctx, db)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("run %q: %w", sql, err)
	}
	return nil
}

// A burst is so many rows that are inserted at once, some 10 MB of WAL to be read; fewer in a short
// run.
const (
	burstRows = 100_000
	shortRows = 15_000
)

// takeBurst writes many rows in one transaction and returns how long they took to the other side.
func (w *world) takeBurst(ctx context.Context) (time.Duration, error) {
	w.burst += w.rows
	if err := w.exec(ctx, w.left, database, fmt.Sprintf(`insert into mark select generate_series(%d, %d)`, w.burst, w.burst+w.rows-1)); err != nil {
		return 0, err
	}
	began := time.Now()
	conn, err := w.right.Connect(ctx, database)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = harness.Poll(ctx, 10*time.Minute, 20*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		var there bool
		if err := conn.QueryRow(ctx, `select exists (select from mark where id = $1)`, w.burst+w.rows-1).Scan(&there); err != nil {
			return false, "", err
		}
		return there, "a burst to arrive", w.pair.Alive()
	})
	return time.Since(began), err
}

// equal compares both sides.
func (w *world) equal(ctx context.Context) error {
	var got [2]string
	for i, c := range []*harness.Cluster{w.left, w.right} {
		conn, err := c.Connect(ctx, database)
		if err != nil {
			return err
		}
		err = conn.QueryRow(ctx, tpcc.HashSQL()).Scan(&got[i])
		conn.Close(ctx)
		if err != nil {
			return fmt.Errorf("hash rows: %w", err)
		}
	}
	if got[0] != got[1] {
		return fmt.Errorf("rows differ: %s and %s", got[0], got[1])
	}
	return nil
}

// idle is the longest time that a session of a sidecar has been idle in a transaction.
func idle(ctx context.Context, conn *pgx.Conn) (time.Duration, error) {
	var seconds float64
	err := conn.QueryRow(ctx, `select coalesce(max(extract(epoch from clock_timestamp() - state_change)), 0)::float8 from pg_stat_activity
where state = 'idle in transaction' and application_name like 'pgwaltz%'`).Scan(&seconds)
	if err != nil {
		return 0, fmt.Errorf("look at sessions: %w", err)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

func (w *world) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if w.pair != nil {
		if err := w.pair.Close(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "soak: close:", err)
		}
	}
	for _, c := range []*harness.Cluster{w.left, w.right} {
		if c != nil {
			c.Close()
		}
	}
	if !w.keep {
		_ = w.room.Close()
	}
}
