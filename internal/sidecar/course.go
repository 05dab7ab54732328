package sidecar

import (
	"sync"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// course remembers where the end of a WAL was at which time. With it a position tells how old
// the oldest WAL behind it is, whatever was decoded, sent or received of it. The zero value is
// ready. Its methods may be called from any goroutine.
type course struct {
	mu   sync.Mutex
	seen []sighting // times and ends rise
}

type sighting struct {
	at  time.Time // this process's clock
	end wal.LSN
}

// maxSightings bounds a course: more than an hour by the second, later with coarser steps.
const maxSightings = 4096

// note takes a look at the end of the WAL. An end below an earlier one is another history, and
// the course begins anew.
func (c *course) note(at time.Time, end wal.LSN) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.seen)
	if n > 0 && end < c.seen[n-1].end {
		c.seen, n = c.seen[:0], 0
	}
	if n > 0 && end == c.seen[n-1].end {
		return // written since the first look that showed it
	}
	if n >= maxSightings {
		kept := c.seen[:1]
		for i := 2; i < n; i += 2 {
			kept = append(kept, c.seen[i])
		}
		c.seen = kept
	}
	c.seen = append(c.seen, sighting{at, end})
}

// end is the newest end; 0 before the first look.
func (c *course) end() wal.LSN {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) == 0 {
		return 0
	}
	return c.seen[len(c.seen)-1].end
}

// age is how long WAL behind pos has been there; 0 when there is none. whole is false when the
// course does not reach back to pos: it is that old at least.
func (c *course) age(pos wal.LSN, now time.Time) (d time.Duration, whole bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.seen {
		if c.seen[i].end > pos {
			return max(0, now.Sub(c.seen[i].at)), i > 0
		}
	}
	return 0, true
}
