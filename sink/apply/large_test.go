package apply

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// A large row in conflict is in the audit log with both images, and in a notice with both: what is
// allocated for that stays below a multiple of its size. The test is alone in its process's memory
// only when it does not run beside others.
func TestLargeRowInConflict(t *testing.T) {
	b, r := newBench(t, thinDDL), thin()
	const size = 8 << 20
	b.exec("alter table acct alter big set storage external")
	b.exec("insert into acct values (1,'B',2,'2024-01-02 00:00:00+00', repeat('b'," + fmt.Sprint(size) + "))")
	for _, c := range []struct {
		name, v      string
		version, day int
	}{{"it wins", "A", 3, 3}, {"it loses", "L", 2, 1}} {
		tx := b.tx(nil, update(r, nil, thinRow("1", c.v, c.version, c.day, wal.Value{Kind: wal.Text, Bytes: []byte(strings.Repeat(c.v, size))})))
		tx.Changes[0].Base = wal.Base{Known: true, Stamp: wal.Stamp{Version: 1, UpdatedAt: 1}}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		b.apply(tx)
		runtime.ReadMemStats(&after)
		if times := (after.TotalAlloc - before.TotalAlloc) / size; times > 40 {
			t.Errorf("%s: %d times the size of the row were allocated", c.name, times)
		} else {
			t.Logf("%s: %d times the size of the row", c.name, times)
		}
	}
	b.want("select count(*), min(length(local_row->>'big')), min(length(remote_row->>'big')) from pgwaltz.conflict", fmt.Sprintf("2|%d|%d", size, size))
}
