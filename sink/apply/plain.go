package apply

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// isPlain reports whether a run of own changes says nothing but when its row was written, and
// nothing else is known of its key.
func (a *Applier) isPlain(g *batch.Group, r *batch.Run) bool {
	if r.Op == wal.Delete || r.Stamp.Generation != 0 || r.Stamp.UpdatedAt != r.Tx.CommitTime || g.Kind != conflict.Self || !a.stampless(g.Rel) {
		return false
	}
	return !a.cfg.Policy.table(g.Rel.Ref()).Resolve.Skewed(r.Stamp, r.Tx.CommitTime) && !a.cfg.Index.May(a.ledger(g.Rel), []byte(r.Text))
}

// writeDown writes down when rows were written here, without looking at them: the application's rows
// are neither locked nor read. A row that a remote change has overwritten, or deleted, has an
// entry of that change, which is on disk with it; such a run is added to slow. An applier that
// is about to write such an entry finds this one, and begins again.
func (a *Applier) writeDown(ctx context.Context, g *batch.Group, t *target, runs, slow []int) ([]int, error) {
	own := runs[:0]
	for _, i := range runs {
		passed, behind, err := a.passedOn(ctx, t, g.Runs[i].Tx)
		if err != nil {
			return nil, err
		}
		if passed && (!behind || len(a.movedTo(g, t)) > 1) {
			slow = append(slow, i)
		} else {
			own = append(own, i)
		}
	}
	if runs = own; len(runs) == 0 {
		return slow, nil
	}
	slices.SortFunc(runs, func(i, j int) int { return strings.Compare(g.Runs[i].Text, g.Runs[j].Text) })
	keys, ats, lsns := make([]string, len(runs)), make([]int64, len(runs)), make([]string, len(runs))
	for n, i := range runs {
		r := &g.Runs[i]
		keys[n], ats[n], lsns[n] = r.Text, int64(r.Stamp.UpdatedAt), r.Tx.CommitLSN.String()
	}
	written := make([]bool, len(runs))
	if len(runs) >= tombstone.ManyEntries {
		if _, err := a.conn.Exec(ctx, "set local enable_hashjoin = on"); err != nil {
			return nil, fmt.Errorf("write down when rows of %s were written: %w", g.Rel, err)
		}
	}
	rows, err := a.conn.Query(ctx, tombstone.PlainSQL, tombstone.RelationText(a.ledger(g.Rel)), keys, ats, lsns, a.cfg.Origin)
	if err != nil {
		return nil, fmt.Errorf("write down when rows of %s were written: %w", g.Rel, err)
	}
	defer rows.Close()
	for rows.Next() {
		var n int
		if err := rows.Scan(&n); err != nil {
			return nil, fmt.Errorf("write down when rows of %s were written: %w", g.Rel, err)
		}
		written[n-1] = true
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("write down when rows of %s were written: %w", g.Rel, err)
	}
	for n, i := range runs {
		if !written[n] {
			slow = append(slow, i)
		}
	}
	return slow, nil
}
