package apply

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A delete under identity DEFAULT, by a key that both regions have replaced since, ends: the row that it means is
// deleted by this region, one that was written later stays, and of two nobody knows which is meant.
func TestDeletesByAnOldKeyEnd(t *testing.T) {
	t.Parallel()
	for _, region := range []string{"publishes", "applies"} {
		t.Run(region, func(t *testing.T) {
			t.Parallel()
			deletesByAnOldKey(t, region == "publishes")
		})
	}
}

func deletesByAnOldKey(t *testing.T, publishes bool) {
	b, full := newBench(t, twoKeysDDL), twoKeys()
	old := *full
	old.Identity = wal.IdentityDefault
	for i := range old.Columns {
		old.Columns[i].Key = i == 0
	}
	now := old
	now.PrimaryKey = []int{1}
	b.exec("create function note() returns trigger language plpgsql as $$ begin insert into public.gone values (old.k); return null; end $$")
	b.exec("create table public.gone(k int)")
	b.exec("create trigger ordinary after delete on public.t for each row execute function public.note()")
	b.exec("insert into public.t values (1,101,'a',1,'2024-01-01'), (2,102,'later',9,'2030-01-01'), (3,103,'one',1,'2024-01-01'), (3,104,'two',1,'2024-01-01'), (5,105,'stays',1,'2024-01-01')")
	ordinary := 0
	if publishes {
		b.a.cfg.Ordinary = func(ctx context.Context) (*pgx.Conn, error) {
			ordinary++
			return pg.Connect(ctx, b.dsn, pg.Options{Region: "b", Role: "cascade"})
		}
	}
	for _, id := range []string{"1", "2", "3", "4"} {
		gone := make(wal.Tuple, len(old.Columns))
		for i := range gone {
			gone[i].Kind = wal.Unchanged
		}
		gone[0] = wal.Value{Kind: wal.Text, Bytes: []byte(id)}
		tx := b.tx(nil, wal.Change{Op: wal.Delete, Relation: &old, Old: gone})
		b.apply(tx)
	}
	b.want("select count(*), min(sqlstate) from pgwaltz.parked", "4|42P10")
	b.retry()
	b.want("select count(*) from pgwaltz.parked", "4") // the origin may have the old key still
	b.apply(b.tx(nil, insert(&now, twoKeysRow("6", "106", "by the new key", "1"))))
	b.turns(b.retrier(), 6)
	b.want("select id, k, v from public.t order by k", "2|102|later;3|103|one;3|104|two;5|105|stays;6|106|by the new key")
	b.want("select key, sqlstate from pgwaltz.parked", `["3"]|42P10`)
	b.want("select count(*) from pgwaltz.tombstone", "0")
	if publishes {
		b.want("select k from public.gone", "101")
		if ordinary != 1 {
			t.Errorf("%d ordinary transactions", ordinary)
		}
	}
}
