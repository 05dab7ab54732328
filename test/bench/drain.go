package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// drains writes one history with every contender's slot in place, and lets one contender
// after the other drain its slot into a database of its own.
func (b *bench) drains(ctx context.Context, w Workload, n int) (err error) {
	if err := b.openSource(ctx, w); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.discard(context.WithoutCancel(ctx), b.Source, b.source)) }()
	type entry struct {
		c   Contender
		run Run
	}
	var field []*entry
	defer func() {
		for _, e := range field {
			err = errors.Join(err, b.away(context.WithoutCancel(ctx), e.c))
		}
	}()
	names := b.order(n)
	if w.Peers > 0 { // pglogical would need a node for each, and says no more than native does
		names = slices.DeleteFunc(names, func(c string) bool { return c == "pglogical" })
	}
	for _, name := range names {
		e := &entry{run: Run{Workload: w.Name, Contender: name, Repetition: n}}
		var err error
		if e.c, err = b.openTarget(ctx, w, name); err != nil {
			return err
		}
		field = append(field, e)
		if err := e.c.Prepare(ctx); err != nil {
			e.run.Error = fmt.Sprintf("prepare: %v", err)
		}
	}
	started := time.Now()
	rows, err := w.Write(ctx, b.Rig, b.source, b.o)
	if err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	if err := b.mark(ctx, 1); err != nil {
		return err
	}
	src, err := b.connect(ctx, b.Source, b.source)
	if err != nil {
		return err
	}
	defer src.Close(context.WithoutCancel(ctx))
	want, err := b.hash(ctx, src)
	if err != nil {
		return err
	}
	b.say("  history of %d rows written in %.1f s", rows, time.Since(started).Seconds())
	for len(field) > 0 {
		e := field[0]
		if e.run.Error == "" {
			e.run.Rows = rows
			if err := b.drain(ctx, e.c, src, want, &e.run); err != nil {
				e.run.Error = err.Error()
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		b.note(e.run)
		field = field[1:]
		if err := b.away(ctx, e.c); err != nil {
			return err
		}
	}
	return nil
}

// away removes a contender and its databases.
func (b *bench) away(ctx context.Context, c Contender) error {
	if err := c.Close(ctx); err != nil {
		b.say("  remove %s: %v", c.Name(), err) // the slot and the database go in any case
	}
	var errs []error
	for _, slot := range c.Slots() {
		errs = append(errs, dropSlot(ctx, b.Rig, b.Source, slot))
	}
	for _, t := range b.targets(c.Name()) {
		errs = append(errs, b.discard(ctx, t.c, t.db))
	}
	return errors.Join(errs...)
}

// mark writes a row to wait for; it commits behind everything written before.
func (b *bench) mark(ctx context.Context, id int) error {
	return b.exec(ctx, b.Source, b.source, fmt.Sprintf(`insert into mark (id) values (%d)`, id))
}

// watch waits until a mark is at the target.
func (b *bench) watch(ctx context.Context, c Contender, dst *pgx.Conn, id int) error {
	return harness.Poll(ctx, b.o.Timeout, 5*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		var there bool
		if err := dst.QueryRow(ctx, `select exists (select from mark where id = $1)`, id).Scan(&there); err != nil {
			return false, "", err
		}
		return there, c.Name() + " to apply everything", c.Alive()
	})
}

// started waits until the contender's walsenders have its slots.
func started(ctx context.Context, c Contender, src *pgx.Conn) error {
	return harness.Poll(ctx, 60*time.Second, 3*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		var n int
		err := src.QueryRow(ctx, `select count(*) from pg_replication_slots where slot_name::text = any ($1) and active and active_pid <> $2`, c.Slots(), int32(c.Holder())).Scan(&n)
		if err != nil {
			return false, "", err
		}
		return n == len(c.Slots()), c.Name() + " to take its slot", c.Alive()
	})
}

// drain measures one drain and compares the rows.
func (b *bench) drain(ctx context.Context, c Contender, src *pgx.Conn, want string, run *Run) error {
	skip := map[uint32]bool{src.PgConn().PID(): true}
	var peers []*pgx.Conn
	for _, t := range b.targets(c.Name()) {
		dst, err := b.connect(ctx, t.c, t.db)
		if err != nil {
			return err
		}
		defer dst.Close(context.WithoutCancel(ctx))
		peers, skip[dst.PgConn().PID()] = append(peers, dst), true
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	if err := c.Arm(ctx); err != nil {
		return fmt.Errorf("arm: %w", err)
	}
	skip[c.Holder()] = true
	released := time.Now()
	if err := c.Release(ctx); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	before, err := b.account(c.Sidecars(), skip)
	if err != nil {
		return err
	}
	if err := started(ctx, c, src); err != nil {
		return err
	}
	begin := time.Now()
	for _, dst := range peers { // it ends when the last has everything
		if err := b.watch(ctx, c, dst, 1); err != nil {
			return err
		}
	}
	end := time.Now()
	after, err := b.account(c.Sidecars(), skip)
	if err != nil {
		return err
	}
	run.StartUp, run.Seconds = begin.Sub(released).Seconds(), end.Sub(begin).Seconds()
	run.take(after, before, c)
	for _, dst := range peers {
		if err := b.compare(ctx, dst, want); err != nil {
			return err
		}
	}
	return nil
}

// take fills in CPU and memory.
func (r *Run) take(after, before usage, c Contender) {
	r.CPU = after.since(before)
	r.Foreign = after.busy - before.busy
	for _, s := range r.CPU {
		r.Foreign -= s
	}
	r.PeakRSS = map[string]int64{}
	for name, p := range c.Sidecars() {
		r.PeakRSS[name] = p.PeakRSS()
	}
}

// compare holds the target's rows against the source's. The applier's last transaction is
// committed: the mark was in it.
func (b *bench) compare(ctx context.Context, dst *pgx.Conn, want string) error {
	got, err := b.hash(ctx, dst)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("rows differ: source (rows, hash, marks) %s, target %s", want, got)
	}
	return nil
}
