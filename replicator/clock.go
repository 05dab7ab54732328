package replicator

import (
	"sync"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Clock gives times to transactions of tables that have no time of their own: the commit
// time, but never at or below one given before, and above every time of another region that
// was applied here before. So a later write always has the later time, whatever the clocks of
// the servers say (a hybrid logical clock). Safe for concurrent use.
type Clock struct {
	mu   sync.Mutex
	last wal.Micros
}

// Commit returns the time of a local transaction.
func (c *Clock) Commit(commit wal.Micros) wal.Micros {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(commit, c.last+1)
	return c.last
}

// Tick returns a time just above the last one, for a further change of one transaction.
func (c *Clock) Tick() wal.Micros {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	return c.last
}

// Observe takes note of a time of another region. It has to happen before the change that
// carries it becomes visible here.
func (c *Clock) Observe(t wal.Micros) {
	if t == wal.MaxMicros {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, t)
}
