package cutover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// Pausing is what PauseWrite is told.
type Pausing struct {
	Source, Destination string // who the two ends have to be
	Except              []string
	Connect             bool
	Grace               time.Duration // for transactions that are open
	Timeout             time.Duration // until nothing of before is open
	Hold                time.Duration // until writes are given back by themselves
}

func (e *Ends) options(p Pausing) hold.Options {
	return hold.Options{Region: e.Source.Region, Peer: e.Destination.Region, Source: e.Source.ID(), Destination: e.Destination.ID(),
		Ours: e.Source.Ours, Except: append([]string{}, p.Except...), Connect: p.Connect, Hold: p.Hold}
}

// Report is what Plan found.
type Report struct {
	State     *hold.State
	Pause     *hold.Pause // nil while writes are paused
	Sequences []Sequence
	Findings  preflight.Findings
}

// Plan finds out what a cutover would do and what stands in its way, by doing it and rolling it back. It changes nothing.
func (e *Ends) Plan(ctx context.Context, p Pausing) (*Report, error) {
	s, err := e.state(ctx)
	if err != nil {
		return nil, err
	}
	r := &Report{State: s}
	if s == nil || !s.Paused {
		r.Pause, err = e.take(ctx, p, hold.Try)
		var refusal *preflight.Refusal
		if err != nil && !errors.As(err, &refusal) {
			return nil, err
		}
		r.Findings = append(r.Findings, r.Pause.Findings...)
	}
	if r.Sequences, err = e.sequences(ctx, 0); err != nil {
		return nil, err
	}
	for _, q := range r.Sequences {
		r.Findings = append(r.Findings, q.findings()...)
	}
	path, err := e.look(ctx)
	if err != nil {
		return nil, err
	}
	r.Findings = append(r.Findings, path.findings()...)
	return r, nil
}

// state reads the cutover that the source has noted, and holds both ends against it. nil: there is none.
func (e *Ends) state(ctx context.Context) (*hold.State, error) {
	s, err := e.noted(ctx)
	if err != nil || s == nil || e.Destination.Conn == nil {
		return s, err
	}
	return s, e.Destination.Is(s.Destination)
}

// noted is state with the source alone held against it.
func (e *Ends) noted(ctx context.Context) (*hold.State, error) {
	s, err := hold.Load(ctx, e.Source.Conn)
	if err != nil || s == nil {
		return nil, err
	}
	if s.Region != e.Source.Region || s.Peer != e.Destination.Region {
		return nil, &IdentityError{fmt.Sprintf("another cutover is noted at %s: from %s to %s", e.Source.Region, s.Region, s.Peer), fmt.Sprintf("pgwaltz cutover abort for that one, with --from %s or --to %s", s.Region, s.Peer)}
	}
	if e.Moved != "" && e.Moved == e.Source.ID() && s.Source != e.Moved {
		if _, was, _ := strings.Cut(s.Source, "/"); was == e.Source.Sys.Database {
			return s, nil
		}
	}
	return s, e.Source.Is(s.Source)
}

// NotPausedError: a step needs the writes to be paused.
type NotPausedError struct{ Over bool }

func (e *NotPausedError) Error() string {
	if e.Over {
		return "the time of the write pause was over: writes are given back"
	}
	return "writes are not paused"
}

// Hint is the way on.
func (e *NotPausedError) Hint() string { return "pgwaltz cutover plan, then pause-write" }

// ExitCode is that of problems found.
func (e *NotPausedError) ExitCode() int { return 4 }

// paused is the state while writes are paused. Behind the deadline it gives them back.
func (e *Ends) paused(ctx context.Context) (*hold.State, error) {
	if _, err := hold.Overdue(ctx, e.Source.Conn); err != nil {
		return nil, err
	}
	s, err := e.state(ctx)
	switch {
	case err != nil:
		return nil, err
	case s == nil:
		return nil, &NotPausedError{}
	case !s.Paused:
		return nil, &NotPausedError{Over: true}
	}
	return s, nil
}

// Paused is what PauseWrite did.
type Paused struct {
	Taken    *hold.Pause // nil where an earlier run has taken
	Ended    int         // sessions
	Deadline time.Time
}

// again refuses what an earlier run was not told: what is taken stays as it is.
func (p Pausing) again(s *hold.State) error {
	was, now := slices.Sorted(slices.Values(s.LeftAlone)), slices.Sorted(slices.Values(p.Except))
	if len(now) > 0 && !slices.Equal(slices.Compact(was), slices.Compact(now)) {
		return &UsageError{fmt.Sprintf("writes are paused already, with --except %q and not %q", strings.Join(was, ","), strings.Join(now, ",")), "leave --except out, which keeps it; or pgwaltz cutover resume-write first"}
	}
	if p.Connect && !s.Connect {
		return &UsageError{"writes are paused already, without --no-connect", "leave it out, or pgwaltz cutover resume-write first"}
	}
	return nil
}

// PauseWrite takes the rights to write at the source and ends what is open. It may be run again: then it keeps the roles that are left alone, and gives more time. Where it fails after it has
// taken, writes are given back before it returns, also when ctx has ended.
func (e *Ends) PauseWrite(ctx context.Context, p Pausing) (out Paused, err error) {
	if err := errors.Join(e.Source.Is(p.Source), e.Destination.Is(p.Destination)); err != nil {
		return out, err
	}
	if _, err := hold.Overdue(ctx, e.Source.Conn); err != nil {
		return out, err
	}
	s, err := e.state(ctx)
	switch {
	case err != nil:
		return out, err
	case s != nil && s.Finished && s.Paused:
		return out, &UsageError{"this cutover is finished, and writes are paused for good", "pgwaltz cutover, the other way round"}
	case s != nil && s.Paused:
		if err := p.again(s); err != nil {
			return out, err
		}
		if err := hold.Extend(ctx, e.Source.Conn, p.Hold); err != nil {
			return out, err
		}
		if s.Drained { // nothing is left to do, and so nothing to give back where it fails
			s, err := e.paused(ctx)
			if err == nil {
				out.Deadline = s.Deadline
			}
			return out, err
		}
	default:
		way, err := e.look(ctx)
		if err == nil && way.broken != "" {
			err = &NotReadyError{"nothing would come to the destination: " + way.broken, "pgwaltz status"}
		}
		if err != nil {
			return out, err
		}
		if err := e.unturn(ctx, s); err != nil { // of an earlier one that was cut off in finish, and whose time was over
			return out, err
		}
		// Where an earlier pause had found the sequences is nowhere to go back to: both regions may have used them since.
		if err := e.forgetSequences(ctx); err != nil {
			return out, err
		}
		if out.Taken, err = e.takeWhole(ctx, p); err != nil {
			return out, err
		}
	}
	within, cancel := context.WithTimeoutCause(ctx, p.Timeout, fmt.Errorf("not within %s", p.Timeout))
	defer cancel()
	out.Ended, err = hold.Drain(within, e.Source.Conn, e.Source.Ours, p.Grace)
	if err == nil {
		if s, err = e.state(ctx); err == nil {
			out.Deadline = s.Deadline
			return out, nil
		}
	}
	return out, e.backOut(ctx, err)
}

// take tries or takes. Sessions of a role that is left alone may be ending: they are looked for again, for a second.
func (e *Ends) take(ctx context.Context, p Pausing, f func(context.Context, *pgx.Conn, hold.Options) (*hold.Pause, error)) (*hold.Pause, error) {
	for tries := 0; ; tries++ {
		out, err := f(ctx, e.Source.Conn, e.options(p))
		var refusal *preflight.Refusal
		if tries == 5 || !errors.As(err, &refusal) || !refusal.Only("ours_in_use") {
			return out, err
		}
		if err := pause.For(ctx, 200*time.Millisecond); err != nil {
			return out, err
		}
	}
}

// takeWhole takes, and looks again where it is not known what has become of that: a session may be lost, or ctx end, while the server commits. What was
// taken is given back then.
func (e *Ends) takeWhole(ctx context.Context, p Pausing) (*hold.Pause, error) {
	var began time.Time
	if err := e.Source.Conn.QueryRow(ctx, `select pg_catalog.clock_timestamp()`).Scan(&began); err != nil {
		return nil, err
	}
	out, err := e.take(ctx, p, hold.Take)
	var refusal *preflight.Refusal
	if err == nil || errors.As(err, &refusal) {
		return out, err
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	unknown := func(cause error) error {
		return fmt.Errorf("%w; it is not known whether writes are paused, at the longest until the deadline: pgwaltz cutover plan says it (%w)", err, cause)
	}
	if lost := e.Source.again(after); lost != nil {
		return out, unknown(lost)
	}
	// Until the transaction of the lost session is over.
	if _, lost := e.Source.Conn.Exec(after, `set lock_timeout = 0; select pg_catalog.pg_advisory_lock(7497080, 1), pg_catalog.pg_advisory_unlock(7497080, 1)`); lost != nil {
		return out, unknown(lost)
	}
	s, lost := hold.Load(after, e.Source.Conn)
	switch {
	case lost != nil:
		return out, unknown(lost)
	case s == nil || !s.Paused || s.Began.Before(began):
		return out, err // nothing was committed
	}
	return out, e.backOut(ctx, err)
}

// backOut gives writes back because of err, and says how that went.
func (e *Ends) backOut(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	if err := e.Source.again(ctx); err != nil {
		return fmt.Errorf("%w; writes are given back at the deadline (%w)", cause, err)
	}
	if _, err := hold.GiveBack(ctx, e.Source.Conn); err != nil {
		return fmt.Errorf("%w; giving writes back failed too, and is tried at the deadline: %w", cause, err)
	}
	return fmt.Errorf("%w; writes are given back", cause)
}
