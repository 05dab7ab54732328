package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/admin"
	"github.com/pgwaltz/pgwaltz/wal"
)

const drainLimit = 90 * time.Second

// drain waits until everything that was committed so far is applied at the peer, both ways,
// and what the merge itself sent back is applied too. It knows by position: each region
// commits a mark, and order is kept, so a mark that is visible at the peer has everything
// before it applied; the sidecar's checkpoint must say the same. The second round takes
// along what the first one made the peers send. Then the tables must become equal.
func (d *demo) drain(ctx context.Context) ([]tableResult, error) {
	ctx, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	for range 2 {
		if err := d.round(ctx); err != nil {
			return nil, fmt.Errorf("drain: %w", err)
		}
	}
	for {
		results, err := compare(ctx, d.regions)
		if err != nil || allEqual(results) {
			return results, err
		}
		// Different after two rounds: either late, or wrong. Give it the rest of ten seconds
		// in further rounds before calling it wrong.
		if d.unequalSince.IsZero() {
			d.unequalSince = time.Now()
		} else if time.Since(d.unequalSince) > 10*time.Second {
			return results, nil
		}
		if err := d.round(ctx); err != nil {
			return nil, fmt.Errorf("drain: %w", err)
		}
	}
}

// round sends a mark each way and waits for both.
func (d *demo) round(ctx context.Context) error {
	var marks [2]string
	var positions [2]wal.LSN
	for i, r := range d.regions {
		var err error
		if marks[i], positions[i], err = d.mark(ctx, i); err != nil {
			return fmt.Errorf("mark region %s: %w", r.name, err)
		}
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i, r := range d.regions {
		peer := d.regions[1-i]
		for {
			there, err := d.arrived(ctx, peer, i, marks[i], r.name, positions[i])
			if err != nil && ctx.Err() == nil {
				return err
			}
			if there {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for %s in region %s: %w", r.name, peer.name, context.Cause(ctx))
			case <-r.sidecar.exited:
				return r.sidecar.died()
			case <-peer.sidecar.exited:
				return peer.sidecar.died()
			case <-tick.C:
			}
		}
	}
	return nil
}

// mark updates the region's own mark row and returns the write id and a position of the WAL
// that lies before the commit.
func (d *demo) mark(ctx context.Context, i int) (string, wal.LSN, error) {
	var text string
	if err := d.regions[i].pool.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text`).Scan(&text); err != nil {
		return "", 0, err
	}
	position, err := wal.ParseLSN(text)
	if err != nil {
		return "", 0, err
	}
	r := d.regions[i]
	w := write{id: d.ledger.id(r.name), key: d.marks[i], region: r.name}
	err = r.pool.QueryRow(ctx, updateUserSQL, w.key, w.id, 0).Scan(&w.prev)
	if w.outcome = outcomeOf(err); err != nil {
		d.ledger.note(w)
		return "", 0, err
	}
	d.ledger.note(w)
	return w.id, position, nil
}

// arrived reports whether the mark is visible at the peer and its checkpoint covers it.
func (d *demo) arrived(ctx context.Context, peer *region, i int, mark, origin string, position wal.LSN) (bool, error) {
	var there bool
	if err := peer.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM users WHERE uuid = $1 AND groups->>0 = $2)`, d.marks[i], mark).Scan(&there); err != nil || !there {
		return false, err
	}
	st, err := admin.Fetch(ctx, peer.http)
	if err != nil {
		return false, nil // asked again
	}
	in := inbound(st, origin)
	if in == nil {
		return false, nil
	}
	applied, err := wal.ParseLSN(in.EndLSN)
	return err == nil && applied >= position, nil
}
