package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/wal"
)

type peer = status.Peer

// MarkPrefix is the prefix of the logical message that WaitInStep writes: a transaction
// that changes no row but still has a position that must reach the peer.
const MarkPrefix = "pgwaltz.sync"

// WaitInStep waits until everything committed so far in both regions is applied in the
// other one, and until what that caused in turn (pushed-back rows) has come back. It
// waits for positions, never for time.
func (p *Pair) WaitInStep(ctx context.Context, limit time.Duration) error {
	end := time.Now().Add(limit)
	before := ""
	for round := 1; ; round++ {
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("wait for both regions to be in step (round %d): %w", round, ErrTimeout)
		}
		if err := p.round(ctx, left); err != nil {
			return err
		}
		now, err := p.progress(ctx)
		if err != nil {
			return err
		}
		if round >= 2 && now == before {
			return nil
		}
		before = now
	}
}

// Cross waits until everything committed so far in both regions is applied in the other
// one, whatever is written meanwhile.
func (p *Pair) Cross(ctx context.Context, limit time.Duration) error { return p.round(ctx, limit) }

// round marks the logs of both regions and waits until both marks are applied.
func (p *Pair) round(ctx context.Context, limit time.Duration) error {
	marks := map[*Region]wal.LSN{}
	for _, r := range p.Regions() {
		if err := p.copied(ctx, r, limit); err != nil {
			return err
		}
	}
	for _, r := range p.Regions() {
		lsn, err := p.mark(ctx, r, limit)
		if err != nil {
			return err
		}
		marks[r] = lsn
	}
	err := Poll(ctx, limit, 20*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		for _, r := range p.Regions() {
			if ok, why, err := p.reached(ctx, r, marks[r]); err != nil || !ok {
				return false, why, err
			}
		}
		return true, "", nil
	})
	if err != nil {
		return err
	}
	for _, r := range p.Regions() {
		if err := p.stamped(ctx, r, limit); err != nil {
			return err
		}
	}
	return nil
}

// stamped waits, for a minute at most, until no change is set aside that waits for own changes of the region to be
// merged (PW005). No position shows that, and it ends by itself.
func (p *Pair) stamped(ctx context.Context, r *Region, limit time.Duration) error {
	err := Poll(ctx, min(limit, time.Minute), 100*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		c, err := r.Cluster.Connect(ctx, r.Database)
		if err != nil {
			return false, "cluster " + r.Side + ": " + err.Error(), nil
		}
		defer c.Close(ctx)
		var some bool
		if err := c.QueryRow(ctx, `select exists (select from pgwaltz.parked where sqlstate = 'PW005')`).Scan(&some); err != nil {
			return true, "", nil // the product keeps no such table here
		}
		return !some, "changes in " + r.Side + " wait for own ones", nil
	})
	if errors.Is(err, ErrTimeout) {
		return nil
	}
	return err
}

// copied waits until no table of the region waits for its copy. It asks the database: a
// request that was made a moment ago is there before the sidecar has seen it.
func (p *Pair) copied(ctx context.Context, r *Region, limit time.Duration) error {
	return Poll(ctx, limit, 100*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		if !r.alive() {
			return true, "", nil // what follows says so
		}
		c, err := r.Cluster.Connect(ctx, r.Database)
		if err != nil {
			return false, "cluster " + r.Side + ": " + err.Error(), nil
		}
		defer c.Close(ctx)
		var left string
		err = c.QueryRow(ctx, `select coalesce(string_agg(schema_name || '.' || table_name || ' ' || state, ', '), '') from pgwaltz.copy where state in ('pending', 'running')`).Scan(&left)
		if err != nil {
			return true, "", nil // the product keeps no such table here
		}
		return left == "", "copies out of " + r.Side + ": " + left, nil
	})
}

// mark writes a logical message and returns its position. Everything that committed
// before has a lower position, and the message's own commit a higher one.
func (p *Pair) mark(ctx context.Context, r *Region, limit time.Duration) (wal.LSN, error) {
	var lsn wal.LSN
	err := Poll(ctx, limit, 50*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		c, err := r.Cluster.Connect(ctx, r.Database)
		if err != nil {
			return false, "cluster " + r.Side + ": " + err.Error(), nil
		}
		defer c.Close(ctx)
		var text string
		if err := c.QueryRow(ctx, `select pg_logical_emit_message(true, $1, '')::text`, MarkPrefix).Scan(&text); err != nil {
			return false, "cluster " + r.Side + ": " + err.Error(), nil
		}
		lsn, err = wal.ParseLSN(text)
		return err == nil, "", err
	})
	return lsn, err
}

func (p *Pair) reached(ctx context.Context, r *Region, mark wal.LSN) (bool, string, error) {
	for _, x := range p.Regions() {
		if !x.alive() {
			return false, "", fmt.Errorf("wait for both regions: sidecar %s does not run (code %d): %s", x.Side, x.Sidecar.exitCode(), TailFile(x.Sidecar.LogPath, 3))
		}
	}
	st, err := r.active(ctx)
	if err != nil {
		return false, err.Error(), nil
	}
	for _, c := range st.Copy {
		if c.State == "pending" || c.State == "running" || c.State == "failed" {
			return false, fmt.Sprintf("copy of %s into %s (%s)", c.Table, r.Side, c.State), nil
		}
	}
	if st.Outbound == nil || len(st.Outbound.Peers) == 0 {
		return false, "sidecar " + r.Side + " to name its peer", nil
	}
	for _, x := range st.Outbound.Peers {
		applied, err := wal.ParseLSN(x.AppliedLSN)
		if err != nil || applied <= mark {
			return false, fmt.Sprintf("%s's position %s to be applied in %s, which is at %q (outbound %s, %s)", r.Side, mark, x.Region, x.AppliedLSN, st.Outbound.State, describeInbound(st)), nil
		}
	}
	return true, "", nil
}

func describeInbound(st *status.Status) string {
	var parts []string
	for _, in := range st.Inbound {
		s := "inbound from " + in.Origin + " " + string(in.State)
		if in.Reason != "" {
			s += ": " + in.Reason
		}
		if in.LastError != nil {
			s += ", last error " + in.LastError.SQLState + " " + in.LastError.Message
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, "; ")
}

// progress is a fingerprint of what both sidecars have applied; it stands still when
// nothing moves between the regions any more.
func (p *Pair) progress(ctx context.Context) (string, error) {
	text := ""
	for _, r := range p.Regions() {
		st, err := r.active(ctx)
		if err != nil {
			return "", err
		}
		for _, in := range st.Inbound {
			text += fmt.Sprintf("%s<%s %d %d;", r.Side, in.Origin, in.Rows, in.Parked)
		}
		text += fmt.Sprintf("%d;", st.Conflicts.Total)
	}
	return text, nil
}

// alive reports whether a sidecar of the region runs or its death is being repaired.
func (r *Region) alive() bool {
	return r.Sidecar.Running() || r.Sidecar.Reviving() || (r.Standby != nil && r.Standby.Running())
}

// active is the status of the region's sidecar that is at work: the standby's when the
// first one is gone or waits.
func (r *Region) active(ctx context.Context) (*status.Status, error) {
	st, err := r.Sidecar.Status(ctx)
	if r.Standby != nil && r.Standby.Running() && (err != nil || st.State == status.Standby) {
		return r.Standby.Status(ctx)
	}
	return st, err
}

func (s *Sidecar) exitCode() int {
	if p := s.Process(); p != nil {
		return p.ExitCode()
	}
	return -1
}

// TailFile returns the last lines of a file, for error messages.
func TailFile(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "(no log)"
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, " ⏎ ")
}
