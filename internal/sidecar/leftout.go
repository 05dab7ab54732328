package sidecar

import (
	"context"

	"github.com/jackc/pgx/v5"

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
func (m *membership) leaveOut(name wal.RelationName, why string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := leftOut{name, why}
	if m.left == now {
		return false
	}
	m.left, m.unsaved = now, true
	return true
}

// forgive forgets what was left out, since a resync shows it, and accepts the publication as it is: in tx, and here when commit, which commits it with
// what says that the resync was seen, has done so. What is left out meanwhile stays.
func (m *membership) forgive(ctx context.Context, tx names.Querier, commit func() error) error {
	m.storing.Lock()
	defer m.storing.Unlock()
	m.mu.Lock()
	was := m.left
	m.mu.Unlock()
	if err := names.SetLeftOut(ctx, tx, wal.RelationName{}, ""); err != nil {
		return err
	}
	if err := names.AcceptManners(ctx, tx); err != nil {
		return err
	}
	if err := commit(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leftKnown, m.unsaved = true, m.left != was
	if m.left == was {
		m.left = leftOut{}
	}
	return nil
}

// settleLeftOut stores what was left out and is not stored yet. The outbound pipe calls it in front of
// each frame. An error leaves it to be stored.
func (s *Sidecar) settleLeftOut(ctx context.Context) error {
	m := &s.members
	m.mu.Lock()
	unsaved := m.unsaved
	m.mu.Unlock()
	if !unsaved {
		return nil
	}
	return s.catalog.do(ctx, s.storeLeftOut)
}

// storeLeftOut stores what was left out, and takes it from the database when a process begins: it stays so
// until a resync. Any session may be used.
func (s *Sidecar) storeLeftOut(ctx context.Context, c *pgx.Conn) error {
	m := &s.members
	m.storing.Lock()
	defer m.storing.Unlock()
	m.mu.Lock()
	is, unsaved, known := m.left, m.unsaved, m.leftKnown
	m.mu.Unlock()
	if unsaved {
		if err := names.SetLeftOut(ctx, c, is.table, is.why); err != nil {
			return err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.leftKnown, m.unsaved = true, m.left != is
		return nil
	}
	if known {
		return nil
	}
	table, why, err := names.LeftOut(ctx, c)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.unsaved && !m.leftKnown {
		m.left, m.leftKnown = leftOut{table, why}, true
	}
	return nil
}
