package conflict

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

func TestOutlives(t *testing.T) {
	t.Parallel()
	stamp := func(gen uint32, version int64) wal.Stamp {
		return wal.Stamp{Generation: gen, Version: version, UpdatedAt: wal.Micros(version)}
	}
	dead := func(gen uint32, version int64) Side {
		return Side{Known: true, Stamp: stamp(gen, version), DeletedAt: wal.Micros(version)}
	}
	short := Policy{ForgetAfter: 1000}
	for _, c := range []struct {
		name   string
		policy Policy
		op     wal.Op
		stamp  wal.Stamp
		dead   Side
		want   bool
	}{
		{"above it", Policy{}, wal.Update, stamp(0, 3), dead(0, 2), true},
		{"of a later life", Policy{}, wal.Insert, stamp(1, 1), dead(0, 2), true},
		{"equal: the row stays", Policy{}, wal.Update, stamp(0, 2), dead(0, 2), true},
		{"below it", Policy{}, wal.Update, stamp(0, 1), dead(0, 2), false},
		{"of an earlier life", Policy{}, wal.Insert, stamp(0, 3), dead(1, 2), false},
		{"put in long after it", short, wal.Insert, stamp(0, 1), dead(0, 2), true},
		{"changed long after it", short, wal.Update, stamp(0, 1), dead(0, 2), false},
		{"a delete", Policy{}, wal.Delete, stamp(0, 3), dead(0, 2), false},
		{"a row is there", Policy{}, wal.Update, stamp(0, 3), Side{Known: true, Alive: true, Stamp: stamp(0, 2)}, false},
		{"nothing is there", Policy{}, wal.Update, stamp(0, 3), Side{}, false},
	} {
		if got := c.policy.Outlives(&wal.Change{Op: c.op, Stamp: c.stamp}, 5_000_000, c.dead); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}
