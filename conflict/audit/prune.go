package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// pruneBatch keeps each delete short: it shares the table with the apply transactions.
const pruneBatch = 1000

// Prune deletes what is older than retention by the server's clock, in batches of their
// own transactions, and returns how many rows went. q must not be a transaction. A
// retention of zero or less keeps everything, and so does one that is below what setup has
// written into the function Forget.
func Prune(ctx context.Context, q Querier, retention time.Duration) (int64, error) {
	if retention <= 0 {
		return 0, nil
	}
	var total int64
	for {
		rows, err := q.Query(ctx, `select pgwaltz.forget_conflicts($1, $2)`, retention, pruneBatch)
		if err != nil {
			return total, fmt.Errorf("prune conflicts: %w", err)
		}
		n, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int64])
		if err != nil {
			return total, fmt.Errorf("prune conflicts: %w", err)
		}
		total += n
		if n < pruneBatch {
			return total, nil
		}
	}
}
