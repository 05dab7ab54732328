package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// logged is one conflict that a region has settled, as the audit log tells it.
type logged struct {
	At                          time.Duration // since the start
	Type, Table, Key            string
	Winner, Loser, Verdict, Why string
	Logs                        [2]bool // which regions have it in their logs
}

// feed reads the audit logs of both regions while the demo runs.
type feed struct {
	regions [2]*region
	started time.Time

	mu     sync.Mutex
	events map[string]int // event id -> index in list
	list   []logged       // in the order of their discovery
}

const (
	feedEvery = 250 * time.Millisecond
	// Ids are drawn before commit, so that a lower one may come to sight later.
	feedOverlap = 2000
)

const feedSQL = `SELECT id, event_id::text, detected_at, coalesce(type, ''), coalesce(table_name, ''), coalesce(key::text, ''), coalesce(winner, ''),
	coalesce(loser, ''), coalesce(verdict, ''), coalesce(reason, '') FROM pgwaltz.conflict WHERE id > $1 ORDER BY id`

// run reads until ctx ends. A region that does not answer is asked again.
func (f *feed) run(ctx context.Context) error {
	tick := time.NewTicker(feedEvery)
	defer tick.Stop()
	var last [2]int64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for i := range f.regions {
			if newest, err := f.read(ctx, i, last[i]-feedOverlap); err == nil {
				last[i] = max(last[i], newest)
			}
		}
	}
}

func (f *feed) read(ctx context.Context, i int, after int64) (newest int64, err error) {
	rows, err := f.regions[i].pool.Query(ctx, feedSQL, after)
	if err != nil {
		return 0, fmt.Errorf("read audit log of region %s: %w", f.regions[i].name, err)
	}
	var event string
	var at time.Time
	var s logged
	_, err = pgx.ForEachRow(rows, []any{&newest, &event, &at, &s.Type, &s.Table, &s.Key, &s.Winner, &s.Loser, &s.Verdict, &s.Why}, func() error {
		s.At = at.Sub(f.started)
		f.add(i, event, s)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read audit log of region %s: %w", f.regions[i].name, err)
	}
	return newest, nil
}

// add notes that region i has the event in its log.
func (f *feed) add(i int, event string, s logged) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, known := f.events[event]
	if !known {
		s.Key = shortKey(s.Key)
		at = len(f.list)
		f.events[event] = at
		f.list = append(f.list, s)
	}
	f.list[at].Logs[i] = true
}

// look returns the newest n, newest first, and how many there are, in one log and in both.
func (f *feed) look(n int) (newest []logged, all, both int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.list {
		if s.Logs[0] && s.Logs[1] {
			both++
		}
	}
	for i := len(f.list) - 1; i >= 0 && len(newest) < n; i-- {
		newest = append(newest, f.list[i])
	}
	return newest, len(f.list), both
}

// shortKey is the beginning of the first value of a key, which is an object or an array.
func shortKey(key string) string {
	var object map[string]any
	var list []any
	value := key
	switch {
	case json.Unmarshal([]byte(key), &list) == nil && len(list) > 0:
		value = fmt.Sprint(list[0])
	case json.Unmarshal([]byte(key), &object) == nil && len(object) == 1:
		for _, v := range object {
			value = fmt.Sprint(v)
		}
	}
	if r := []rune(value); len(r) > 8 {
		return string(r[:8])
	}
	return value
}
