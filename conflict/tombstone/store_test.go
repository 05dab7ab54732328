package tombstone_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

var users = wal.RelationName{Schema: "public", Name: "users"}

// row is one entry to write.
type row struct {
	key    string
	next   int64
	at     int64
	live   bool
	lsn    wal.LSN
	plain  bool
	higher int64 // version
}

func write(t *testing.T, c tombstone.Querier, rows ...row) (raced int) {
	t.Helper()
	return writeOrdered(t, c, nil, rows...)
}

func writeOrdered(t *testing.T, c tombstone.Querier, byTime []string, rows ...row) (raced int) {
	t.Helper()
	var rels, keys, lsns []string
	var nexts, vers, ats []int64
	var live, plain []bool
	for _, r := range rows {
		rels, keys, lsns = append(rels, tombstone.RelationText(users)), append(keys, r.key), append(lsns, r.lsn.String())
		nexts, vers, ats = append(nexts, r.next), append(vers, r.higher), append(ats, r.at)
		live, plain = append(live, r.live), append(plain, r.plain)
	}
	q, err := c.Query(t.Context(), tombstone.WriteSQL, rels, keys, nexts, vers, ats, live, lsns, plain, "a", byTime)
	if err != nil {
		t.Fatal(err)
	}
	raced, err = pgx.CollectExactlyOneRow(q, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	return raced
}

func lookup(t *testing.T, c tombstone.Querier, key string, at wal.LSN) conflict.Item {
	t.Helper()
	items, err := tombstone.Lookup(t.Context(), c, at, []tombstone.Ref{{Relation: users, Key: "none"}, {Relation: users, Key: key}})
	if err != nil {
		t.Fatal(err)
	}
	if items[0] != (conflict.Item{}) {
		t.Errorf("%+v of a key that nothing is known of", items[0])
	}
	return items[1]
}

func texts(t *testing.T, c *pgx.Conn, sql string) (out []string) {
	t.Helper()
	rows, err := c.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	out, err = pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestLookup(t *testing.T) {
	t.Parallel()
	c := database(t)
	write(t, c, row{key: "k", next: 1, lsn: 100})
	write(t, c, row{key: "k", next: 1, lsn: 110, live: true, plain: true})
	write(t, c, row{key: "k", next: 2, lsn: 200})
	write(t, c, row{key: "k", next: 0, lsn: 300, live: true}) // a row of another region, in generation 0
	write(t, c, row{key: "k", next: 3, lsn: 250, higher: 9})  // an own delete that was merged late
	write(t, c, row{key: "k", next: 2, lsn: 400, higher: 1})  // a lower tombstone does not replace it
	write(t, c, row{key: "k", next: 3, lsn: 250, higher: 9})  // merged again
	for at, want := range map[wal.LSN]uint32{100: 0, 101: 1, 110: 1, 200: 1, 201: 2, 250: 2, 251: 3, 300: 3, 301: 3, 500: 3} {
		if got := lookup(t, c, "k", at); got.Next != want {
			t.Errorf("at %s: generation %d, want %d", at, got.Next, want)
		}
	}
	for at, want := range map[wal.LSN]conflict.Item{
		101: {LSN: 100, Next: 1}, 201: {LSN: 200, Next: 2}, 300: {LSN: 250, Next: 3}, 301: {LSN: 300, Next: 3, Under: 3}, 401: {LSN: 400, Next: 3, Under: 1},
	} {
		if got := lookup(t, c, "k", at); got.LSN != want.LSN || got.Next != want.Next || got.Under != want.Under || got.Live {
			t.Errorf("at %s: %+v, want %+v", at, got, want)
		}
	}
	write(t, c, row{key: "k", next: 4, lsn: 500, live: true})
	write(t, c, row{key: "k", next: 2, lsn: 600}) // of another region, which did not know it
	if got := lookup(t, c, "k", 601); got.Born() != 5 || got.Next != 4 || got.Under != 2 {
		t.Errorf("a row under a lower tombstone: %+v", got)
	}
	write(t, c, row{key: "k", next: 3, lsn: 250, higher: 9})
	found, err := tombstone.Read(t.Context(), c, users, []string{"k", "none"})
	if e := found["k"]; err != nil || len(found) != 1 || e.Live || e.Next != 3 || e.Stamp.Version != 9 {
		t.Errorf("%+v, %v", found, err)
	}
}

// TestTheHigherOfTwoTombstonesStays: by the order of the table.
func TestTheHigherOfTwoTombstonesStays(t *testing.T) {
	t.Parallel()
	c := database(t)
	edits, late := row{next: 1, at: 10, lsn: 1, higher: 6}, row{next: 1, at: 20, lsn: 2, higher: 2}
	for key, o := range map[string]struct {
		byTime []string
		rows   [2]row
		want   wal.Stamp
	}{
		"versions":        {nil, [2]row{edits, late}, wal.Stamp{Version: 6, UpdatedAt: 10}},
		"versions, other": {nil, [2]row{late, edits}, wal.Stamp{Version: 6, UpdatedAt: 10}},
		"times":           {[]string{tombstone.RelationText(users)}, [2]row{edits, late}, wal.Stamp{Version: 2, UpdatedAt: 20}},
		"times, other":    {[]string{"another", tombstone.RelationText(users)}, [2]row{late, edits}, wal.Stamp{Version: 2, UpdatedAt: 20}},
		"times elsewhere": {[]string{"another"}, [2]row{edits, late}, wal.Stamp{Version: 6, UpdatedAt: 10}},
	} {
		for _, r := range o.rows {
			r.key = key
			if raced := writeOrdered(t, c, o.byTime, r); raced != 0 {
				t.Errorf("%s: %d raced", key, raced)
			}
		}
		found, err := tombstone.Read(t.Context(), c, users, []string{key})
		if err != nil || found[key].Stamp != o.want {
			t.Errorf("%s: got %+v (%v), want %+v", key, found[key].Stamp, err, o.want)
		}
	}
}

// TestPlainEntriesDoNotPileUp: a row that is written again and again leaves no trail.
func TestPlainEntriesDoNotPileUp(t *testing.T) {
	t.Parallel()
	c := database(t)
	write(t, c, row{key: "k", next: 1, lsn: 100})
	for i := range wal.LSN(50) {
		write(t, c, row{key: "k", next: 1, at: int64(i) + 1, lsn: 200 + 10*i, live: true, plain: true})
	}
	if got := texts(t, c, `select lsn::text from pgwaltz.past`); len(got) != 1 || got[0] != "0/64" {
		t.Errorf("kept %v", got)
	}
	write(t, c, row{key: "k", next: 1, at: 500, lsn: 900, live: true}) // its time is above the one before it
	if got := lookup(t, c, "k", 900); got.At != 50 {
		t.Errorf("time %d in front of a change that depends on it", got.At)
	}
}

// TestPlainEntriesOverSomethingLower: an item above something lower says what was written last, though an older
// one is of the same generation.
func TestPlainEntriesOverSomethingLower(t *testing.T) {
	t.Parallel()
	c := database(t)
	write(t, c, row{key: "k", next: 3, lsn: 100})                          // an own delete
	write(t, c, row{key: "k", next: 1, lsn: 110, live: true})              // of another region, which did not know it
	write(t, c, row{key: "k", next: 3, lsn: 120, live: true, plain: true}) // own changes over that
	write(t, c, row{key: "k", next: 3, lsn: 130, live: true, plain: true})
	write(t, c, row{key: "k", next: 3, lsn: 140, live: true, plain: true})
	for at, under := range map[wal.LSN]uint32{120: 2, 121: 0, 130: 0, 131: 0, 140: 0, 141: 0} {
		if got := lookup(t, c, "k", at); got.Next != 3 || got.Under != under {
			t.Errorf("at %s: %+v, want the last one %d below 3", at, got, under)
		}
	}
	if got := texts(t, c, `select lsn::text from pgwaltz.past order by lsn`); fmt.Sprint(got) != "[0/64 0/6E 0/78]" {
		t.Errorf("kept %v", got)
	}
}

// TestTrimChangesNoAnswer: for what can be decoded, trimmed items say what all of them said.
func TestTrimChangesNoAnswer(t *testing.T) {
	t.Parallel()
	c := database(t)
	rng := rand.New(rand.NewPCG(7, 7))
	var lsn wal.LSN
	for range 200 {
		lsn += 10
		write(t, c, row{key: fmt.Sprint(rng.IntN(6)), next: rng.Int64N(5), at: rng.Int64N(50), lsn: lsn - wal.LSN(rng.IntN(300)&^7), live: rng.IntN(2) == 0, higher: rng.Int64N(9)})
	}
	const horizon = 1200
	type answer struct {
		key string
		at  wal.LSN
	}
	all := map[answer]conflict.Item{}
	for k := range 6 {
		for at := wal.LSN(horizon + 1); at < 2100; at += 37 {
			all[answer{fmt.Sprint(k), at}] = lookup(t, c, fmt.Sprint(k), at)
		}
	}
	n, err := tombstone.Trim(t.Context(), c, horizon, 1000)
	if err != nil || n == 0 {
		t.Fatalf("trimmed %d, %v", n, err)
	}
	for a, want := range all {
		if got := lookup(t, c, a.key, a.at); got != want {
			t.Errorf("key %s at %s: %+v, was %+v", a.key, a.at, got, want)
		}
	}
}

// TestWriteSeesRaces: an entry that another transaction made at the same time is not replaced
// without having been seen.
func TestWriteSeesRaces(t *testing.T) {
	t.Parallel()
	c := database(t)
	other, err := pgx.Connect(t.Context(), c.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close(t.Context()) })
	tx, err := other.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	write(t, tx, row{key: "k", next: 1, lsn: 100})
	raced := make(chan int)
	go func() { raced <- write(t, c, row{key: "j", next: 1, lsn: 200}, row{key: "k", next: 1, lsn: 200}) }()
	for len(texts(t, other, `select 'waits' from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`)) == 0 {
		if t.Context().Err() != nil {
			t.Fatal("the second writer does not wait")
		}
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := <-raced; n != 1 {
		t.Errorf("%d raced", n)
	}
	if n := write(t, c, row{key: "k", next: 2, lsn: 200}); n != 0 {
		t.Errorf("%d raced at the second try", n)
	}
}

func TestCollectForgetsKeys(t *testing.T) {
	t.Parallel()
	c := database(t)
	write(t, c, row{key: "dead", next: 1, lsn: 100}, row{key: "live", next: 1, lsn: 100, live: true}, row{key: "first", next: 0, lsn: 100, live: true},
		row{key: "young", next: 1, lsn: 5000})
	write(t, c, row{key: "dead", next: 2, lsn: 150})
	x := tombstone.NewIndex(3)
	if err := tombstone.Load(t.Context(), c, x); err != nil {
		t.Fatal(err)
	}
	if !x.Full() || !x.May(users, []byte("dead")) || !x.May(users, []byte("young")) || !x.May(users, []byte("first")) || !x.May(users, []byte("live")) {
		t.Error("a key is unknown")
	}
	if _, err := c.Exec(t.Context(), `update pgwaltz.tombstone set deleted_at = now() - interval '1 hour'`); err != nil {
		t.Fatal(err)
	}
	n, err := tombstone.Collect(t.Context(), c, x, time.Minute, 1000, 10)
	if err != nil || n != 2 {
		t.Errorf("collected %d, %v", n, err)
	}
	if got := texts(t, c, `select key from pgwaltz.tombstone union all select key from pgwaltz.past order by 1`); fmt.Sprint(got) != "[live young]" {
		t.Errorf("left %v", got)
	}
	// Below its limit again, it knows for certain.
	if err := tombstone.Load(t.Context(), c, x); err != nil {
		t.Fatal(err)
	}
	if x.Full() || x.May(users, []byte("dead")) || !x.May(users, []byte("young")) {
		t.Error("the limit is not left")
	}
}

// Positions of another history count as lying before everything.
func TestAdopt(t *testing.T) {
	t.Parallel()
	c := database(t)
	far := wal.LSN(1) << 60
	for moved, want := range map[bool]uint32{false: 1, true: 2} {
		if _, err := c.Exec(t.Context(), "delete from pgwaltz.tombstone"); err != nil {
			t.Fatal(err)
		}
		write(t, c, row{key: "near", next: 2, lsn: 5}, row{key: "far", next: 3, lsn: far})
		if err := tombstone.Adopt(t.Context(), c, moved); err != nil {
			t.Fatal(err)
		}
		if got := lookup(t, c, "far", 1); got.Next != 3 {
			t.Errorf("moved %v: a position behind the end of the WAL: %+v", moved, got)
		}
		if got := lookup(t, c, "near", 3); (got.Next == 2) != (want == 2) {
			t.Errorf("moved %v: a position within it: %+v", moved, got)
		}
	}
}

// What is stored of the clock at positions of another server counts below everything: times go on
// rising. What a restore has lost is forgotten.
func TestAdoptClock(t *testing.T) {
	t.Parallel()
	c := database(t)
	far := wal.LSN(1) << 60
	for moved, want := range map[bool][]tombstone.ClockAt{
		false: {{LSN: 1}, {LSN: 5, High: 70}}, true: {{LSN: 1, High: 900}},
	} {
		if _, err := c.Exec(t.Context(), "delete from pgwaltz.clock"); err != nil {
			t.Fatal(err)
		}
		for at, high := range map[wal.LSN]wal.Micros{5: 70, far: 900} {
			if err := tombstone.SaveClock(t.Context(), c, at, high); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // a term may begin again before the gap is accepted
			if err := tombstone.Adopt(t.Context(), c, moved); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := tombstone.StoredClock(t.Context(), c, 1); err != nil || !slices.Equal(got, want) {
			t.Errorf("moved %v: %v (%v), want %v", moved, got, err, want)
		}
	}
}
