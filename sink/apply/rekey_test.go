package apply

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

func twoKeys() *wal.Relation {
	return &wal.Relation{Schema: "public", Name: "t", Identity: wal.IdentityFull, Columns: []wal.Column{
		{Name: "id", OID: 23, Key: true}, {Name: "k", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true},
		{Name: "version", OID: 20, Key: true}, {Name: "updated_at", OID: 1184, Key: true},
	}, PrimaryKey: []int{0}}
}

const twoKeysDDL = "create table public.t(id int not null, k int primary key, v text, version bigint, updated_at timestamptz)"

func twoKeysRow(id, k, v, version string) wal.Tuple {
	return text(id, k, v, version, "2024-01-01 00:00:00+00")
}

// Changes that name their rows by a key which the table does not have any more wait until their
// origin has another key, too, and go in by that; not where a row is in the way that is another one by it.
func TestChangesFollowTheKey(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, twoKeysDDL), twoKeys()
	b.exec("insert into public.t values (1,101,'a',1,'2024-01-01'), (2,102,'a',1,'2024-01-01'), (3,103,'a',1,'2024-01-01')")
	b.apply(b.tx(nil,
		update(r, twoKeysRow("1", "101", "a", "1"), twoKeysRow("1", "101", "b", "2")),
		update(r, twoKeysRow("2", "102", "a", "1"), twoKeysRow("2", "999", "moved", "2")),
		remove(r, twoKeysRow("3", "103", "a", "1")),
		insert(r, twoKeysRow("4", "104", "new", "1"))))
	b.want("select count(*), min(sqlstate) from pgwaltz.parked", "4|42P10")
	b.retry()
	b.want("select count(*) from pgwaltz.parked", "4")
	now := *r
	now.PrimaryKey = []int{1}
	b.apply(b.tx(nil, insert(&now, twoKeysRow("5", "105", "later", "1"))))
	b.turns(b.retrier(), 6)
	b.want("select id, k, v from public.t order by k", "1|101|b;2|102|a;4|104|new;5|105|later")
	b.want("select key, sqlstate from pgwaltz.parked", `["2"]|42P10`)
}

// A change that was made while its table had no key goes in by the key that it has now.
func TestChangesWithoutAKeyGetOne(t *testing.T) {
	t.Parallel()
	b, now := newBench(t, twoKeysDDL), twoKeys()
	r := *now
	r.PrimaryKey, now.PrimaryKey = nil, []int{1}
	b.exec("insert into public.t values (1,101,'a',1,'2024-01-01'), (2,102,'a',1,'2024-01-01'), (3,103,'a',1,'2024-01-01')")
	for _, ch := range []wal.Change{
		insert(&r, twoKeysRow("4", "104", "new", "1")),
		update(&r, twoKeysRow("2", "102", "a", "1"), twoKeysRow("2", "999", "moved", "2")),
		update(&r, twoKeysRow("1", "101", "a", "1"), twoKeysRow("1", "101", "b", "2")),
		remove(&r, twoKeysRow("3", "103", "a", "1")),
	} {
		tx := b.tx(nil, ch)
		tx.Changes[0].Old, tx.Changes[0].OldFull = ch.Old, ch.OldFull
		tx.Changes[0].Stamp, tx.Changes[0].Base = wal.Stamp{Version: wal.NullVersion, UpdatedAt: tx.CommitTime}, wal.Base{}
		b.apply(tx)
	}
	b.want("select count(*), min(sqlstate) from pgwaltz.parked", "4|42P10")
	b.apply(b.tx(nil, insert(now, twoKeysRow("5", "105", "later", "1"))))
	b.turns(b.retrier(), 6)
	b.want("select id, k, v, version from public.t order by k", "1|101|b|2;2|102|a|1;4|104|new|1;5|105|later|1")
	b.want("select count(*) from pgwaltz.parked", "1")
}
