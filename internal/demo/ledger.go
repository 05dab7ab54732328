package demo

import (
	"fmt"
	"sort"
	"strings"
	"sync"
)

// outcome is what a client knows of a write that it sent.
type outcome uint8

const (
	acknowledged outcome = iota
	refused              // the server said no: the write is nowhere
	unknown              // the answer was lost: the write may be there or not
)

// write is one write of a user row, as its client saw it.
type write struct {
	id      string // unique over both regions
	key     string // the user's uuid
	region  string
	prev    string // the write that it replaced, "" for an insert
	deletes bool
	outcome outcome
}

// ledger is what the clients know: every write of a user row. It is safe for concurrent use.
type ledger struct {
	mu     sync.Mutex
	next   int
	writes map[string]write
}

func newLedger() *ledger { return &ledger{writes: map[string]write{}} }

// id makes the id of the next write.
func (l *ledger) id(region string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	return fmt.Sprintf("%s-%06d", region, l.next)
}

func (l *ledger) note(w write) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes[w.id] = w
}

// acknowledged counts the writes that must be explained.
func (l *ledger) acknowledged() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, w := range l.writes {
		if w.outcome == acknowledged {
			n++
		}
	}
	return n
}

// beaten is one loser that an audit log names.
type beaten struct {
	key      string
	loser    string // region
	id       string // the write id in the loser's image, "" where there is none
	isDelete bool   // the loser was a delete, or may have been one
}

// verdict is the result of check.
type verdict struct {
	Explained int      `json:"explained"` // acknowledged writes in the result or in the audit log
	Audited   int      `json:"audited"`   // of those, the ones that only the audit log explains
	Lost      []string `json:"lost"`      // acknowledged writes that vanished
	Invented  []string `json:"invented"`  // ids in the result that nobody acknowledged or lost the answer of
}

// check is the checker "ancestor or audited". final maps the keys that are alive to the
// write id in their row.
func (l *ledger) check(final map[string]string, log []beaten) verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := verdict{Lost: []string{}, Invented: []string{}}
	inResult, inLog := map[string]bool{}, map[string]bool{}
	deletes := map[string][]write{} // by key
	for _, w := range l.writes {
		if w.deletes && w.outcome != refused {
			deletes[w.key] = append(deletes[w.key], w)
		}
	}
	for key, id := range final {
		w, known := l.writes[id]
		if !known || w.key != key || w.outcome == refused || w.deletes {
			v.Invented = append(v.Invented, key+" holds "+id)
		}
		l.ancestors(inResult, key, id)
	}
	for key, list := range deletes {
		if _, alive := final[key]; alive {
			continue
		}
		// A dead row is what each of its deletes asked for.
		for _, w := range list {
			l.ancestors(inResult, key, w.id)
		}
	}
	for _, b := range log {
		l.ancestors(inLog, b.key, b.id)
		if !b.isDelete {
			continue
		}
		for _, w := range deletes[b.key] {
			if w.region == b.loser {
				l.ancestors(inLog, b.key, w.id)
			}
		}
	}
	for id, w := range l.writes {
		switch {
		case w.outcome != acknowledged:
		case inResult[id]:
			v.Explained++
		case inLog[id]:
			v.Explained++
			v.Audited++
		default:
			v.Lost = append(v.Lost, strings.TrimSpace(fmt.Sprintf("%s of key %s", id, w.key)))
		}
	}
	sort.Strings(v.Lost)
	sort.Strings(v.Invented)
	return v
}

// ancestors adds id and what it replaced, and so on, as far as the writes are of that key.
func (l *ledger) ancestors(set map[string]bool, key, id string) {
	for id != "" && !set[id] {
		w, known := l.writes[id]
		if !known || w.key != key {
			return
		}
		set[id] = true
		id = w.prev
	}
}
