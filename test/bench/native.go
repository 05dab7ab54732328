package main

import (
	"context"
	"errors"
	"fmt"
)

// native is CREATE SUBSCRIPTION with streaming off.
type native struct {
	inside
	site
	made int // of how many targets
}

func (n *native) Name() string { return "native" }

// slot is the name of one peer's slot, and of its subscription.
func (n *native) slot(peer int) string {
	if peer == 0 {
		return "bench_native"
	}
	return fmt.Sprintf("bench_native%d", peer+1)
}

func (n *native) Slots() []string {
	var out []string
	for i := range n.targets() {
		out = append(out, n.slot(i))
	}
	return out
}

func (n *native) Prepare(ctx context.Context) error {
	for i, t := range n.targets() {
		if err := n.rig.exec(ctx, n.rig.Source, n.source, `select pg_create_logical_replication_slot('`+n.slot(i)+`', 'pgoutput')`); err != nil {
			return err
		}
		n.made++
		if n.fill {
			continue
		}
		if err := n.rig.exec(ctx, t.c, t.db, n.subscribe(i)+`enabled = false, copy_data = false)`); err != nil {
			return err
		}
	}
	return nil
}

// subscribe is the statement for one peer, open for more options.
func (n *native) subscribe(peer int) string {
	return `create subscription ` + n.slot(peer) + ` connection '` + dsn(n.rig.Source, n.source) + `' publication ` + publication +
		` with (create_slot = false, slot_name = '` + n.slot(peer) + `', streaming = off, `
}

func (n *native) Release(ctx context.Context) error {
	for i, t := range n.targets() {
		sql := `alter subscription ` + n.slot(i) + ` enable`
		if n.fill {
			sql = n.subscribe(i) + `copy_data = true)`
		}
		if err := n.rig.exec(ctx, t.c, t.db, sql); err != nil {
			return err
		}
	}
	return nil
}

func (n *native) Close(ctx context.Context) error {
	var errs []error
	for i := range n.made {
		t := n.targets()[i]
		errs = append(errs, n.rig.exec(ctx, t.c, t.db,
			`alter subscription `+n.slot(i)+` disable`, `alter subscription `+n.slot(i)+` set (slot_name = none)`, `drop subscription `+n.slot(i)),
			dropSlot(ctx, n.rig, n.rig.Source, n.slot(i)))
	}
	return errors.Join(errs...)
}
