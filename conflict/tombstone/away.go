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
// is raised by less then than one that was surely left out.
func (g *Gap) judgeAway(u Unread, e *Noted) (r Regained, ok bool) {
	a := g.Away
	r = Regained{Key: u.Key}
	wrote := max(u.Wrote, u.Committed)
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
	case !later(u.Writer, e.Writer), u.Ended != wal.MinMicros && e.Ended == u.Ended:
		return r, false // it was noted with the row, or behind it
	case e.Plain && u.Wrote > e.At:
		return r, false
	}
	above, by := e.At, wal.Micros(1)
	if !e.Live {
		above = e.Stamp.UpdatedAt
	}
	if a.Known && later(uint32(a.Since.XID), e.Writer) {
		by = 2 // the entry is of before
	}
	if above < wal.MaxMicros-2 {
		above += by
	}
	r.Next, r.Plain, r.At = e.Next, e.Plain, max(above, wrote)
	if wrote == wal.MinMicros && e.Own && a.Known {
		r.At = max(r.At, a.Since.At)
	}
	return r, true
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
