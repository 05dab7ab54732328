package sidecar

import (
	"context"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
)

// counting is what a term has to count of the audit log, which another sidecar of this region may have written.
type counting struct {
	upTo   int64             // the newest record when the term began
	before map[string]uint64 // what was counted by then
}

// countAgain is how long after a failure the log is counted again.
const countAgain = 5 * time.Second

// loadNewest reads the newest record of the audit log at the start of a term. What lies before it is counted beside the work (countLog): the log of a
// region that has been at work for long has millions of records, and to read them takes seconds.
func (s *Sidecar) loadNewest(ctx context.Context, c *pgx.Conn) error {
	stats, id, err := audit.ReadNewest(ctx, c)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uncounted = counting{id, maps.Clone(s.conf.ByType)}
	if stats.LastAt != nil {
		s.conf.LastAt, s.conf.Last = stats.LastAt, stats.Last
	}
	return nil
}

// countLog counts the audit log as it was when the term began. It ends when that is done, or with the term.
func (s *Sidecar) countLog(ctx context.Context) error {
	for {
		err := s.countUpTo(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		s.log.Debug("count the audit log", "reason", publicMessage(err))
		if pause.For(ctx, countAgain) != nil {
			return nil
		}
	}
}

func (s *Sidecar) countUpTo(ctx context.Context) error {
	conn, err := s.connect(ctx, "count")
	if err != nil {
		return err
	}
	defer closeConn(conn)
	s.mu.Lock()
	c := s.uncounted
	s.mu.Unlock()
	stats := audit.Stats{ByType: map[string]int64{}, ByVerdict: map[string]int64{}}
	if err := stats.Count(ctx, conn, c.upTo); err != nil {
		return err
	}
	s.counted(c, stats.ByType)
	return nil
}

// counted adds what the log had when the term began to what came since. Counts do not fall when old records are pruned.
func (s *Sidecar) counted(c counting, found map[string]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for kind, n := range found {
		if more := uint64(n); more > c.before[kind] {
			s.conf.ByType[kind] += more - c.before[kind]
		}
	}
	s.conf.Total = 0
	for _, n := range s.conf.ByType {
		s.conf.Total += n
	}
}
