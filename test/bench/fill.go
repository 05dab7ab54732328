package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// fill measures the first copy: the source has the rows, the target's table is empty. The clock starts when the
// contender's walsender has the slot, and stops when every row is visible at the target.
func (b *bench) fill(ctx context.Context, w Workload, name string, run *Run) (err error) {
	if err := b.openSource(ctx, w); err != nil {
		return err
	}
	clean := context.WithoutCancel(ctx)
	defer func() { err = errors.Join(err, b.discard(clean, b.Source, b.source)) }()
	if err := b.mark(ctx, 1); err != nil {
		return err
	}
	c, err := b.openTarget(ctx, w, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.away(clean, c)) }()
	src, err := b.connect(ctx, b.Source, b.source)
	if err != nil {
		return err
	}
	defer src.Close(clean)
	dst, err := b.connect(ctx, b.Target, b.target(name))
	if err != nil {
		return err
	}
	defer dst.Close(clean)
	want, err := b.hash(ctx, src)
	if err != nil {
		return err
	}
	if err := c.Prepare(ctx); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	if err := c.Arm(ctx); err != nil {
		return fmt.Errorf("arm: %w", err)
	}
	run.Rows = w.Base(b.o).Rows
	skip := map[uint32]bool{src.PgConn().PID(): true, dst.PgConn().PID(): true, c.Holder(): true}
	before, err := b.account(c.Sidecars(), skip)
	if err != nil {
		return err
	}
	released := time.Now()
	if err := c.Release(ctx); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	if err := started(ctx, c, src); err != nil {
		return err
	}
	begin := time.Now()
	if err := b.filled(ctx, c, dst, run.Rows); err != nil {
		return err
	}
	end := time.Now()
	after, err := b.account(c.Sidecars(), skip)
	if err != nil {
		return err
	}
	run.StartUp, run.Seconds = begin.Sub(released).Seconds(), end.Sub(begin).Seconds()
	run.take(after, before, c)
	return b.compare(ctx, dst, want)
}

// filled waits until all rows are there. Counting costs a moment itself, so the table's size is looked at often, and
// the rows are counted when it has stopped to grow.
func (b *bench) filled(ctx context.Context, c Contender, dst *pgx.Conn, rows int) error {
	var last int64
	return harness.Poll(ctx, b.o.Timeout, 20*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		var size int64
		if err := dst.QueryRow(ctx, `select pg_relation_size('users') + pg_relation_size('mark')`).Scan(&size); err != nil {
			return false, "", err
		}
		if still := size == last && size > 0; !still {
			last = size
			return false, c.Name() + " to copy all rows", c.Alive()
		}
		var n int
		if err := dst.QueryRow(ctx, `select count(*) + (select count(*) from mark) from users`).Scan(&n); err != nil {
			return false, "", err
		}
		return n == rows+1, fmt.Sprintf("%s to copy all rows (%d of %d)", c.Name(), n, rows+1), c.Alive()
	})
}
