package apply

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Another applier lifts the row of a key into a later generation while a change of the earlier one waits for the row: the stamp that it finds
// there may satisfy the guard of the fast path, but the entry beside the row says that the change comes too late.
func TestAFastChangeMeetsAnEntryThatComesMeanwhile(t *testing.T) {
	t.Parallel()
	r := acct()
	byKey := *r
	byKey.Identity = wal.IdentityDefault
	byKey.Columns = append([]wal.Column(nil), r.Columns...)
	for i := 1; i < len(byKey.Columns); i++ {
		byKey.Columns[i].Key = false
	}
	unknown := update(&byKey, nil, row("1", "a", 5, 5))
	gone := remove(&byKey, text("1", "\\N", "\\N", "\\N"))
	gone.OldFull = false
	for _, c := range []struct {
		what   string
		here   wal.Tuple
		change wal.Change
	}{
		{"an update over an unknown base", row("1", "b", 3, 3), unknown},
		{"an update over a base of the same stamp", row("1", "x", 1, 1), update(r, row("1", "x", 1, 1), row("1", "a", 2, 2))},
		{"an update that is looked at", row("1", "b", 3, 3), update(r, row("1", "x", 1, 1), row("1", "a", 2, 2))},
		{"a delete over an unknown base", row("1", "b", 3, 3), gone},
		{"a delete over a base of the same stamp", row("1", "x", 1, 1), remove(r, row("1", "x", 1, 1))},
		{"a delete that is looked at", row("1", "b", 3, 3), remove(r, row("1", "x", 1, 1))},
	} {
		for _, rest := range []int{0, 100} { // of batches that would go out at once
			t.Run(fmt.Sprint(c.what, " ", rest), func(t *testing.T) {
				t.Parallel()
				b := newBench(t, acctDDL)
				b.a.rest.left = rest
				b.apply(b.tx(nil, insert(r, c.here), insert(r, row("2", "b", 1, 1))))
				other, err := pgx.Connect(t.Context(), b.dsn)
				if err != nil {
					t.Fatal(err)
				}
				defer other.Close(context.Background())
				for _, sql := range []string{"begin", "update public.acct set v = 'c', version = 1, updated_at = '2024-01-01 00:00:00+00' where id = 1"} {
					if _, err := other.Exec(t.Context(), sql); err != nil {
						t.Fatal(err)
					}
				}
				tx, applied := b.tx(nil, c.change), make(chan error, 1)
				tx.CommitTime += 30 * 24 * 3600 * 1e6
				go func() { applied <- b.tryApply(tx) }()
				b.waits(b.a.conn.PgConn().PID())
				b.idx.Suspect("c", r.Ref(), `["1"]`, conflict.Item{LSN: 16, Next: 1, Live: true})
				for _, sql := range []string{`insert into pgwaltz.tombstone (relation, key, generation, version, updated_at, live, origin, lsn) values ('public.acct', '["1"]', 0, -9223372036854775808, 0, true, 'c', '0/10')`, "commit"} {
					if _, err := other.Exec(t.Context(), sql); err != nil {
						t.Fatal(err)
					}
				}
				b.idx.Settle("c", true)
				if err := <-applied; err != nil {
					t.Fatal(err)
				}
				b.want("select v, version from acct where id = 1", "c|1")
				b.want("select generation, live from pgwaltz.tombstone", "0|true")
			})
		}
	}
}

// A row of a later life is stored otherwise here than at its origin. What is written over it there is no conflict, though its contents are others.
func TestARowOfALaterLifeMayBeStoredOtherwise(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, "create table public.acct(id int primary key, v numeric(10,2), version bigint, updated_at timestamptz)"), acct()
	r.Columns[1].OID, r.Columns[1].TypeMod = 1700, -1
	life := map[string]uint32{"1": 1, "2": 1}
	b.apply(b.tx(life, insert(r, row("1", "1.5", 1, 1)), insert(r, row("2", "1.5", 1, 1))))
	b.want("select v::text from acct", "1.50;1.50")
	b.apply(b.tx(life, update(r, row("1", "1.5", 1, 1), row("1", "2.5", 2, 2)), remove(r, row("2", "1.5", 1, 1))))
	b.want("select id, v::text from acct", "1|2.50")
	b.want("select count(*) from pgwaltz.conflict", "0")
}
