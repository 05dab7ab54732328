package tombstone

import (
	"context"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Away is what is known of a time in which the changes of a table without stamp columns were left out, although its WAL was read: the table
// was excluded, or not published, or a partition was detached. All own changes that were read are merged before the rows are
// looked at, up to a transaction; rows of later ones are not looked at. So a row that is later than its entry was left out.
type Away struct {
	// Since is a horizon of a time at which they were not left out yet. Known: there is one. Without it nothing is said of rows that have no entry.
	Since Horizon
	Known bool
	// Open is the snapshot of Since, nil where that is not known.
	Open *Snapshot
	// Holder names who writes the entries, in the index: changes are stamped meanwhile.
	Holder string
}

// judgeAway says what is written down of a row that was looked at; false for nothing.
//
// It gets a time that is above what it has replaced, and not above when it was written: that of its commit where the server knows it. Otherwise,
// where this region wrote what it has replaced, that from which on changes were left out. So whatever another region has written
// since stays above it. Where another region wrote what it has replaced, it gets a time just above that.
//
// An applier may write a row in a part of its transaction that is later than the entry: that looks the same where the server knows no times. The row
// is raised by less then than one that was surely left out. So is one of which it is not known (missed).
func (g *Gap) judgeAway(u Unread, e *Noted) (r Regained, ok bool) {
	a := g.Away
	r = Regained{Key: u.Key}
	wrote := max(u.Wrote, u.Committed)
	missed, sure := false, false
	if e != nil {
		missed, sure = a.missed(u, e)
	}
	switch {
	case u.Applied:
		return r, false
	case e == nil && (u.Wrote != wal.MinMicros || !a.Known):
		return r, false
	case e == nil:
		// The entry of what it has replaced is gone, or it has replaced nothing that was read.
		r.Plain, r.At = true, wrote
		if wrote == wal.MinMicros {
			r.At = a.Since.At
		}
		return r, r.At != wal.MinMicros
	case !missed, u.Ended != wal.MinMicros && e.Ended == u.Ended:
		return r, false // it was noted with the row, or behind it
	case e.Plain && u.Wrote > e.At:
		return r, false
	}
	above, by := e.At, wal.Micros(1)
	if !e.Live {
		above = e.Stamp.UpdatedAt
	}
	if a.Known && sure && later(uint32(a.Since.XID), e.Writer) {
		by = 2 // the entry is of before
	}
	if above < wal.MaxMicros-2 {
		above += by
	}
	r.Next, r.Plain, r.At = e.Next, e.Plain, above
	if sure || e.Own {
		r.At = max(above, wrote)
	}
	if wrote == wal.MinMicros && e.Own && a.Known && sure {
		r.At = max(r.At, a.Since.At)
	}
	return r, true
}

// missed reports whether a row was written behind its entry, and whether that is sure.
//
// Mostly the ids of the transactions tell. A transaction that was open for a while may write a row behind an entry of one that has a higher id: it is told by the
// time of its commit, or by a snapshot that shows the entry and not the row. Entries that were adopted with the database (Adopt) have the id
// of the transaction that did so, and do not tell.
func (a *Away) missed(u Unread, e *Noted) (is, sure bool) {
	s := a.Open
	switch {
	case later(u.Writer, e.Writer), u.Ended != wal.MinMicros && e.Ended != wal.MinMicros && u.Ended > e.Ended:
		return true, true
	case e.LSN == 0:
		return true, false
	case s == nil || !s.Shows(e.Writer):
		return false, false
	case !s.Shows(u.Writer):
		return true, true
	}
	// A subtransaction is in no snapshot.
	return !later(s.Low, u.Writer) && len(s.Above(u.Writer)) > 0, false
}

// Missed returns those of some rows that get an entry, as far as it can be said without a lock.
func (g *Gap) Missed(ctx context.Context, q Querier, rel wal.RelationName, rows []Unread) (missed []Unread, err error) {
	if len(rows) == 0 {
		return nil, nil
	}
	entries, err := g.find(ctx, q, rel, rows, "")
	if err != nil {
		return nil, err
	}
	for _, u := range rows {
		if _, ok := g.Judge(u, entries[u.Key]); ok {
			missed = append(missed, u)
		}
	}
	return missed, nil
}
