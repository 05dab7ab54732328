package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/fallback/auto"
	"github.com/pgwaltz/pgwaltz/internal/fallback/native"
	"github.com/pgwaltz/pgwaltz/internal/lead"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/internal/sidecar"
	"github.com/pgwaltz/pgwaltz/internal/status"
)

const (
	askPeer = 5 * time.Second // between two looks at the peer's word
	// askAgain is how long a switch that was refused waits for the next try.
	askAgain = 15 * time.Second
	// giveUp is how long a switch away may fail before the region goes back.
	giveUp = 3 * time.Minute
	// answers is how long a few questions to a database may take, the peer's or our own: what cuts a way off does not always say so.
	answers = 10 * time.Second
)

// worker is a sidecar, or a supervisor.
type worker interface {
	Run(context.Context) error
	Status() status.Status
	Register(prometheus.Collector)
}

// Auto is `pgwaltz run` with fallback configured: it runs the sidecar, or the supervisor, of the mode that is in effect, and switches between
// them as auto.Decider says. The region that applies decides; one that only publishes obeys (see fallback.AskNative). Run is called once.
type Auto struct {
	cfg      *config.Config
	log      *slog.Logger
	version  string
	decide   auto.Decider
	agrees   bool      // the peer was looked at, and is not away on our behalf
	agreed   bool      // this region has noted that it takes part
	noting   time.Time // when it tried to note that last
	hindered string    // why it could not
	began    time.Time // when this process began to switch away; zero when it is not about to
	asked    time.Time // when the peer was looked at last
	gone     time.Time // since when the peer's process does not answer; zero: it does
	looked   time.Time // when it was looked last meanwhile whether both databases are there
	tried    time.Time // when a switch was planned last
	said     string    // why the last one was refused
	switches *prometheus.CounterVec
	refused  prometheus.Gauge
}

// NewAuto prepares it; it does no I/O.
func NewAuto(cfg *config.Config, log *slog.Logger, version string) *Auto {
	a := &Auto{
		cfg: cfg, log: log, version: version, decide: auto.Decider{Limits: auto.Limits{After: cfg.Fallback.After, Back: cfg.Fallback.BackAfter}},
		switches: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pgwaltz_fallback_switches_total", Help: "Switches that this process has made by itself, by the mode that they led to."}, []string{"to"}),
		refused:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "pgwaltz_fallback_refused", Help: "1 while a switch of its own is due and cannot be made, else 0."}),
	}
	for _, m := range []config.Mode{cfg.Fallback.To, config.ModeStream} {
		a.switches.WithLabelValues(string(m))
	}
	return a
}

// Run works until the context ends, and then returns nil; an error is one that no waiting can mend.
func (a *Auto) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		row, err := a.row(ctx)
		mode := a.cfg.Mode // where the database does not answer; a sidecar looks again when it leads
		if err == nil {
			mode = fallback.InEffect(a.cfg, row)
			a.consent(ctx)
		}
		if row != nil && row.Settled {
			a.began = time.Time{}
		}
		switch {
		case row != nil && !row.Settled && !row.Auto():
			return &fallback.HalfDoneError{Mode: row.Mode}
		case row != nil && !row.Settled:
			err = a.finish(ctx, row)
		default:
			err = a.work(ctx, mode, row.Auto())
		}
		var final *finalError
		if errors.As(err, &final) {
			return final.err
		}
		if err != nil && ctx.Err() == nil {
			a.log.Warn("automatic fallback", "reason", err.Error(), "again_in", every)
			if pause.For(ctx, every) != nil {
				return nil
			}
		}
	}
	return nil
}

// row is the region's own; nil where it was never switched.
func (a *Auto) row(ctx context.Context) (*fallback.Row, error) {
	ctx, cancel := context.WithTimeout(ctx, answers)
	defer cancel()
	conn, err := pg.Connect(ctx, a.cfg.Postgres.Fresh().Reveal(), pg.Options{Region: a.cfg.Region, Role: "mode", ConnectTimeout: connecting})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
	return fallback.Load(ctx, conn, a.cfg.Region)
}

// consent notes that this region takes part. What fails is tried again; until then no peer can ask for anything.
func (a *Auto) consent(ctx context.Context) {
	if a.agreed || time.Since(a.noting) < askAgain {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, answers)
	defer cancel()
	conn, err := Connect(ctx, a.cfg)
	if err == nil {
		defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it is over
		err = fallback.Consent(ctx, conn, a.cfg.Region, a.cfg.Postgres.Fresh().User(), true)
	}
	a.noting, a.agreed = time.Now(), err == nil
	if err != nil && a.hindered != err.Error() {
		a.hindered = err.Error()
		a.log.Warn("automatic fallback is not possible", "reason", a.hindered, "remedy", "pgwaltz setup; give postgres.admin_dsn of a superuser")
	}
}

// Withdraw notes that a region without fallback in its configuration takes no part in automatic switches any more, where it once
// did. What fails is logged.
func Withdraw(ctx context.Context, cfg *config.Config, log *slog.Logger) {
	err := func() error {
		conn, err := pg.Connect(ctx, cfg.Postgres.Fresh().Reveal(), pg.Options{Region: cfg.Region, Role: "mode", ConnectTimeout: connecting})
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
		part, err := fallback.TakesPart(ctx, conn, cfg.Region)
		if err != nil || !part {
			return err
		}
		admin, err := Connect(ctx, cfg)
		if err != nil {
			return err
		}
		defer admin.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it is over
		return fallback.Consent(ctx, admin, cfg.Region, "", false)
	}()
	if err != nil {
		log.Warn("automatic fallback", "reason", err.Error())
	}
}

// work runs what the mode needs until there is another mode; an error is one of the worker.
func (a *Auto) work(ctx context.Context, mode config.Mode, byItself bool) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	w, linked, err := a.worker(running, mode, byItself)
	if err != nil {
		return &finalError{err}
	}
	w.Register(a.switches)
	w.Register(a.refused)
	a.decide.Reset()
	a.gone = time.Time{}
	done := make(chan error, 1) // room for the result, so that the goroutine ends in any case
	go func() { done <- w.Run(running) }()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			stop()
			linked.wait()
			var other *fallback.SwitchedError
			var half *fallback.HalfDoneError
			if err == nil || errors.As(err, &other) || errors.As(err, &half) {
				return nil
			}
			return &finalError{err}
		case <-tick.C:
		}
		if ctx.Err() != nil || w.Status().State == status.Standby {
			a.decide.Reset()
			continue
		}
		a.consent(running)
		to := a.turn(running, mode, byItself, linked.is())
		if to == "" {
			continue
		}
		stop()
		<-done
		linked.wait()
		if ctx.Err() != nil {
			return nil
		}
		return a.change(ctx, to)
	}
}

// worker makes what works in a mode, and what says whether the peer's process answers.
func (a *Auto) worker(ctx context.Context, mode config.Mode, byItself bool) (worker, *linked, error) {
	if mode == config.ModeStream {
		s, err := sidecar.New(a.cfg, a.log, a.version)
		if err != nil {
			return nil, nil, err
		}
		return s, &linked{ask: func() bool { return s.Linked(a.cfg.Peers[0].Region) }}, nil
	}
	s := New(a.cfg, mode, a.log, a.version)
	l := &linked{ask: func() bool { return false }}
	if byItself {
		l = a.try(ctx, func() bool { return s.Status().State != status.Standby })
	}
	return s, l, nil
}

// turn is asked every second by the process at work, and returns the mode that is due, or "".
func (a *Auto) turn(ctx context.Context, mode config.Mode, byItself, linked bool) config.Mode {
	if !a.cfg.Applies() || mode != config.ModeStream && !byItself {
		return ""
	}
	now := time.Now()
	if mode != config.ModeStream {
		due := a.decide.Away(now, linked)
		if !due && now.Sub(a.asked) > askPeer {
			due = a.peerIsBack(ctx)
		}
		if due {
			return config.ModeStream
		}
		return ""
	}
	due := a.decide.Stream(now, linked)
	if !a.agrees && now.Sub(a.asked) > askPeer {
		a.agrees = a.agree(ctx)
	}
	if linked {
		a.refused.Set(0)
		a.said, a.gone = "", time.Time{}
		return ""
	}
	if a.gone.IsZero() {
		a.gone = now
	}
	again := min(askAgain, a.cfg.Fallback.After)
	if !due {
		if now.Sub(a.looked) < again/4 {
			return ""
		}
		a.looked = now
		// Where a database comes back, its sidecar is about to: that time does not count.
		if away := a.away(ctx); away != nil {
			a.decide.Reset()
			if now.Sub(a.gone) >= a.cfg.Fallback.After {
				a.refuse(away)
			}
		}
		return ""
	}
	if now.Sub(a.tried) < again {
		return ""
	}
	a.tried = now
	why, away := a.refusal(ctx)
	if why == nil {
		a.refused.Set(0)
		a.said = ""
		return a.cfg.Fallback.To
	}
	if away {
		a.decide.Reset()
	}
	a.refuse(why)
	return ""
}

// refuse says that a switch is due and cannot be made, once for each reason.
func (a *Auto) refuse(why error) {
	a.refused.Set(1)
	if a.said != why.Error() {
		a.said = why.Error()
		a.log.Warn("the stream is impossible, and so is the fallback", "for_more_than", a.cfg.Fallback.After, "to", string(a.cfg.Fallback.To), "reason", a.said)
	}
}

// atPeer runs f in a session with the peer's database. It comes back within answers, also where nothing answers any more.
func (a *Auto) atPeer(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	a.asked = time.Now()
	p := a.cfg.Peers[0]
	ctx, cancel := context.WithTimeout(ctx, answers)
	defer cancel()
	// What waits for a lock there would go on without us, and act when it has it.
	conn, err := native.DialPeer(ctx, a.cfg, p, false, pg.Options{Region: a.cfg.Region, Role: "mode", ConnectTimeout: connecting, LockTimeout: connecting})
	if err != nil {
		return fmt.Errorf("the database of peer %s: %w", p.Region, err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it is over
	return f(ctx, conn)
}

// peerIsBack reports whether the peer is in the stream again, by a person or by itself: its sidecar waits for the slot.
func (a *Auto) peerIsBack(ctx context.Context) (back bool) {
	p := a.cfg.Peers[0].Region
	err := a.atPeer(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		asked, err := fallback.LookAsked(ctx, conn, p)
		back = err == nil && asked.Row != nil && asked.Row.Mode == config.ModeStream
		return err
	})
	if err == nil && back {
		a.log.Info("the peer has come back to the stream", "peer", p)
	}
	return err == nil && back
}

// agree reports that the peer need not be looked at again. It is called back only where this region's own row was read to say stream, and
// somebody is at work for the region: a process that could not read its row runs a sidecar as well, and would take the peer out of a mode that
// both are in.
func (a *Auto) agree(ctx context.Context) bool {
	a.asked = time.Now()
	ours, err := a.streams(ctx)
	if err != nil || !ours {
		return false
	}
	return a.callBack(ctx) == nil
}

// streams reports whether this region's database says that it streams, and that one of its sessions has the lead.
func (a *Auto) streams(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, answers)
	defer cancel()
	conn, err := pg.Connect(ctx, a.cfg.Postgres.Fresh().Reveal(), pg.Options{Region: a.cfg.Region, Role: "mode", ConnectTimeout: connecting})
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
	row, err := fallback.Load(ctx, conn, a.cfg.Region)
	if err != nil || row != nil && !row.Settled || fallback.InEffect(a.cfg, row) != config.ModeStream {
		return false, err
	}
	h, err := lead.Look(ctx, conn, a.cfg.Region)
	return err == nil && h.PID != 0, err
}

// callBack asks a peer that is away, and that this region has left behind, to come back to the stream.
func (a *Auto) callBack(ctx context.Context) error {
	p := a.cfg.Peers[0].Region
	return a.atPeer(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		asked, err := fallback.LookAsked(ctx, conn, p)
		if err != nil || !asked.May || !asked.Row.Auto() || asked.Row.Mode == config.ModeStream {
			return err
		}
		if asked.Row.By != a.cfg.Region && !asked.Row.Settled {
			return nil // it is about to ask us
		}
		a.log.Info("the peer is asked to come back to the stream", "peer", p)
		return fallback.AskStream(ctx, conn, p)
	})
}

// away is why one of the two databases cannot be reached; nil where both can.
func (a *Auto) away(ctx context.Context) error {
	if _, err := a.streams(ctx); pg.Disconnected(err) {
		return err
	}
	return a.atPeer(ctx, func(context.Context, *pgx.Conn) error { return nil })
}

// refusal is why the region cannot be switched away now; nil where it can. Nothing is changed. away: one of the two databases cannot be
// reached.
func (a *Auto) refusal(ctx context.Context) (why error, away bool) {
	findings, err := CheckFallback(ctx, a.cfg)
	if err != nil {
		return err, pg.Disconnected(err)
	}
	return findings.Err("fall back to mode " + string(a.cfg.Fallback.To)), slices.ContainsFunc(findings, func(f preflight.Finding) bool { return f.Code == "peer_unread" })
}

// CheckFallback says what stands in the way of the fallback that is configured. It changes nothing. That the peer's sidecar reads its slot is
// no hindrance: it is asked to leave it.
func CheckFallback(ctx context.Context, cfg *config.Config) (preflight.Findings, error) {
	if !cfg.Applies() {
		return nil, nil // the peer decides
	}
	conn, err := Connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
	p, err := planAuto(ctx, conn, cfg)
	if err != nil {
		return nil, err
	}
	return p.Findings, nil
}

// finish goes on with a switch that was cut off, or that the peer has asked for. How long it has failed is counted from this process's own first
// try: it may have been asked for long before, by another clock.
func (a *Auto) finish(ctx context.Context, row *fallback.Row) error {
	to := row.Mode
	if to == config.ModeStream {
		a.began = time.Time{}
	} else if !a.began.IsZero() && time.Since(a.began) > giveUp {
		a.log.Warn("the switch does not come to an end: the region goes back to the stream", "to", string(to), "since", a.began)
		to = config.ModeStream
	}
	return a.change(ctx, to)
}
