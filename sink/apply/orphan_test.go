package apply

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

const familyDDL = `create table public.fa(id int primary key, other int, version bigint, updated_at timestamptz);
create table public.fb(id int primary key, other int references public.fa on delete cascade, version bigint, updated_at timestamptz)`

// A row that references one that the origin has deleted is recorded, once, with the key of the row;
// rows that the origin has deleted as well, or whose parent is there again, are not.
func TestOrphanIsRecorded(t *testing.T) {
	t.Parallel()
	b, fa, fb := newBench(t, familyDDL), pairRel("fa"), pairRel("fb")
	b.apply(b.tx(nil, insert(fa, row("1", "\\N", 1, 1)), insert(fa, row("2", "\\N", 1, 1)), insert(fa, row("3", "\\N", 1, 1)), insert(fb, row("20", "2", 1, 1))))
	b.exec("insert into fb values (10, 1, 1, now()), (11, 1, 1, now()), (30, 3, 1, now())")
	tx := b.tx(nil, remove(fa, row("1", "\\N", 1, 1)), remove(fa, row("2", "\\N", 1, 1)), remove(fb, row("20", "2", 1, 1)))
	b.apply(tx)
	b.want("select type, table_name, key::text, verdict, reason from pgwaltz.conflict order by key::text",
		`fk_orphan|fb|{"id": 10}|keep|constraint fb_other_fkey: the row of public.fa is deleted;fk_orphan|fb|{"id": 11}|keep|constraint fb_other_fkey: the row of public.fa is deleted`)
	b.apply(b.tx(nil, remove(fa, row("3", "\\N", 1, 1)), insert(fa, row("3", "\\N", 5, 5))))
	b.want("select count(*) from pgwaltz.conflict", "2")
	b.want("select string_agg(id::text, ',' order by id) from fb", "10,11,30")
}

// Of a transaction of many parts, orphans are looked for at its end.
func TestOrphansOfAGiantTransaction(t *testing.T) {
	t.Parallel()
	b, fa, fb := newBench(t, familyDDL), pairRel("fa"), pairRel("fb")
	b.apply(b.tx(nil, insert(fa, row("1", "\\N", 1, 1)), insert(fb, row("10", "1", 1, 1))))
	b.exec("insert into fb values (11, 1, 1, now())")
	whole := b.tx(nil, remove(fa, row("1", "\\N", 1, 1)), remove(fb, row("10", "1", 1, 1)))
	first, last := *whole, *whole
	first.Changes, first.More, first.EndLSN = []wal.Change{whole.Changes[0]}, true, 0
	last.Changes, last.Part = []wal.Change{whole.Changes[1]}, 1
	b.apply(&first)
	b.apply(&last)
	b.want("select string_agg(key::text, ',') from pgwaltz.conflict", `{"id": 11}`)
}
