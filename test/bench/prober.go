package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	probeRate = 25          // rows per second that a prober writes
	probeIDs  = 100_000_000 // each prober has as many ids

	napShortest = 150 * time.Microsecond
	napLongest  = 3 * time.Millisecond
	napShare    = 4 // a nap is this part of what was waited so far
)

// prober writes rows in one region at a fixed pace, whether or not those before have arrived, and looks for them in the
// other one. It looks only while one is under way, and the longer it waits the more seldom, so that it takes little of
// the CPU that is measured. Both ends of a figure are times of servers on the same machine: the commit at the source
// (before its fsync), and the middle between the last look that did not find the row and the one that did.
type prober struct {
	src, dst *pgx.Conn
	first    int64        // the ids of its rows are above this
	alive    func() error // whether waiting on makes sense
}

// sighting is when a row was looked for in vain for the last time, and when it was there.
type sighting struct{ missed, seen time.Time }

// run probes for span and then waits until the last row has arrived, no longer than limit. Rows of the first moments,
// settle, are not counted. Rows that did not arrive are counted as lost.
func (p *prober) run(ctx context.Context, span, settle, limit time.Duration) (*Latencies, error) {
	var written atomic.Int64
	wrote := make(chan struct{}, 1)
	ended := make(chan error, 1) // one result, so that the goroutine ends in any case
	writing, stop := context.WithCancel(ctx)
	defer stop()
	go func() { ended <- p.write(writing, span, &written, wrote) }()
	sightings, err := p.watch(ctx, &written, wrote, ended, limit)
	if err != nil {
		return nil, err
	}
	return p.latencies(ctx, sightings, int(written.Load()), settle)
}

// write inserts a row at every tick.
func (p *prober) write(ctx context.Context, span time.Duration, written *atomic.Int64, wrote chan<- struct{}) error {
	tick := time.NewTicker(time.Second / probeRate)
	defer tick.Stop()
	for begin := time.Now(); time.Since(begin) < span; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if _, err := p.src.Exec(ctx, `insert into mark (id) values ($1)`, p.first+written.Load()+1); err != nil {
			return fmt.Errorf("insert probe: %w", err)
		}
		written.Add(1)
		select {
		case wrote <- struct{}{}:
		default:
		}
	}
	return nil
}

// watch looks for the rows until the writer has ended and all have arrived.
func (p *prober) watch(ctx context.Context, written *atomic.Int64, wrote <-chan struct{}, ended <-chan error, limit time.Duration) ([]sighting, error) {
	var out []sighting
	var missed, deadline, since time.Time // since: the oldest row that is under way was first waited for
	over := false
	for {
		if int64(len(out)) == written.Load() {
			if over {
				return out, nil
			}
			since = time.Time{}
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case err := <-ended:
				if err != nil {
					return nil, err
				}
				over, deadline = true, time.Now().Add(limit)
				continue
			case <-wrote:
			}
		}
		if since.IsZero() {
			since = time.Now()
		}
		if !over {
			select {
			case err := <-ended:
				if err != nil {
					return nil, err
				}
				over, deadline = true, time.Now().Add(limit)
			default:
			}
		}
		var now time.Time
		var newest int64
		if err := p.dst.QueryRow(ctx, `select clock_timestamp(), coalesce(max(id), $1) from mark where id > $1 and id <= $2`, p.first, p.first+probeIDs-1).Scan(&now, &newest); err != nil {
			return nil, fmt.Errorf("look for probes: %w", err)
		}
		if n := newest - p.first; n > int64(len(out)) {
			for int64(len(out)) < n {
				out = append(out, sighting{missed, now})
			}
			missed, since = now, time.Now()
			continue
		}
		missed = now
		if over && (time.Now().After(deadline) || p.alive() != nil) {
			return out, nil // what is left is lost
		}
		if err := nap(max(min(time.Since(since)/napShare, napLongest), napShortest)); err != nil {
			return nil, err
		}
	}
}

// nap waits some microseconds. A timer of Go takes a millisecond at least when nothing else runs.
func nap(d time.Duration) error {
	left := syscall.NsecToTimespec(d.Nanoseconds())
	for {
		err := syscall.Nanosleep(&left, &left)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// latencies asks the source when it committed each row.
func (p *prober) latencies(ctx context.Context, sightings []sighting, written int, settle time.Duration) (*Latencies, error) {
	rows, err := p.src.Query(ctx, `select id, pg_xact_commit_timestamp(xmin) from mark where id > $1 and id <= $1 + $2 order by id`, p.first, written)
	if err != nil {
		return nil, fmt.Errorf("read commit times of probes: %w", err)
	}
	var all []float64
	var begin, committed time.Time
	var id int64
	_, err = pgx.ForEachRow(rows, []any{&id, &committed}, func() error {
		if begin.IsZero() {
			begin = committed
		}
		if i := id - p.first - 1; i < int64(len(sightings)) && committed.Sub(begin) >= settle {
			all = append(all, sightings[i].since(committed))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read commit times of probes: %w", err)
	}
	l := percentiles(all)
	l.Lost = written - len(sightings)
	return l, nil
}

// since is the milliseconds from a commit until the row was there.
func (s sighting) since(committed time.Time) float64 {
	low := s.missed
	if low.Before(committed) {
		low = committed
	}
	middle := low.Add(s.seen.Sub(low) / 2)
	return float64(middle.Sub(committed).Microseconds()) / 1000
}

func percentiles(v []float64) *Latencies {
	if len(v) == 0 {
		return &Latencies{}
	}
	slices.Sort(v)
	at := func(p float64) float64 { return v[min(int(p*float64(len(v))), len(v)-1)] }
	return &Latencies{Probes: len(v), P50: at(0.5), P95: at(0.95), P99: at(0.99), Max: v[len(v)-1]}
}
