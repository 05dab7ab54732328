package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// pglogical is the extension with conflict_resolution = last_update_wins.
type pglogical struct {
	inside
	site
	slot string
}

func (p *pglogical) Name() string { return "pglogical" }

func (p *pglogical) Slots() []string { return []string{p.slot} }

func (p *pglogical) Prepare(ctx context.Context) error {
	err := p.rig.exec(ctx, p.rig.Source, p.source, `create extension pglogical`,
		`select pglogical.create_node('src', '`+dsn(p.rig.Source, p.source)+`')`,
		`select pglogical.replication_set_add_table('default', t, false) from unnest('{`+strings.Join(p.tables, ",")+`}'::regclass[]) t`)
	if err != nil {
		return err
	}
	err = p.rig.exec(ctx, p.rig.Target, p.target, `create extension pglogical`,
		`select pglogical.create_node('dst', '`+dsn(p.rig.Target, p.target)+`')`,
		`select pglogical.create_subscription('bench', '`+dsn(p.rig.Source, p.source)+`', array['default'], false, false, '{}')`)
	if err != nil {
		return err
	}
	// Its worker makes the slot. Once it replicates it is sent to rest until Release.
	if err := p.await(ctx, `select coalesce((select status from pglogical.show_subscription_status('bench')), '')`, "replicating"); err != nil {
		return err
	}
	if err := p.rig.exec(ctx, p.rig.Target, p.target, `select pglogical.alter_subscription_disable('bench', true)`); err != nil {
		return err
	}
	conn, err := p.rig.connect(ctx, p.rig.Source, p.source)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return harness.Poll(ctx, 30*time.Second, 50*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		var active bool
		err := conn.QueryRow(ctx, `select slot_name::text, active from pg_replication_slots where database = current_database() and plugin = 'pglogical_output'`).Scan(&p.slot, &active)
		if err != nil {
			return false, "", fmt.Errorf("find pglogical's slot: %w", err)
		}
		return !active, "pglogical to leave its slot", nil
	})
}

func (p *pglogical) await(ctx context.Context, query, want string) error {
	conn, err := p.rig.connect(ctx, p.rig.Target, p.target)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return harness.Poll(ctx, 60*time.Second, 50*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		var got string
		if err := conn.QueryRow(ctx, query).Scan(&got); err != nil {
			return false, "", err
		}
		return got == want, "pglogical to be " + want + ", it is " + got, nil
	})
}

func (p *pglogical) Release(ctx context.Context) error {
	return p.rig.exec(ctx, p.rig.Target, p.target, `select pglogical.alter_subscription_enable('bench', true)`)
}

// removePglogical drops the extension. Its workers are still busy in the tables that go: a deadlock
// with them is tried again.
func (r *Rig) removePglogical(ctx context.Context, c *harness.Cluster, database string) error {
	return harness.Poll(ctx, 15*time.Second, 200*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		err := r.exec(ctx, c, database, `set lock_timeout = '5s'`, `do $$ begin
  if to_regclass('pglogical.subscription') is not null then perform pglogical.drop_subscription(sub_name, true) from pglogical.subscription; end if;
end $$`, `drop extension if exists pglogical cascade`)
		if err != nil {
			return false, err.Error(), nil
		}
		return true, "", nil
	})
}

func (p *pglogical) Close(ctx context.Context) error {
	return errors.Join(
		p.rig.removePglogical(ctx, p.rig.Target, p.target),
		dropSlot(ctx, p.rig, p.rig.Source, p.slot),
		p.rig.removePglogical(ctx, p.rig.Source, p.source))
}
