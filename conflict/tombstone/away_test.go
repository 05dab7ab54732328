package tombstone_test

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// What was written while changes were left out gets a time above what it has replaced; what was read, or applied, gets none.
func TestJudgeAway(t *testing.T) {
	t.Parallel()
	const no = wal.MinMicros
	entry := func(at wal.Micros, writer uint32, own, plain bool) *tombstone.Noted {
		n := &tombstone.Noted{LSN: 50, Writer: writer, Ended: no, Own: own}
		n.Live, n.Plain, n.At, n.Next = true, plain, at, 3
		return n
	}
	dead := entry(0, 90, true, false)
	dead.Live, dead.Stamp.UpdatedAt = false, 600
	ended := entry(7, 150, false, false)
	ended.Ended = 900
	adopted, foreign := entry(7, 160, true, true), entry(7, 160, false, false)
	adopted.LSN, foreign.LSN = 0, 0
	for name, c := range map[string]struct {
		u       tombstone.Unread
		e       *tombstone.Noted
		unknown bool
		want    tombstone.Regained
		ok      bool
	}{
		"read, and noted behind it":                          {tombstone.Unread{Writer: 200, Wrote: no, Committed: no, Ended: no}, entry(7, 201, true, true), false, tombstone.Regained{}, false},
		"applied with its entry":                             {tombstone.Unread{Writer: 200, Wrote: no, Committed: no, Ended: no}, entry(7, 200, false, false), false, tombstone.Regained{}, false},
		"applied in a part, where that is known":             {tombstone.Unread{Writer: 151, Wrote: no, Committed: no, Ended: 900}, ended, false, tombstone.Regained{}, false},
		"an applier wrote it":                                {tombstone.Unread{Writer: 200, Wrote: no, Committed: no, Ended: 900, Applied: true}, nil, false, tombstone.Regained{}, false},
		"over an own write":                                  {tombstone.Unread{Writer: 200, Wrote: no, Committed: no, Ended: no}, entry(7, 90, true, true), false, tombstone.Regained{Next: 3, At: 500, Plain: true}, true},
		"over an own write that was later":                   {tombstone.Unread{Writer: 200, Wrote: no, Committed: no, Ended: no}, entry(800, 150, true, true), false, tombstone.Regained{Next: 3, At: 801, Plain: true}, true},
		"over a write of another region":                     {tombstone.Unread{Writer: 200, Wrote: no, Committed: no, Ended: no}, entry(7, 90, false, false), false, tombstone.Regained{Next: 3, At: 9}, true},
		"over one that came meanwhile, or in a part":         {tombstone.Unread{Writer: 200, Wrote: no, Committed: no, Ended: no}, entry(7, 150, false, false), false, tombstone.Regained{Next: 3, At: 8}, true},
		"over a delete":                                      {tombstone.Unread{Writer: 200, Wrote: no, Committed: no, Ended: no}, dead, false, tombstone.Regained{Next: 3, At: 602}, true},
		"the server knows when":                              {tombstone.Unread{Writer: 200, Wrote: 900, Committed: 900, Ended: 900}, entry(7, 90, false, false), false, tombstone.Regained{Next: 3, At: 900}, true},
		"the server knows when, and is asked":                {tombstone.Unread{Writer: 200, Wrote: 900, Committed: 900, Ended: 900}, entry(7, 90, true, true), false, tombstone.Regained{}, false},
		"the server knows when, and there is no entry":       {tombstone.Unread{Writer: 200, Wrote: 900, Committed: 900, Ended: 900}, nil, false, tombstone.Regained{}, false},
		"without an entry":                                   {tombstone.Unread{Writer: 200, Wrote: no, Committed: no, Ended: no}, nil, false, tombstone.Regained{At: 500, Plain: true}, true},
		"without an entry, of before the times counted":      {tombstone.Unread{Writer: 200, Wrote: no, Committed: 700, Ended: 700}, nil, false, tombstone.Regained{At: 700, Plain: true}, true},
		"without an entry, and without a horizon":            {tombstone.Unread{Writer: 200, Wrote: no, Committed: no, Ended: no}, nil, true, tombstone.Regained{}, false},
		"over an own write, without a horizon":               {tombstone.Unread{Writer: 200, Wrote: no, Committed: no, Ended: no}, entry(7, 90, true, true), true, tombstone.Regained{Next: 3, At: 8, Plain: true}, true},
		"the ids of transactions begin anew":                 {tombstone.Unread{Writer: 5, Wrote: no, Committed: no, Ended: no}, entry(7, 4_000_000_000, false, false), true, tombstone.Regained{Next: 3, At: 8}, true},
		"open at the horizon, over an entry that was there":  {tombstone.Unread{Writer: 110, Wrote: no, Committed: no, Ended: no}, entry(7, 115, true, true), false, tombstone.Regained{Next: 3, At: 500, Plain: true}, true},
		"open at the horizon, and noted since":               {tombstone.Unread{Writer: 110, Wrote: no, Committed: no, Ended: no}, entry(7, 130, true, true), false, tombstone.Regained{}, false},
		"perhaps a part of one that was open":                {tombstone.Unread{Writer: 112, Wrote: no, Committed: no, Ended: no}, entry(7, 115, true, true), false, tombstone.Regained{Next: 3, At: 8, Plain: true}, true},
		"over at the horizon, and noted":                     {tombstone.Unread{Writer: 105, Wrote: no, Committed: no, Ended: no}, entry(7, 107, true, true), false, tombstone.Regained{}, false},
		"open for long, and the server knows when":           {tombstone.Unread{Writer: 140, Wrote: 950, Committed: 950, Ended: 950}, ended, false, tombstone.Regained{Next: 3, At: 950}, true},
		"the entry was adopted":                              {tombstone.Unread{Writer: 140, Wrote: no, Committed: no, Ended: no}, adopted, false, tombstone.Regained{Next: 3, At: 8, Plain: true}, true},
		"the entry was adopted, and it was applied long ago": {tombstone.Unread{Writer: 140, Wrote: 950, Committed: 950, Ended: 950}, foreign, false, tombstone.Regained{Next: 3, At: 8}, true},
	} {
		g := tombstone.Gap{Region: "a", Away: &tombstone.Away{Since: tombstone.Horizon{XID: 100, At: 500}, Known: !c.unknown,
			Open: tombstone.ParseSnapshot("100:120:110")}}
		got, ok := g.Judge(c.u, c.e)
		if got.Key = ""; ok != c.ok || ok && got != c.want {
			t.Errorf("%s: %+v, %t, want %+v, %t", name, got, ok, c.want, c.ok)
		}
	}
}

func TestParseSnapshot(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "1:2", "1:2:x", "a:2:"} {
		if s := tombstone.ParseSnapshot(bad); s != nil {
			t.Errorf("%q: %+v", bad, s)
		}
	}
	s := tombstone.ParseSnapshot("4294967300:4294967310:4294967300,4294967305")
	if s == nil || s.Low != 4 || s.High != 14 || len(s.InProgress) != 2 || s.Shows(9) || !s.Shows(8) || s.Shows(14) {
		t.Errorf("%+v", s)
	}
	if n := (tombstone.Horizon{XID: 5, Snap: "5:4294967310:5"}).Next(); n != 4294967310 {
		t.Errorf("the next is %d", n)
	}
	if n := (tombstone.Horizon{XID: 5}).Next(); n != 5 {
		t.Errorf("the next is %d", n)
	}
}
