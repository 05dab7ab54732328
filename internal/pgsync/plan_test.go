package pgsync

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/source/poll"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A standby that lags behind the server that was read before lacks rows that are there. Of a primary it is another thing: it was restored.
func TestStandbyThatIsBehind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		standby    bool
		id         string
		seen, now  string
		wants, why string
	}{
		{true, "1/1/app", "900", "800", "error", "another standby"},
		{true, "1/1/app", "900", "900", "", "nothing has happened"},
		{true, "1/1/app", "900", "1000", "", "it goes on"},
		{true, "2/1/app", "900", "800", "", "another database: copied as a whole"},
		{true, "1/1/app", "900", "3000000000", "", "too far to be compared: copied as a whole"},
		{false, "1/1/app", "900", "800", "", "restored: copied as a whole"},
	} {
		p := &pass{id: "1/1/app", from: pg.System{InRecovery: c.standby}}
		states := map[wal.RelationName]*poll.State{{Schema: "public", Name: "t"}: {Source: c.id, Seen: poll.Snapshot{XMin: c.seen}}}
		if err := p.wentBack(poll.Snapshot{XMin: c.now}, states); (err != nil) != (c.wants == "error") {
			t.Errorf("%s: %v", c.why, err)
		}
	}
}
