package conflict

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

func TestNeedsBarrier(t *testing.T) {
	t.Parallel()
	content := []byte("row")
	update := Event{Op: wal.Update, Base: wal.Base{Known: true, Digest: Digest(content), HasDigest: true}}
	for name, c := range map[string]struct {
		e    Event
		f    Found
		want bool
	}{
		"insert of nothing":                {Event{Op: wal.Insert}, Found{}, false},
		"born and changed":                 {Event{Op: wal.Update, Born: true}, Found{}, false},
		"insert, an own change waits":      {Event{Op: wal.Insert}, Found{Noted: true}, true},
		"update of nothing":                {Event{Op: wal.Update}, Found{}, true},
		"delete of nothing":                {Event{Op: wal.Delete}, Found{}, true},
		"update where a row should live":   {Event{Op: wal.Update}, Found{Entry: true, Live: true}, true},
		"insert where a row should live":   {Event{Op: wal.Insert}, Found{Entry: true, Live: true}, true},
		"insert over a tombstone":          {Event{Op: wal.Insert}, Found{Entry: true}, false},
		"update over a tombstone":          {Event{Op: wal.Update}, Found{Entry: true}, false},
		"row beside a tombstone":           {Event{Op: wal.Update}, Found{Row: true, Entry: true}, true},
		"row of a later generation":        {Event{Op: wal.Update}, Found{Row: true, Entry: true, Live: true}, false},
		"plain row":                        {Event{Op: wal.Update}, Found{Row: true}, false},
		"without stamps, its base":         {update, Found{Row: true, Stampless: true, Content: content}, false},
		"without stamps, another row":      {update, Found{Row: true, Stampless: true, Content: []byte("other")}, true},
		"without stamps, the base unknown": {Event{Op: wal.Update}, Found{Row: true, Stampless: true, Content: content}, true},
	} {
		if got := NeedsBarrier(c.e, c.f); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
