package publication

import (
	"context"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/source/names"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A change that is left out is in no stream. Once a frame behind it is durable nobody decodes it again, so
// what the database remembers of it is stored before any later frame is handed over (gate.Settle).

// leftOut is the last table of which changes were left out, and why; the zero value for none.
type leftOut struct {
	table wal.RelationName
	why   string
}

// leaveOut notes that changes of a table were left out. It reports whether that is new.
func (w *Watch) leaveOut(name wal.RelationName, why string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.missed == nil {
		w.missed = map[wal.RelationName]struct{}{}
	}
	w.missed[name] = struct{}{}
	now := leftOut{name, why}
	if w.left == now {
		return false
	}
	w.left, w.unsaved = now, true
	return true
}

// storeMissed notes the tables of which changes were left out, for rows of theirs to be looked for before they are copied (tablecopy.Absent). What is in hand is not
// merged yet, so the horizon that is stored lies in front of it.
func (w *Watch) storeMissed(ctx context.Context, c *pgx.Conn) error {
	w.mu.Lock()
	missed := w.missed
	w.missed = nil
	w.mu.Unlock()
	if len(missed) == 0 {
		return nil
	}
	h, known, err := tombstone.LoadHorizon(ctx, c)
	if err == nil {
		err = tablecopy.Absent(ctx, c, tablecopy.LeftByName(slices.Collect(maps.Keys(missed))), h, known)
	}
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		maps.Copy(missed, w.missed)
		w.missed = missed
	}
	return err
}

// Forgive forgets what was left out, since a resync shows it, and accepts the publication as it is: in tx, and here when commit, which commits it with
// what says that the resync was seen, has done so. What is left out meanwhile stays.
func (w *Watch) Forgive(ctx context.Context, tx names.Querier, commit func() error) error {
	w.storing.Lock()
	defer w.storing.Unlock()
	w.mu.Lock()
	was := w.left
	w.mu.Unlock()
	if err := names.SetLeftOut(ctx, tx, wal.RelationName{}, ""); err != nil {
		return err
	}
	if err := names.AcceptManners(ctx, tx); err != nil {
		return err
	}
	if err := commit(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leftKnown, w.unsaved = true, w.left != was
	if w.left == was {
		w.left = leftOut{}
	}
	return nil
}

// Settle stores what was left out and is not stored yet, on a session that do gives it. The outbound pipe calls it in front of
// each frame. An error leaves it to be stored.
func (w *Watch) Settle(ctx context.Context, do func(context.Context, func(context.Context, *pgx.Conn) error) error) error {
	w.mu.Lock()
	unsaved := w.unsaved || len(w.missed) > 0
	w.mu.Unlock()
	if !unsaved {
		return nil
	}
	return do(ctx, w.storeLeftOut)
}

// storeLeftOut stores what was left out, and takes it from the database when a process begins: it stays so
// until a resync. Any session may be used.
func (w *Watch) storeLeftOut(ctx context.Context, c *pgx.Conn) error {
	w.storing.Lock()
	defer w.storing.Unlock()
	if err := w.storeMissed(ctx, c); err != nil {
		return err
	}
	w.mu.Lock()
	is, unsaved, known := w.left, w.unsaved, w.leftKnown
	w.mu.Unlock()
	if unsaved {
		if err := names.SetLeftOut(ctx, c, is.table, is.why); err != nil {
			return err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.leftKnown, w.unsaved = true, w.left != is
		return nil
	}
	if known {
		return nil
	}
	table, why, err := names.LeftOut(ctx, c)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.unsaved && !w.leftKnown {
		w.left, w.leftKnown = leftOut{table, why}, true
	}
	return nil
}
