package apply

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A delete of what is not here, by a clock far ahead, is two events: the log has both.
func TestSkewIsAnEventOfItsOwn(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.a.cfg.Policy = PolicyFunc(func(wal.RelationName) TablePolicy {
		return TablePolicy{Version: "version", UpdatedAt: "updated_at", Resolve: conflict.Policy{MaxSkew: 1}}
	})
	tx := b.tx(nil, remove(r, row("2", "b", 1, 1)))
	tx.CommitTime = 1
	b.apply(tx)
	b.want("select type from pgwaltz.conflict order by type", "clock_skew;delete_missing")
}
