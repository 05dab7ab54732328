package audit

import (
	"context"
	"fmt"
	"time"
)

// pruneBatch keeps each delete short: it shares the table with the apply transactions.
const pruneBatch = 1000

// pruneSQL finds old rows by the index on detected_at.
const pruneSQL = `DELETE FROM pgwaltz.conflict WHERE id IN
 (SELECT id FROM pgwaltz.conflict WHERE detected_at < now() - $1::interval ORDER BY detected_at LIMIT $2)`

// Prune deletes what is older than retention by the server's clock, in batches of their
// own transactions, and returns how many rows went. q must not be a transaction. A
// retention of zero or less keeps everything.
func Prune(ctx context.Context, q Querier, retention time.Duration) (int64, error) {
	if retention <= 0 {
		return 0, nil
	}
	var total int64
	for {
		tag, err := q.Exec(ctx, pruneSQL, retention, pruneBatch)
		if err != nil {
			return total, fmt.Errorf("prune conflicts: %w", err)
		}
		total += tag.RowsAffected()
		if tag.RowsAffected() < pruneBatch {
			return total, nil
		}
	}
}
