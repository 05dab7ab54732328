package checkpoint

import (
	"errors"
	"fmt"

	"github.com/pgwaltz/pgwaltz/wal"
)

// ErrInvariant is the class of all InvariantErrors, for errors.Is.
var ErrInvariant = errors.New("invariant is broken")

// InvariantError says that the bookkeeping contradicts itself. Going on could lose or double
// a transaction, so the pipe stops; it is never retried.
type InvariantError struct {
	Name   string // a stable word, for metrics and alarms
	Detail string
	Remedy string
}

func (e *InvariantError) Error() string {
	return fmt.Sprintf("invariant %s is broken: %s", e.Name, e.Detail)
}

// Is makes errors.Is(err, ErrInvariant) true.
func (e *InvariantError) Is(target error) bool { return target == ErrInvariant }

// Hint tells an operator what to do.
func (e *InvariantError) Hint() string { return e.Remedy }

func broken(name, remedy, format string, args ...any) error {
	return &InvariantError{Name: name, Remedy: remedy, Detail: fmt.Sprintf(format, args...)}
}

const remedyBug = "stop this sidecar, keep its log and `pgwaltz status --json`, and report it; nothing was confirmed"

// MustConfirm checks a position before it is sent to the slot: not above what is durably
// published, not below what was confirmed, and with mode Applied not above what every peer
// has applied (unless it was confirmed before a peer joined or the mode changed).
func MustConfirm(m Mode, lsn wal.LSN, in Inputs) error {
	switch {
	case lsn > in.Published:
		return broken("confirmed_le_published", remedyBug, "confirming %s, published is %s", lsn, in.Published)
	case lsn < in.Confirmed:
		return broken("confirmed_monotonic", remedyBug, "confirming %s after %s", lsn, in.Confirmed)
	case m == Applied && lsn > in.Confirmed && lsn > in.applied():
		return broken("confirmed_le_applied", remedyBug, "confirming %s, the slowest peer is at %s", lsn, in.applied())
	}
	return nil
}

// MustAdvance checks a checkpoint about to be saved over prev. Inside an epoch positions do
// not decrease and frames follow each other; the WAL changes only with a Resync.
func MustAdvance(prev, next Checkpoint, resync bool) error {
	const remedy = "stop this sidecar and compare pgwaltz.checkpoint with the stream; nothing was committed"
	switch {
	case next.Origin != prev.Origin:
		return broken("checkpoint_origin", remedy, "origin %s over %s", next.Origin, prev.Origin)
	case next.Incarnation < prev.Incarnation:
		return broken("checkpoint_monotonic", remedy, "incarnation %d after %d", next.Incarnation, prev.Incarnation)
	case next.Incarnation == prev.Incarnation && next.FrameNo < prev.FrameNo:
		return broken("checkpoint_monotonic", remedy, "frame %d after %d", next.FrameNo, prev.FrameNo)
	case next.Incarnation == prev.Incarnation && next.Epoch != prev.Epoch && prev.Incarnation != 0:
		return broken("checkpoint_epoch", remedy, "epoch %s after %s inside incarnation %d", next.Epoch, prev.Epoch, next.Incarnation)
	}
	if resync || prev.Epoch.SystemID == 0 {
		return nil
	}
	switch {
	case !next.Epoch.SameWAL(prev.Epoch):
		return broken("checkpoint_epoch", remedy, "WAL %s after %s without a resync", next.Epoch, prev.Epoch)
	case next.EndLSN < prev.EndLSN:
		return broken("checkpoint_monotonic", remedy, "end %s after %s", next.EndLSN, prev.EndLSN)
	}
	return nil
}
