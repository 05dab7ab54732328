package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// patience is how long both regions may take to be in step, on a busy machine.
const patience = 10 * time.Minute

// trial is one run: a layout with a role and an identity.
type trial struct {
	o                      options
	layout, role, identity string
	out                    io.Writer

	fleet *harness.Fleet
	began time.Time
}

func (r *trial) say(format string, args ...any) {
	fmt.Fprintf(r.out, "%6.1fs  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

func (r *trial) run(ctx context.Context, sources []source) (err error) {
	r.began = time.Now()
	r.fleet, err = harness.NewFleet(harness.ClusterConfig{Settings: map[string]string{
		"max_connections": "200", "max_locks_per_transaction": "256", "max_wal_size": "'2GB'",
	}})
	if err != nil {
		return err
	}
	defer r.fleet.Close()
	groups := map[string][]source{"all": sources}
	order := []string{"all"}
	if r.layout == "five" {
		groups, order = map[string][]source{}, nil
		for _, s := range sources {
			groups[s.name], order = []source{s}, append(order, s.name)
		}
	}
	var sites []*site
	defer func() {
		for _, s := range sites {
			if err != nil && r.o.keep {
				r.keepLogs(s)
			}
			s.pair.Close()
		}
	}()
	for _, name := range order {
		s, err := r.newSite(ctx, name, groups[name])
		if s != nil {
			sites = append(sites, s)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, step := range []struct {
		name string
		do   func(context.Context, *site) error
	}{
		{"load the schema", (*trial).loaded(r)},
		{"write what the first copy has to merge", each((*site).before)},
		{"ask check, follow it, set up", r.setUp},
		{"start", each((*site).start)},
		{"the first copy", each((*site).inStep)},
		{"write with the link up", each((*site).linked)},
		{"write while the link is cut", each((*site).cut)},
		{"write in both regions at once", each((*site).atOnce)},
		{"compare", r.compare},
	} {
		for _, s := range sites {
			if err := step.do(ctx, s); err != nil {
				return errors.Join(fmt.Errorf("%s: %s: %w", s.name, step.name, err), ctx.Err())
			}
		}
		r.say("%s", step.name)
	}
	return nil
}

func each(do func(*site, context.Context) error) func(context.Context, *site) error {
	return func(ctx context.Context, s *site) error { return do(s, ctx) }
}

// keepLogs copies the folder of a pair, which goes when the pair is closed.
func (r *trial) keepLogs(s *site) {
	dir, err := os.MkdirTemp("", "schemas-logs-")
	if err == nil {
		err = os.CopyFS(dir, os.DirFS(s.pair.Dir()))
	}
	if err != nil {
		r.say("keep logs of %s: %v", s.name, err)
		return
	}
	r.say("logs of %s: %s", s.name, dir)
}
