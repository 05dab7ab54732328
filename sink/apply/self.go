package apply

import (
	"bytes"
	"context"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// NeedsSelfMerge reports whether an own, published change has something to record here: a
// delete its tombstone, a change in a later generation its grave, a change of a table
// without stamp columns its stamp. All others carry their stamp in the row itself.
//
// A stamp far ahead of the clock is recorded too, so that this region's log says the same as
// its peers'.
func NeedsSelfMerge(p Policy, tx *wal.Transaction, ch *wal.Change) bool {
	if ch.Op == wal.Truncate || ch.Repair || ch.Relation.KeyColumns() == nil {
		return false
	}
	if ch.Op == wal.Delete || ch.Stamp.Generation > 0 {
		return true
	}
	if p.table(ch.Relation.Ref()).Resolve.Skewed(ch.Stamp, tx.CommitTime) {
		return true
	}
	version, updatedAt := p.stampColumns(ch.Relation.Ref())
	return conflict.ColumnsOf(ch.Relation, version, updatedAt).Stampless()
}

// decideSelf deals with an own change that the tables hold already, or that a later own
// change has superseded. Everything else, a row that a remote change overwrote before this
// one was known, goes to conflict.Resolve like a change from outside.
func (a *Applier) decideSelf(ctx context.Context, g *batch.Group, t *target, i int, st *known, side conflict.Side, e conflict.Event) (verdict, bool, error) {
	r := &g.Runs[i]
	same := verdict{i: i, Decision: conflict.Decision{Verdict: conflict.Same}, side: side, event: e, known: st}
	if r.Op == wal.Delete && st.row == nil {
		return same, true, nil
	}
	if r.Op != wal.Delete && st.row != nil && a.holds(t, r, side, e) {
		return same, true, nil
	}
	if a.cfg.Superseded != nil {
		later, err := a.cfg.Superseded(ctx, g.Rel.Ref(), st.key, r.Tx.CommitLSN, r.Tx.Part)
		if err != nil {
			return verdict{}, true, err
		}
		if later {
			// The later change brings its own grave and stamp.
			gone := same
			gone.Verdict = conflict.Keep
			return gone, true, nil
		}
	}
	return verdict{}, false, nil
}

// holds reports whether the local row is the one that the change wrote. Equal stamps are not
// enough: a row of another region may carry the same.
func (a *Applier) holds(t *target, r *batch.Run, side conflict.Side, e conflict.Event) bool {
	if !bytes.Equal(side.Content, e.Content) {
		return false
	}
	return t.stampless() || (side.Stamp.Version == r.Stamp.Version && side.Stamp.UpdatedAt == r.Stamp.UpdatedAt)
}
