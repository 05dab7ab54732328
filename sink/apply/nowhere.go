package apply

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A key may hold characters that the encoding of this database lacks. A row with such a key is
// parked; it can never stand here. So its delete has nothing to do but to release what is parked.

// nowhere reports whether a delete failed because no row of its key can be in this database.
func (a *Applier) nowhere(ctx context.Context, ch *wal.Change, failed error) (bool, error) {
	if s := sqlState(failed); ch.Op != wal.Delete || ch.Old == nil || s != "22P05" && s != "22021" {
		return false, nil
	}
	var texts []string
	for _, c := range ch.Relation.KeyColumns() {
		if text, ok := wal.AppendText(nil, ch.Relation.Columns[c].OID, ch.Old[c]); ok {
			texts = append(texts, string(text))
		}
	}
	if len(texts) == 0 {
		return false, nil
	}
	var n int
	err := a.behindSavepoint(ctx, "nowhere", func() error {
		return a.conn.QueryRow(ctx, "select pg_catalog.cardinality($1::text[])", pgx.QueryExecModeExec, texts).Scan(&n)
	})
	switch sqlState(err) {
	case "22P05", "22021":
		return true, nil
	}
	return false, err
}

// releaseNowhere carries out a delete of a key that no row here can have.
func (a *Applier) releaseNowhere(ctx context.Context, k keyedTx, fx *effects) error {
	b := batch.New()
	b.Policy = a.batch.Policy
	b.AddPicked(k.tx, k.kind, k.places)
	for _, g := range b.Groups {
		policy := a.cfg.Policy.table(g.Rel.Ref()).Resolve
		for i := range g.Runs {
			r := &g.Runs[i]
			key := a.parkedKey(g, r)
			found, err := parked.Find(ctx, a.conn, g.Rel.Ref(), []string{key})
			if err != nil {
				return side(err)
			}
			if w := found[key]; w != nil && policy.Releases(waitingOf(g, r), &w.Waiting, false) {
				fx.unpark = append(fx.unpark, w.ID)
			}
		}
	}
	return nil
}
