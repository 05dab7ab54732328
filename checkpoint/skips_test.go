package checkpoint

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// WAL is skipped where the slot begins behind what is merged; what was published of it and not merged has a time.
func TestSkips(t *testing.T) {
	t.Parallel()
	here := wal.Epoch{SystemID: 1, Timeline: 1}
	mark := wal.Mark{EndLSN: 90, XID: 7, CommitTime: 500}
	for name, c := range map[string]struct {
		merged, confirmed wal.LSN
		tail              Tail
		history           bool
		skips, unmerged   bool
	}{
		"nothing was merged":             {0, 100, Tail{}, false, true, false},
		"the slot was made anew":         {90, 100, Tail{Found: true, Epoch: here, EndLSN: 90, Mark: mark}, false, true, false},
		"some of it is not merged":       {80, 100, Tail{Found: true, Epoch: here, EndLSN: 90, Mark: mark}, false, true, true},
		"of another WAL":                 {0, 100, Tail{Found: true, Epoch: wal.Epoch{SystemID: 2}, EndLSN: 90, Mark: mark}, false, true, false},
		"of a server that was restored":  {80, 100, Tail{Found: true, Epoch: here, EndLSN: 90, Mark: mark}, true, true, false},
		"the newest one is not known":    {80, 100, Tail{Found: true, Epoch: here, EndLSN: 90}, false, true, false},
		"the slot holds all of it":       {90, 90, Tail{Found: true, Epoch: here, EndLSN: 90, Mark: mark}, false, false, false},
		"the slot holds more than that":  {90, 50, Tail{Found: true, Epoch: here, EndLSN: 90, Mark: mark}, false, false, false},
		"the stream is gone, and merged": {90, 100, Tail{}, false, true, false},
	} {
		s := Situation{Epoch: here, Tail: c.tail, Slot: Slot{Found: true, Confirmed: c.confirmed}, Merged: c.merged, Stored: Stored{History: c.history}}
		at, unmerged := s.Unmerged()
		if s.Skips() != c.skips || unmerged != c.unmerged || unmerged && at != 500 {
			t.Errorf("%s: skips %t, not merged %t from %d", name, s.Skips(), unmerged, at)
		}
	}
}
