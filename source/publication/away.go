package publication

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Rows of tables without stamp columns that are written while their changes are left out are looked for when the tables are copied
// (tablecopy.AbsenceSchema). For that each look notes which tables that may be, with a horizon of before. A look that finds everything as it was at
// the look before makes the horizon that was stored when it began that of the next one: up to there everything was read as it is published now.

// beginAway returns the horizon that is stored now; false where there is none.
func (w *Watch) beginAway(ctx context.Context, c *pgx.Conn) (begun *tombstone.Horizon, err error) {
	if w.whole, w.wholeKnown, err = tombstone.LoadWhole(ctx, c); err != nil {
		return nil, err
	}
	h, known, err := tombstone.LoadHorizon(ctx, c)
	if err != nil || !known {
		return nil, err
	}
	return &h, nil
}

// away lists tables of which changes are left out, or were: of those that were published by the names in gone, the ones that are not published under a
// name that is selected. A table that has taken such a name and is not published is among them.
func (w *Watch) away(gone, now map[wal.RelationName]uint32) []tablecopy.Left {
	published := map[uint32]bool{}
	for n, oid := range now {
		published[oid] = published[oid] || w.cfg.Selected(n)
	}
	var left []tablecopy.Left
	for n, oid := range gone {
		l := tablecopy.Left{Name: n, OID: oid}
		if published[oid] {
			l.OID = 0
		}
		left = append(left, l)
	}
	return left
}

// noteAway notes tables of which changes are left out, or may have been since the last look. It is called before a copy of them is asked for.
func (w *Watch) noteAway(ctx context.Context, c *pgx.Conn, tables []tablecopy.Left) error {
	return tablecopy.Absent(ctx, c, tables, w.whole, w.wholeKnown)
}

// endAway ends a look. What is left out is noted by then.
func (w *Watch) endAway(ctx context.Context, c *pgx.Conn, begun *tombstone.Horizon) error {
	if begun == nil || w.wholeKnown && w.whole == *begun {
		return nil
	}
	return tombstone.SaveWhole(ctx, c, *begun)
}
