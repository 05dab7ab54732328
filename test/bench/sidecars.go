package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
	"github.com/pgwaltz/pgwaltz/test/harness"
)

// sidecars is pgwaltz: one process that publishes, one by target that applies, each with its embedded
// NATS server, linked over loopback. JetStream syncs every message, frames carry chain and
// checksum, conflicts are detected, audited and checkpointed: the defaults.
type sidecars struct {
	site
	name   string
	room   *harness.Room
	src    *harness.Sidecar
	dst    []*harness.Sidecar // one by target
	holder *pgconn.PgConn
	made   bool
}

func (p *sidecars) Name() string { return p.name }

func (p *sidecars) slot() string { return "bench_" + p.name }

func (p *sidecars) Slots() []string { return []string{p.slot()} }

// region is the name of a peer.
func (p *sidecars) region(peer int) string {
	if peer == 0 {
		return "dst"
	}
	return fmt.Sprintf("dst%d", peer+1)
}

func (p *sidecars) Prepare(ctx context.Context) (err error) {
	if err := harness.UseProduct(p.binary); err != nil {
		return err
	}
	// Below the rig's room, so that one folder holds everything of a run.
	p.room = &harness.Room{Dir: filepath.Join(p.rig.Room.Dir, p.target)}
	port, err := pgcluster.FreePort()
	if err != nil {
		return err
	}
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	var tables []any
	for _, t := range p.tables {
		tables = append(tables, "public."+t)
	}
	common := func(region, dsn string, peers ...string) map[string]any {
		var list []any
		for _, r := range peers {
			list = append(list, map[string]any{"region": r})
		}
		return map[string]any{
			"cluster": "bench", "region": region, "postgres.dsn": dsn, "replica_identity": "keep", "copy.mode": "off",
			"peers": list, "tables.include": tables,
			"nats.store_dir": filepath.Join(p.room.Dir, region, "nats"), "log.level": "info",
		}
	}
	var regions []string
	for i := range p.targets() {
		regions = append(regions, p.region(i))
	}
	a := common("src", dsn(p.rig.Source, p.source), regions...)
	a["direction"], a["postgres.slot"], a["postgres.publication"], a["nats.listen"] = "publish", p.slot(), publication, listen
	if p.fill {
		// A publication that setup makes is copied.
		a["postgres.publication"], a["copy.mode"] = "bench_fill", "auto"
	}
	if p.both {
		delete(a, "direction")
	}
	if p.src, err = harness.NewSidecar(p.room, "src", "src", a); err != nil {
		return err
	}
	for i, t := range p.targets() {
		b := common(regions[i], dsn(t.c, t.db), "src")
		b["direction"], b["nats.dial"] = "apply", []any{"nats-leaf://" + listen}
		if p.both {
			delete(b, "direction")
			b["postgres.slot"] = p.backSlot()
		}
		s, err := harness.NewSidecar(p.room, regions[i], regions[i], b)
		if err != nil {
			return err
		}
		p.dst = append(p.dst, s)
	}
	for _, s := range p.all() {
		for k, v := range p.set {
			if err := s.SetText(k, v); err != nil {
				return err
			}
		}
	}
	p.made = true
	if !p.fill { // where the publication is made by setup, the slot has to come behind it
		if err := p.rig.exec(ctx, p.rig.Source, p.source, `select pg_create_logical_replication_slot('`+p.slot()+`', 'pgoutput')`); err != nil {
			return err
		}
	}
	return p.each(func(s *harness.Sidecar) error { return s.Setup(ctx) })
}

// all are the sidecars that there are so far.
func (p *sidecars) all() []*harness.Sidecar {
	if p.src == nil {
		return nil
	}
	return append([]*harness.Sidecar{p.src}, p.dst...)
}

func (p *sidecars) each(do func(*harness.Sidecar) error) error {
	var errs []error
	for _, s := range p.all() {
		errs = append(errs, do(s))
	}
	return errors.Join(errs...)
}

// Arm starts both processes while the slot is kept busy: they link up and wait for it.
func (p *sidecars) Arm(ctx context.Context) error {
	if err := p.hold(ctx); err != nil {
		return err
	}
	if err := errors.Join(harness.UseProduct(p.binary), p.each((*harness.Sidecar).Start)); err != nil {
		return err
	}
	return harness.Poll(ctx, 30*time.Second, 50*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		if err := p.Alive(); err != nil {
			return false, "", err
		}
		a, err := p.src.Status(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		if a.Outbound == nil || len(a.Outbound.Peers) < len(p.dst) {
			return false, "the source's sidecar to know its peers", nil
		}
		for _, peer := range a.Outbound.Peers {
			if !peer.Reachable {
				return false, "the source's sidecar to see its peers", nil
			}
		}
		for _, s := range p.dst {
			b, err := s.Status(ctx)
			if err != nil {
				return false, err.Error(), nil
			}
			if len(b.Inbound) == 0 {
				return false, "the target's sidecar to name its origin", nil
			}
		}
		return true, "", nil
	})
}

// hold takes the slot and does not read it: its walsender fills one socket buffer and waits.
func (p *sidecars) hold(ctx context.Context) error {
	conn, err := pgconn.Connect(ctx, dsn(p.rig.Source, p.source)+" replication=database application_name=bench_holder")
	if err != nil {
		return fmt.Errorf("connect to hold the slot: %w", err)
	}
	p.holder = conn
	conn.Frontend().SendQuery(&pgproto3.Query{String: `START_REPLICATION SLOT ` + p.slot() + ` LOGICAL 0/0 (proto_version '1', publication_names '` + publication + `')`})
	if err := conn.Frontend().Flush(); err != nil {
		return fmt.Errorf("hold the slot: %w", err)
	}
	for {
		msg, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return fmt.Errorf("hold the slot: %w", err)
		}
		switch m := msg.(type) {
		case *pgproto3.CopyBothResponse:
			return nil
		case *pgproto3.ErrorResponse:
			return fmt.Errorf("hold the slot: %w", pgconn.ErrorResponseToPgError(m))
		}
	}
}

// backSlot is the slot of the other direction.
func (p *sidecars) backSlot() string { return p.slot() + "_back" }

func (p *sidecars) Holder() uint32 {
	if p.holder == nil {
		return 0
	}
	return p.holder.PID()
}

func (p *sidecars) Release(ctx context.Context) error {
	// The socket goes first: a walsender that is full cannot even say that it was terminated.
	_ = p.holder.Conn().Close()
	return p.rig.exec(ctx, p.rig.Source, "postgres", fmt.Sprintf(`select pg_terminate_backend(%d)`, p.holder.PID()))
}

func (p *sidecars) Alive() error {
	for _, s := range p.all() {
		if proc := s.Process(); proc != nil && !proc.Running() {
			return fmt.Errorf("sidecar %s ended with code %d: %s", s.Region, proc.ExitCode(), harness.TailFile(s.LogPath, 4))
		}
	}
	return nil
}

func (p *sidecars) Sidecars() map[string]*harness.Process {
	out := map[string]*harness.Process{"publish": p.src.Process()}
	for i, s := range p.dst {
		name := "apply"
		if i > 0 {
			name += strconv.Itoa(i + 1)
		}
		out[name] = s.Process()
	}
	return out
}

func (p *sidecars) Close(ctx context.Context) error {
	var errs []error
	for _, s := range p.all() {
		if s != nil && s.Running() {
			if _, err := s.Stop(ctx, 15*time.Second); err != nil {
				errs = append(errs, err)
				s.Kill()
			}
		}
	}
	if p.holder != nil {
		_ = p.holder.Close(ctx) // the server has ended it
	}
	if p.made {
		errs = append(errs, dropSlot(ctx, p.rig, p.rig.Source, p.slot()))
		if p.both {
			errs = append(errs, dropSlot(ctx, p.rig, p.rig.Target, p.backSlot()))
		}
	}
	if p.room != nil && !p.rig.keep {
		errs = append(errs, p.room.Close())
	}
	return errors.Join(errs...)
}
