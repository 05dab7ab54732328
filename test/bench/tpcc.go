package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/tpcc"
)

// W9 is an application, TPC-C on one warehouse, beside a replicator: what it keeps of its speed,
// and what it has to wait for.

// Scene is what goes on beside the application.
type Scene string

const (
	Steady  Scene = "steady"  // the replicator is in step when the load begins
	Backlog Scene = "backlog" // it starts with the load, and finds a backlog
	Copying Scene = "copy"    // it starts with the load, and the other side is empty
)

const (
	tpccSpan    = 30 * time.Second
	tpccBacklog = 20 * time.Second
	tpccClients = 4
	tpccDrain   = 5 * time.Minute
)

// besides is one replicator beside the application.
type beside interface {
	prepare(ctx context.Context) error // slot and all, at rest
	start(ctx context.Context) error
	alive() error
	processes() map[string]*harness.Process
	close(ctx context.Context) error
}

// beside measures the application beside one contender; "none" is nobody.
func (b *bench) beside(ctx context.Context, w Workload, name string, run *Run) (err error) {
	b.jobs++
	db := fmt.Sprintf("tpcc%d", b.jobs)
	clean := context.WithoutCancel(ctx)
	if err := b.tpccDatabases(ctx, db, w); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.tpccDrop(clean, db)) }()
	var r beside
	switch name {
	case "native":
		r = &nativeBeside{rig: b.Rig, db: db, copied: w.Scene == Copying}
	case "pgwaltz", before:
		if err := harness.UseProduct(b.binary(name)); err != nil {
			return err
		}
		p, err := tpcc.NewPair(filepath.Join(b.Room.Dir, db), b.Source, b.Target, db, w.Scene == Copying, b.o.Set)
		if err != nil {
			return err
		}
		r = &pairBeside{rig: b.Rig, db: db, Pair: p}
	case "none":
		r = nobody{}
	}
	defer func() { err = errors.Join(err, r.close(clean)) }()
	if err := r.prepare(ctx); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if w.Scene == Backlog {
		if _, err := b.tpcc.Run(ctx, b.Source, db, tpccClients, b.o.span(tpccBacklog)); err != nil {
			return err
		}
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	if err := r.start(ctx); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if w.Scene == Steady && name != "none" {
		if err := b.tpccMark(ctx, db, 1, r); err != nil {
			return err
		}
	}
	procs := r.processes()
	spent, err := b.account(procs, nil)
	if err != nil {
		return err
	}
	from, err := b.read(ctx, [2]string{db, db}, procs)
	if err != nil {
		return err
	}
	got, err := b.tpcc.Run(ctx, b.Source, db, tpccClients, b.o.span(tpccSpan))
	if err != nil {
		return err
	}
	after, err := b.account(procs, nil)
	if err != nil {
		return err
	}
	run.Seconds = b.o.span(tpccSpan).Seconds()
	run.TPCC = &TPCC{TpmC: got.TpmC, Transactions: got.Transactions, Longest: got.Longest.Seconds(), Deadlocks: got.Deadlocks, Errors: got.Errors, First: got.First}
	run.CPU = after.since(spent)
	run.Foreign = after.busy - spent.busy
	for _, s := range run.CPU {
		run.Foreign -= s
	}
	ended := time.Now()
	if name != "none" {
		if err := b.tpccMark(ctx, db, 2, r); err != nil {
			return err
		}
	}
	run.Lag = time.Since(ended).Seconds()
	// What is left to do at the end of the load counts as well.
	to, err := b.read(ctx, [2]string{db, db}, procs)
	if err != nil {
		return err
	}
	run.Account = to.since(from)
	if name == "none" {
		return nil
	}
	if name == "pgwaltz" || name == before {
		if err := b.tpccSides(ctx, db, run.TPCC); err != nil {
			return err
		}
	}
	return b.tpccCompare(ctx, db, r)
}

// tpccDatabases makes the database of a job on both sides, with the same rows but for a copy.
func (b *bench) tpccDatabases(ctx context.Context, db string, w Workload) error {
	template, err := b.tpccTemplate(ctx, w.Stamped)
	if err != nil {
		return err
	}
	for _, c := range []*harness.Cluster{b.Source, b.Target} {
		if err := b.exec(ctx, c, "postgres", "create database "+db+" template "+template+strategy(b.PGVersion)); err != nil {
			return err
		}
	}
	if w.Scene != Copying {
		return nil
	}
	for _, t := range append([]string{"history"}, tpcc.Tables...) {
		if err := b.exec(ctx, b.Target, db, "truncate "+t+" cascade"); err != nil {
			return err
		}
	}
	return nil
}

// tpccTemplate is one warehouse, with or without stamp columns, on both clusters.
func (b *bench) tpccTemplate(ctx context.Context, stamped bool) (string, error) {
	const plain = "tpcc_base"
	if !b.templates[plain] {
		var err error
		if b.tpcc, err = tpcc.Build(ctx, b.Room.Dir); err != nil {
			return "", err
		}
		file := filepath.Join(b.Room.Dir, plain+".sql")
		if err := b.exec(ctx, b.Source, "postgres", "create database "+plain); err != nil {
			return "", err
		}
		if err := b.tpcc.Prepare(ctx, b.Source, plain); err != nil {
			return "", err
		}
		if err := b.exec(ctx, b.Source, plain, `create table mark (id bigint primary key)`, `vacuum (freeze, analyze)`); err != nil {
			return "", err
		}
		if err := b.Source.Dump(ctx, plain, file); err != nil {
			return "", err
		}
		if err := b.exec(ctx, b.Target, "postgres", "create database "+plain); err != nil {
			return "", err
		}
		if err := b.Target.Load(ctx, plain, file); err != nil {
			return "", err
		}
		if err := b.exec(ctx, b.Target, plain, `vacuum (freeze, analyze)`); err != nil {
			return "", err
		}
		b.templates[plain] = true
	}
	if !stamped {
		return plain, nil
	}
	const with = "tpcc_stamped"
	if !b.templates[with] {
		for _, c := range []*harness.Cluster{b.Source, b.Target} {
			if err := b.exec(ctx, c, "postgres", "create database "+with+" template "+plain+strategy(b.PGVersion)); err != nil {
				return "", err
			}
			// Both sides get the same times, as a restored copy would.
			sql := append([]string{`set default_transaction_read_only = off`}, tpcc.StampSQL()...)
			for _, t := range tpcc.Tables {
				sql = append(sql, `alter table `+t+` disable trigger bump`, `update `+t+` set updated_at = '2026-01-01 00:00:00Z'`, `alter table `+t+` enable trigger bump`)
			}
			if err := b.exec(ctx, c, with, append(sql, `vacuum (full, freeze, analyze)`)...); err != nil {
				return "", err
			}
		}
		b.templates[with] = true
	}
	return with, nil
}

func (b *bench) tpccDrop(ctx context.Context, db string) error {
	var errs []error
	for _, c := range []*harness.Cluster{b.Source, b.Target} {
		sql := []string{`alter database ` + db + ` allow_connections false`, `select pg_terminate_backend(pid) from pg_stat_activity where datname = '` + db + `'`}
		errs = append(errs, b.exec(ctx, c, "postgres", sql...))
		if b.NoPglogical != "" {
			errs = append(errs, b.exec(ctx, c, "postgres", `drop database `+db))
		}
	}
	return errors.Join(errs...)
}

// tpccMark writes a row behind everything that was committed, and waits for it.
func (b *bench) tpccMark(ctx context.Context, db string, id int, r beside) error {
	if err := b.exec(ctx, b.Source, db, fmt.Sprintf(`insert into mark values (%d)`, id)); err != nil {
		return err
	}
	dst, err := b.connect(ctx, b.Target, db)
	if err != nil {
		return err
	}
	defer dst.Close(context.WithoutCancel(ctx))
	return harness.Poll(ctx, max(b.o.Timeout, tpccDrain), 20*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		var there bool
		if err := dst.QueryRow(ctx, `select exists (select from mark where id = $1)`, id).Scan(&there); err != nil {
			return false, "", err
		}
		return there, "everything to arrive", r.alive()
	})
}

// tpccSides reads how much the side tables take.
func (b *bench) tpccSides(ctx context.Context, db string, out *TPCC) error {
	for i, c := range []*harness.Cluster{b.Source, b.Target} {
		conn, err := b.connect(ctx, c, db)
		if err != nil {
			return err
		}
		err = conn.QueryRow(ctx, `select coalesce(sum(pg_total_relation_size(c.oid)) filter (where n.nspname = 'pgwaltz'), 0)::bigint,
  coalesce(sum(pg_total_relation_size(c.oid)) filter (where n.nspname = 'public'), 0)::bigint
from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'r'`).Scan(&out.Sides[i], &out.Data[i])
		conn.Close(ctx)
		if err != nil {
			return fmt.Errorf("read sizes of side tables: %w", err)
		}
	}
	return nil
}

// tpccCompare waits until both sides hold the same rows; a copy may end behind the mark.
func (b *bench) tpccCompare(ctx context.Context, db string, r beside) error {
	hash := func(ctx context.Context, c *harness.Cluster) (h string, err error) {
		conn, err := b.connect(ctx, c, db)
		if err != nil {
			return "", err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		if err := conn.QueryRow(ctx, tpcc.HashSQL()).Scan(&h); err != nil {
			return "", fmt.Errorf("hash rows: %w", err)
		}
		return h, nil
	}
	return harness.Poll(ctx, tpccDrain, time.Second, func(ctx context.Context) (bool, string, error) {
		want, err := hash(ctx, b.Source)
		if err != nil {
			return false, "", err
		}
		got, err := hash(ctx, b.Target)
		if err != nil {
			return false, "", err
		}
		return got == want, fmt.Sprintf("equal rows: source %s, target %s", want, got), r.alive()
	})
}

type nobody struct{}

func (nobody) prepare(context.Context) error { return nil }
func (nobody) start(context.Context) error   { return nil }
func (nobody) alive() error                  { return nil }
func (nobody) processes() map[string]*harness.Process {
	return nil
}
func (nobody) close(context.Context) error { return nil }

// nativeBeside is a subscription, in one direction: native has no other.
type nativeBeside struct {
	rig    *Rig
	db     string
	copied bool
	made   bool
}

func (n *nativeBeside) slot() string { return n.db + "_native" }

func (n *nativeBeside) prepare(ctx context.Context) error {
	list := "mark"
	for _, t := range tpcc.Tables {
		list += ", " + t
	}
	if err := n.rig.exec(ctx, n.rig.Source, n.db, `create publication tpcc for table `+list); err != nil {
		return err
	}
	if err := n.rig.exec(ctx, n.rig.Source, n.db, `select pg_create_logical_replication_slot('`+n.slot()+`', 'pgoutput')`); err != nil {
		return err
	}
	n.made = true
	return n.rig.exec(ctx, n.rig.Target, n.db, fmt.Sprintf(`create subscription %s connection '%s' publication tpcc
with (enabled = false, create_slot = false, slot_name = '%s', copy_data = false, streaming = off)`, n.slot(), dsn(n.rig.Source, n.db), n.slot()))
}

func (n *nativeBeside) start(ctx context.Context) error {
	if err := n.rig.exec(ctx, n.rig.Target, n.db, `alter subscription `+n.slot()+` enable`); err != nil || !n.copied {
		return err
	}
	// What is dropped from and added to a subscription is copied.
	return n.rig.exec(ctx, n.rig.Target, n.db, `alter subscription `+n.slot()+` set publication tpcc with (refresh = false)`,
		`delete from pg_subscription_rel`, `alter subscription `+n.slot()+` refresh publication with (copy_data = true)`)
}

func (n *nativeBeside) alive() error { return nil }

func (n *nativeBeside) processes() map[string]*harness.Process { return nil }

func (n *nativeBeside) close(ctx context.Context) error {
	if !n.made {
		return nil
	}
	return errors.Join(n.rig.exec(ctx, n.rig.Target, n.db,
		`alter subscription `+n.slot()+` disable`, `alter subscription `+n.slot()+` set (slot_name = none)`, `drop subscription `+n.slot()),
		dropSlot(ctx, n.rig, n.rig.Source, n.slot()))
}

// pairBeside is two sidecars, in both directions.
type pairBeside struct {
	*tpcc.Pair
	rig *Rig
	db  string
}

func (p *pairBeside) prepare(ctx context.Context) error { return p.Setup(ctx) }
func (p *pairBeside) start(context.Context) error       { return p.Start() }
func (p *pairBeside) alive() error                      { return p.Alive() }
func (p *pairBeside) processes() map[string]*harness.Process {
	return map[string]*harness.Process{"publish": p.Left.Process(), "apply": p.Right.Process()}
}
func (p *pairBeside) close(ctx context.Context) error { return p.Close(ctx) }
