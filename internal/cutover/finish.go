package cutover

import (
	"context"
	"fmt"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/wal"
)

// NotReadyError: a step before this one is missing.
type NotReadyError struct{ What, Next string }

func (e *NotReadyError) Error() string { return e.What }

// Hint is the step.
func (e *NotReadyError) Hint() string { return e.Next }

// ExitCode is that of problems found.
func (e *NotReadyError) ExitCode() int { return 4 }

// AwayError: writes at the source are given back, and the destination could not be put back, for the reason of Why. Its exit code is that of Why.
type AwayError struct {
	Region string
	Why    error
}

func (e *AwayError) Error() string {
	return fmt.Sprintf("region %s is out of reach, a standby or another database (%v): the sequences there are as the cutover has left them", e.Region, e.Why)
}

func (e *AwayError) Unwrap() error { return e.Why }

// Hint is the way on.
func (e *AwayError) Hint() string { return "pgwaltz cutover abort, when it is back" }

// Finish ends a cutover: writes at the source stay paused for good, and the destination is the one to write to. Where the destination
// was the source of an earlier cutover, its writes are given back. It may be run again. gave reports that.
func (e *Ends) Finish(ctx context.Context, how Finishing) (gave bool, err error) {
	s, err := e.paused(ctx)
	switch {
	case err != nil:
		return false, err
	case !s.Arrived:
		return false, &NotReadyError{"it is not known whether all writes are at the destination", "pgwaltz cutover wait"}
	case !s.Sequenced:
		return false, &NotReadyError{"the destination's sequences are not ahead", "pgwaltz cutover sequences"}
	}
	if !s.Finished { // behind that the destination is in use
		if err := e.still(ctx, s); err != nil {
			return false, err
		}
	}
	if err := hold.Tight(ctx, e.Source.Conn, e.Source.Ours, s.LeftAlone); err != nil {
		return false, err
	}
	back, err := e.turn(ctx, s, how)
	if err != nil {
		return false, err
	}
	if back != nil && !s.Finished {
		if err := back.prepare(ctx); err != nil {
			return false, err
		}
	}
	if err := hold.Finish(ctx, e.Source.Conn); err != nil {
		return false, over(err)
	}
	if err := failpoint.Hit("cutover.finished"); err != nil {
		return false, err
	}
	if err := e.clear(ctx, back, how); err != nil {
		return false, err
	}
	if gave, err = hold.GiveBack(ctx, e.Destination.Conn); err != nil {
		return gave, fmt.Errorf("region %s: %w", e.Destination.Region, err)
	}
	if err := hold.Forget(ctx, e.Destination.Conn); err != nil {
		return gave, err
	}
	return gave, e.forgetSequences(ctx)
}

// clear takes away what moved the rows, and lets the way back begin.
func (e *Ends) clear(ctx context.Context, back *turning, how Finishing) error {
	if back != nil {
		return back.let(ctx)
	}
	if !how.Drop {
		return nil
	}
	mode, err := e.mode(ctx)
	if err != nil {
		return err
	}
	return e.drop(ctx, mode, how)
}

// still looks whether the destination has yet what wait and sequences have found: it may have failed over to a standby that lagged, and who is left alone may
// have used the source's sequences.
func (e *Ends) still(ctx context.Context, s *hold.State) error {
	p, err := e.look(ctx)
	if err != nil {
		return err
	}
	back := ""
	switch {
	case p.broken != "":
		back = p.broken
	case p.at <= s.Barrier:
		back = fmt.Sprintf("it has the source's WAL up to %s, and all writes are below %s", p.at, s.Barrier)
	}
	if back != "" {
		return &NotReadyError{fmt.Sprintf("region %s has not what it had when all had arrived there: %s", e.Destination.Region, back), "pgwaltz cutover wait"}
	}
	if err := e.forgot(s, p.applied); err != nil {
		return err
	}
	list, err := e.sequences(ctx, 0)
	if err != nil {
		return err
	}
	for _, q := range list {
		if q.Missing || q.Problem != "" || q.Change() && !q.cycles() {
			return &NotReadyError{fmt.Sprintf("sequence %s of %s is not ahead", q.Name, e.Destination.Region), "pgwaltz cutover sequences"}
		}
	}
	return nil
}

// forgot refuses a destination whose own database is behind what it was when all had arrived there. The stream sends again what is missing then, and its position
// goes beyond that; a subscription begins where its slot is, and what lies between is lost.
func (e *Ends) forgot(s *hold.State, applied wal.LSN) error {
	what := ""
	switch {
	case applied < s.Applied:
		what = fmt.Sprintf("it has noted the source's WAL up to %s, and had noted %s", applied, s.Applied)
	case s.Applied == 0 && s.Timeline != 0 && s.Timeline != int(e.Destination.Sys.Timeline):
		what = fmt.Sprintf("its server is on timeline %d, and was on %d; how far it has applied may not be read by this role (pg_replication_origin_status)", e.Destination.Sys.Timeline, s.Timeline)
	default:
		return nil
	}
	return &NotReadyError{fmt.Sprintf("the database of region %s has gone back since all had arrived there: %s", e.Destination.Region, what), "in mode stream pgwaltz cutover wait; else pgwaltz cutover abort, and compare both sides"}
}

// ResumeWrite gives writes at the source back, and reports whether any were paused. It needs the source alone: who the destination is now does not
// matter. A cutover that is finished is left as it is, but where force is given: then both regions are written to. It may be run again.
func (e *Ends) ResumeWrite(ctx context.Context, force bool) (bool, error) {
	s, err := e.noted(ctx)
	switch {
	case err != nil:
		return false, err
	case s != nil && s.Finished && s.Paused && !force:
		return false, &NotReadyError{fmt.Sprintf("the cutover to %s is finished: both regions would be written to", e.Destination.Region), "pgwaltz cutover, the other way round; or --force"}
	}
	gave, err := hold.GiveBack(ctx, e.Source.Conn)
	if err == nil && s != nil && e.Destination.Conn != nil && e.Destination.Is(s.Destination) == nil {
		err = e.unturn(ctx, s) // what was made for the way back would bring the source's own rows back to it
	}
	return gave, err
}

// Aborted is what Abort did.
type Aborted struct {
	Gave        bool     // writes
	Back, Moved []string // sequences that were put back; and that were used since, and stay
}

// Abort puts both databases back to what they were before the cutover, at whatever point it is. It may be run again. Where the destination is another
// database than the cutover's, writes are given back all the same, and force lets it forget the sequences of the one that is gone.
func (e *Ends) Abort(ctx context.Context, force bool) (out Aborted, err error) {
	s, err := e.noted(ctx)
	if err != nil {
		return out, err
	}
	if out.Gave, err = e.ResumeWrite(ctx, force); err != nil {
		return out, err
	}
	if e.Destination.Conn == nil {
		return out, &AwayError{e.Destination.Region, e.Destination.Why}
	}
	switch {
	case s == nil || e.Destination.Is(s.Destination) == nil:
		if out.Back, out.Moved, err = e.restoreSequences(ctx); err != nil {
			return out, err
		}
	case !force:
		return out, &NotReadyError{fmt.Sprintf("region %s is database %s now, and not %s: sequences were put ahead at that one", e.Destination.Region, e.Destination.ID(), s.Destination),
			"let peers[].dsn lead there and run abort again; where it is gone for good, pgwaltz cutover abort --force forgets it"}
	}
	return out, hold.Forget(ctx, e.Source.Conn)
}
