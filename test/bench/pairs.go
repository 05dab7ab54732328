package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// pglogicalPair is pglogical in both directions: last_update_wins, and what came from elsewhere is not sent back.
type pglogicalPair struct {
	rig *Rig
	db  string
}

func (p *pglogicalPair) prepare(ctx context.Context) error {
	all := p.rig.regions()
	for i, c := range all {
		err := p.rig.exec(ctx, c, p.db, `create extension pglogical`,
			fmt.Sprintf(`select pglogical.create_node('n%d', '%s')`, i, dsn(c, p.db)),
			`select pglogical.replication_set_add_table('default', t, false) from unnest(array['users', 'mark']::regclass[]) t`)
		if err != nil {
			return err
		}
	}
	for i, c := range all {
		err := p.rig.exec(ctx, c, p.db, `select pglogical.create_subscription('bench', '`+dsn(all[1-i], p.db)+`', array['default'], false, false, '{}')`)
		if err != nil {
			return err
		}
	}
	for _, c := range all {
		err := harness.Poll(ctx, time.Minute, 50*time.Millisecond, func(ctx context.Context) (bool, string, error) {
			got, err := p.status(ctx, c)
			return got == "replicating", "pglogical at " + c.Name + " to replicate, it is " + got, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *pglogicalPair) status(ctx context.Context, c *harness.Cluster) (got string, err error) {
	err = p.rig.query(ctx, c, p.db, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `select coalesce((select status from pglogical.show_subscription_status('bench')), '')`).Scan(&got)
	})
	return got, err
}

func (p *pglogicalPair) start(context.Context) error { return nil }

func (p *pglogicalPair) alive() error { return nil }

func (p *pglogicalPair) processes() map[string]*harness.Process { return nil }

func (p *pglogicalPair) close(ctx context.Context) error {
	var errs []error
	for _, c := range p.rig.regions() {
		errs = append(errs, p.rig.removePglogical(ctx, c, p.db))
	}
	for _, c := range p.rig.regions() {
		errs = append(errs, dropSlots(ctx, p.rig, c, p.db))
	}
	return errors.Join(errs...)
}

// dropSlots drops what is left of the slots of one database.
func dropSlots(ctx context.Context, r *Rig, c *harness.Cluster, db string) error {
	var names []string
	err := r.query(ctx, c, "postgres", func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `select slot_name from pg_replication_slots where database = $1`, db)
		if err != nil {
			return err
		}
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return fmt.Errorf("list slots of %s: %w", db, err)
	}
	var errs []error
	for _, n := range names {
		errs = append(errs, dropSlot(ctx, r, c, n))
	}
	return errors.Join(errs...)
}

// nativePair is two subscriptions with origin = none, which PostgreSQL has since version 16. It resolves no conflict.
type nativePair struct {
	rig  *Rig
	db   string
	made [2]bool

	mu     sync.Mutex
	looked time.Time
	broken error
}

// nativeBothWays is the first version of the server that has origin = none.
const nativeBothWays = 16

func (n *nativePair) name() string { return n.db + "_native" }

func (n *nativePair) prepare(ctx context.Context) error {
	for _, c := range n.rig.regions() {
		if err := n.rig.exec(ctx, c, n.db, publicationSQL(Base{}.tables())); err != nil {
			return err
		}
		if err := n.rig.exec(ctx, c, n.db, `select pg_create_logical_replication_slot('`+n.name()+`', 'pgoutput')`); err != nil {
			return err
		}
	}
	all := n.rig.regions()
	for i, c := range all {
		err := n.rig.exec(ctx, c, n.db, `create subscription `+n.name()+` connection '`+dsn(all[1-i], n.db)+`' publication `+publication+
			` with (create_slot = false, slot_name = '`+n.name()+`', copy_data = false, streaming = off, origin = none)`)
		if err != nil {
			return err
		}
		n.made[i] = true
	}
	return nil
}

func (n *nativePair) start(context.Context) error { return nil }

// alive says that a worker gives up: it begins the same transaction again and again. It looks once a second.
func (n *nativePair) alive() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.broken == nil && time.Since(n.looked) > time.Second {
		n.broken, n.looked = n.look(), time.Now()
	}
	return n.broken
}

func (n *nativePair) look() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, c := range n.rig.regions() {
		var failed int
		err := n.rig.query(ctx, c, n.db, func(conn *pgx.Conn) error {
			return conn.QueryRow(ctx, `select coalesce(sum(apply_error_count), 0)::int from pg_stat_subscription_stats where subname = $1`, n.name()).Scan(&failed)
		})
		if err != nil {
			return fmt.Errorf("ask for errors of the subscription: %w", err)
		}
		if failed > 0 {
			return fmt.Errorf("the subscription at %s has stopped with an error", c.Name)
		}
	}
	return nil
}

func (n *nativePair) processes() map[string]*harness.Process { return nil }

func (n *nativePair) close(ctx context.Context) error {
	var errs []error
	for i, c := range n.rig.regions() {
		if n.made[i] {
			errs = append(errs, n.rig.exec(ctx, c, n.db, `alter subscription `+n.name()+` disable`, `alter subscription `+n.name()+` set (slot_name = none)`, `drop subscription `+n.name()))
		}
	}
	for _, c := range n.rig.regions() {
		errs = append(errs, dropSlots(ctx, n.rig, c, n.db))
	}
	return errors.Join(errs...)
}
