package apply

import (
	"context"
	"errors"

	"github.com/pgwaltz/pgwaltz/adapter/rowkey"
	"github.com/pgwaltz/pgwaltz/wal"
)

// askKeys lets the server tell those keys of the transactions whose text it alone knows. What
// a change was told once it keeps, so that a second attempt asks nothing.
func (a *Applier) askKeys(ctx context.Context, txs []keyedTx) error {
	var open map[*wal.Relation][]*wal.Change
	for _, k := range txs {
		for i := range k.tx.Changes {
			ch := &k.tx.Changes[i]
			if ch.Keys != nil || !ch.Relation.Asks() {
				continue
			}
			if open == nil {
				open = map[*wal.Relation][]*wal.Change{}
			}
			open[ch.Relation] = append(open[ch.Relation], ch)
		}
	}
	for rel, changes := range open {
		t, err := a.target(ctx, rel)
		var misfit *schemaError
		if errors.As(err, &misfit) {
			continue // the changes will be parked, each under the text of its key as it came
		}
		if err != nil {
			return err
		}
		if err := rowkey.Fill(ctx, a.conn, t.schema.key, rel, changes); err != nil {
			return err
		}
	}
	return nil
}
