package main

import (
	"context"
	"errors"
)

// native is CREATE SUBSCRIPTION with streaming off.
type native struct {
	inside
	site
	made bool
}

const nativeSlot = "bench_native"

func (n *native) Name() string { return "native" }

func (n *native) Slot() string { return nativeSlot }

func (n *native) Prepare(ctx context.Context) error {
	if err := n.rig.exec(ctx, n.rig.Source, n.source, `select pg_create_logical_replication_slot('`+nativeSlot+`', 'pgoutput')`); err != nil {
		return err
	}
	n.made = true
	if n.fill {
		return nil
	}
	return n.rig.exec(ctx, n.rig.Target, n.target, `create subscription bench_native connection '`+dsn(n.rig.Source, n.source)+
		`' publication `+publication+` with (enabled = false, create_slot = false, slot_name = '`+nativeSlot+`', copy_data = false, streaming = off)`)
}

func (n *native) Release(ctx context.Context) error {
	if n.fill {
		return n.rig.exec(ctx, n.rig.Target, n.target, `create subscription bench_native connection '`+dsn(n.rig.Source, n.source)+
			`' publication `+publication+` with (create_slot = false, slot_name = '`+nativeSlot+`', copy_data = true, streaming = off)`)
	}
	return n.rig.exec(ctx, n.rig.Target, n.target, `alter subscription bench_native enable`)
}

func (n *native) Close(ctx context.Context) error {
	if !n.made {
		return nil
	}
	return errors.Join(n.rig.exec(ctx, n.rig.Target, n.target,
		`alter subscription bench_native disable`, `alter subscription bench_native set (slot_name = none)`, `drop subscription bench_native`),
		dropSlot(ctx, n.rig, n.rig.Source, nativeSlot))
}
