package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/fallback/native"
	"github.com/pgwaltz/pgwaltz/internal/fallback/pglogical"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/internal/sidecar"
)

// releases is how long the peer has to leave its slot: a server notices only after wal_sender_timeout (60 s unless set) that a sidecar is gone
// whose machine is.
const releases = 90 * time.Second

// change brings the region into a mode by itself. It may be repeated, and goes on where it was cut off.
func (a *Auto) change(ctx context.Context, to config.Mode) error {
	conn, err := Connect(ctx, a.cfg)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // the lead ends with the session
	if _, err := claim(ctx, conn, a.cfg, &fallback.Plan{To: to}); err != nil {
		return err
	}
	if to != config.ModeStream && a.began.IsZero() {
		a.began = time.Now()
	}
	a.log.Warn("the region is switched", "to", string(to), "region", a.cfg.Region)
	if to == config.ModeStream {
		return a.comeBack(ctx, conn)
	}
	err = a.leave(ctx, conn)
	var no *preflight.Refusal
	if errors.As(err, &no) {
		a.log.Warn("the switch is refused: the region goes back to the stream", "reason", err.Error())
		return a.comeBack(ctx, conn)
	}
	return err
}

func (a *Auto) ran(s fallback.Statement) { a.log.Info("switch", "why", s.Why) }

// leave goes away from the stream: it is noted here, the peer is asked to leave its slot, and when nobody reads that, the subscription takes it over.
func (a *Auto) leave(ctx context.Context, conn *pgx.Conn) error {
	row, err := fallback.Load(ctx, conn, a.cfg.Region)
	if err != nil {
		return err
	}
	a.agrees = false
	first := &fallback.Plan{To: a.cfg.Fallback.To}
	noted := row != nil && row.Mode == first.To && !row.Settled && row.Auto()
	by := a.cfg.Region
	if noted {
		by = row.By
	}
	first.Add(noted, "until the switch is finished no sidecar works here", fallback.BeginSQL(a.cfg.Region, first.To, by))
	if a.cfg.Applies() {
		first.Statements = append(first.Statements,
			fallback.Statement{Why: "the peer leaves its slot, now or when it starts", Shown: "-- at the peer: ask for the mode", Do: a.ask},
			fallback.Statement{Why: "nobody reads the slot", Shown: "-- at the peer: wait for the slot", Do: a.awaitSlot})
	}
	if err := first.Run(ctx, conn, a.ran); err != nil {
		return err
	}
	p, err := plan(ctx, conn, a.cfg, first.To, pglogical.Names{}, by)
	if err != nil {
		return err
	}
	if err := p.Run(ctx, conn, a.ran); err != nil {
		return err
	}
	a.counted(first.To)
	a.decide.Left(time.Now())
	return nil
}

// comeBack goes back to the stream, and asks the peer to do the same.
func (a *Auto) comeBack(ctx context.Context, conn *pgx.Conn) error {
	p, err := plan(ctx, conn, a.cfg, config.ModeStream, pglogical.Names{}, a.cfg.Region)
	if err != nil {
		return err
	}
	if err := p.Run(ctx, conn, a.ran); err != nil {
		return err
	}
	a.counted(config.ModeStream)
	if a.cfg.Applies() {
		if err := a.callBack(ctx); err != nil { // it is repeated
			a.log.Warn("the peer is not asked to come back yet", "reason", err.Error())
		} else {
			a.agrees = true
		}
	}
	return nil
}

func (a *Auto) counted(to config.Mode) {
	a.switches.WithLabelValues(string(to)).Inc()
	a.log.Warn("the region was switched", "to", string(to), "region", a.cfg.Region)
}

// ask asks the peer for the mode.
func (a *Auto) ask(ctx context.Context, _ *pgx.Conn) error {
	peer := a.cfg.Peers[0]
	return a.atPeer(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		ok, err := fallback.AskNative(ctx, conn, peer.Region, a.cfg.Region)
		if err != nil || ok {
			return err
		}
		p := &fallback.Plan{To: a.cfg.Fallback.To}
		asked, err := fallback.LookAsked(ctx, conn, peer.Region)
		if err != nil {
			return err
		}
		if asked.Refuse(p, peer); len(p.Findings) == 0 {
			p.Refuse("peer_stays", "pgwaltz mode show at region "+peer.Region, "region %s does not go to mode %s", peer.Region, p.To)
		}
		return p.Err()
	})
}

// awaitSlot waits until nobody reads the peer's slot. What else stands in the way is found by the plan that follows.
func (a *Auto) awaitSlot(ctx context.Context, conn *pgx.Conn) error {
	for end := time.Now().Add(releases); ; {
		p, err := plan(ctx, conn, a.cfg, a.cfg.Fallback.To, pglogical.Names{}, a.cfg.Region)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(p.Findings, busy) {
			return a.ask(ctx, conn) // it may have changed its mind
		}
		if time.Now().After(end) {
			return fmt.Errorf("the slot of region %s is still read after %s", a.cfg.Peers[0].Region, releases)
		}
		if err := pause.For(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

func busy(f preflight.Finding) bool { return f.Code == "slot_in_use" }

// planAuto is what a switch away would run, with what stands in its way but for the peer's sidecar. That may be at work, and this region's as well.
func planAuto(ctx context.Context, conn *pgx.Conn, cfg *config.Config) (*fallback.Plan, error) {
	_, peers, err := native.Look(ctx, conn, cfg)
	if err != nil {
		return nil, err
	}
	p, err := plan(ctx, conn, cfg, cfg.Fallback.To, pglogical.Names{}, cfg.Region)
	if err != nil {
		return nil, err
	}
	p.Findings = slices.DeleteFunc(p.Findings, busy)
	a := Auto{cfg: cfg}
	var asked fallback.Asked
	err = a.atPeer(ctx, func(ctx context.Context, there *pgx.Conn) (err error) {
		asked, err = fallback.LookAsked(ctx, there, cfg.Peers[0].Region)
		return err
	})
	if err != nil {
		p.Refuse("peer_unread", "correct peers[].dsn, or let this host in at the peer (pg_hba.conf)", "%v", err)
		return p, nil
	}
	asked.Refuse(p, cfg.Peers[0])
	for _, q := range peers {
		// The slot moves while the stream flows: where it was a moment ago is held against what is applied now.
		now, found, err := pgstore.Load(ctx, conn, q.Region)
		if err != nil {
			return nil, err
		}
		if found && q.Slot != nil && q.Slot.Active && q.Slot.ConfirmedFlushLSN <= now.EndLSN {
			p.Findings = slices.DeleteFunc(p.Findings, func(f preflight.Finding) bool { return f.Code == "only_in_stream" })
		}
		if !found {
			p.Refuse("never_streamed", "run the sidecars until this region is in step", "nothing of peer %s was ever applied here: there is no position to take its slot over at", q.Region)
		}
	}
	return p, nil
}

// linked says whether the peer's process answers by the broker.
type linked struct {
	ask func() bool
	wg  sync.WaitGroup
}

func (l *linked) is() bool { return l.ask() }

// wait returns when nothing of it runs any more; its context has ended.
func (l *linked) wait() { l.wg.Wait() }

// try keeps a broker at work, beside a mode that needs none, so that both regions find out when the stream is possible again. It runs in the
// process that is at work, until ctx ends: its store belongs to one process.
func (a *Auto) try(ctx context.Context, atWork func() bool) *linked {
	var now atomic.Pointer[broker.Broker]
	l := &linked{ask: func() bool {
		b := now.Load()
		return b != nil && b.PeerReachable(a.cfg.Peers[0].Region)
	}}
	once := func() error {
		c, err := sidecar.LinkConfig(a.cfg)
		if err != nil {
			return err
		}
		b, err := broker.New(c)
		if err != nil {
			return err
		}
		if err := b.Start(ctx); err != nil {
			return err
		}
		defer b.Close()
		now.Store(b)
		defer now.Store(nil)
		for atWork() {
			if err := pause.For(ctx, every); err != nil {
				return err
			}
		}
		return nil
	}
	l.wg.Go(func() {
		for ctx.Err() == nil {
			if atWork() {
				if err := once(); err != nil && ctx.Err() == nil {
					a.log.Debug("the way to the peer is tried", "reason", err.Error())
				}
			}
			if pause.For(ctx, 2*every) != nil {
				return
			}
		}
	})
	return l
}
