package conflict

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// TestDecideOwn goes through the table of DecideOwn.
func TestDecideOwn(t *testing.T) {
	t.Parallel()
	at := func(us int64) wal.Stamp { return wal.Stamp{Version: wal.NullVersion, UpdatedAt: wal.Micros(us)} }
	upsert := Event{Op: wal.Update, Kind: Self, Complete: true, Stamp: at(10), Content: []byte("mine")}
	gone := Event{Op: wal.Delete, Kind: Self, Complete: true, Stamp: at(10)}
	row := Side{Known: true, Alive: true, Stamp: at(5), Content: []byte("other")}
	held := Side{Known: true, Alive: true, Stamp: at(10), Content: []byte("mine")}
	later, reborn := row, upsert
	later.Stamp.Generation, reborn.Stamp.Generation = 1, 1
	above, below := Side{Known: true, Stamp: at(20)}, Side{Known: true, Stamp: at(1)}
	for _, tt := range []struct {
		name    string
		own     Own
		want    OwnStep
		against Side
	}{
		{"a delete where no row is", Own{Event: gone}, OwnRecord, Side{}},
		{"its own row", Own{Event: upsert, Local: held, Holds: true}, OwnRecord, held},
		{"its own row over a lower tombstone", Own{Event: upsert, Local: held, Holds: true, Tombstone: below}, OwnRecord, held},
		{"a row of this region", Own{Event: upsert, Local: row, Mine: true}, OwnSkip, row},
		{"a row of this region, all is stamped", Own{Event: upsert, Local: row, Mine: true, Stamped: true}, OwnSkip, row},
		{"a row that was compared with it", Own{Event: upsert, Local: row, Carried: true}, OwnSkip, row},
		{"a row of a later life", Own{Event: upsert, Local: later, Carried: true, Stamped: true}, OwnResolve, later},
		{"a row, and a change of a later life", Own{Event: reborn, Local: row, Carried: true, Stamped: true}, OwnResolve, row},
		{"another region's row, deleted here, compared", Own{Event: gone, Local: row, Carried: true, Stamped: true}, OwnResolve, row},
		{"a later change waits", Own{Event: upsert, Local: row, Later: true}, OwnSkip, row},
		{"a later change of a deleted key waits", Own{Event: gone, Local: row, Later: true}, OwnSkip, row},
		{"not stamped yet", Own{Event: upsert, Local: row}, OwnWait, row},
		{"told of, a later change waits", Own{Event: upsert, Local: row, Told: true, Later: true, Stamped: true}, OwnWait, row},
		{"told of, a later change of a deleted key waits", Own{Event: gone, Local: row, Told: true, Later: true, Stamped: true}, OwnWait, row},
		{"told of, not stamped yet", Own{Event: upsert, Local: row, Told: true, Carried: true}, OwnWait, row},
		{"told of, over the row of a later one", Own{Event: upsert, Local: row, Told: true, Carried: true, Stamped: true}, OwnResolve, row},
		{"told of, its own row", Own{Event: upsert, Local: held, Told: true, Holds: true, Later: true}, OwnRecord, held},
		{"told of, a row of this region", Own{Event: upsert, Local: row, Told: true, Mine: true, Stamped: true}, OwnSkip, row},
		{"its own row under a higher tombstone", Own{Event: upsert, Local: held, Holds: true, Tombstone: above, Stamped: true}, OwnResolve, above},
		{"another region's row", Own{Event: upsert, Local: row, Stamped: true}, OwnResolve, row},
		{"another region's row, deleted here", Own{Event: gone, Local: row, Stamped: true}, OwnResolve, row},
		{"no row", Own{Event: upsert, Stamped: true}, OwnResolve, Side{}},
		{"no row, and nothing of another region", Own{Event: upsert, Stamped: true, Mine: true}, OwnResolve, Side{}},
	} {
		step, against := DecideOwn(Policy{}, tt.own)
		if step != tt.want || against.Stamp != tt.against.Stamp || against.Known != tt.against.Known {
			t.Errorf("%s: step %d against %+v, want %d against %+v", tt.name, step, against, tt.want, tt.against)
		}
	}
}

// TestDecideOwnByTheOrderOfTheTable: whether a tombstone is above an own row is asked in the table's order. The
// version of a tombstone may be above that of a row which was written later, and the other way round.
func TestDecideOwnByTheOrderOfTheTable(t *testing.T) {
	t.Parallel()
	at := func(version int64, us wal.Micros) wal.Stamp { return wal.Stamp{Version: version, UpdatedAt: us} }
	for _, c := range []struct {
		order     Order
		row, tomb wal.Stamp
		want      OwnStep
	}{
		{TimeFirst, at(1, 20), at(5, 10), OwnRecord},
		{TimeFirst, at(5, 10), at(1, 20), OwnResolve},
		{VersionFirst, at(1, 20), at(5, 10), OwnResolve},
		{VersionFirst, at(5, 10), at(1, 20), OwnRecord},
	} {
		row := Side{Known: true, Alive: true, Stamp: c.row, Content: []byte("mine")}
		own := Own{
			Event: Event{Op: wal.Insert, Kind: Self, Complete: true, Stamp: c.row, Content: row.Content},
			Local: row, Tombstone: Side{Known: true, Stamp: c.tomb}, Holds: true, Stamped: true,
		}
		if step, _ := DecideOwn(Policy{Order: c.order}, own); step != c.want {
			t.Errorf("by %s, the row %v and the tombstone %v: %d, want %d", c.order, c.row, c.tomb, step, c.want)
		}
	}
}
