package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// op is what a write did to its key.
type op byte

const (
	opInsert op = 'I'
	opUpdate op = 'U'
	opDelete op = 'D'
)

// outcome is how the transaction of a write ended, as far as its writer knows.
type outcome byte

const (
	acked   outcome = 'a' // the commit was acknowledged
	unknown outcome = '?' // the connection was lost while the commit was under way
	refused outcome = 'r' // it was rolled back
)

// write is one change of one key. base is the id of the write that it overwrote, 0 for none.
type write struct {
	id, base int64
	key      int32
	table    uint8
	side     uint8 // 0 for A, 1 for B
	op       op
	out      outcome
}

// journal is what all writers noted. Safe for use from any goroutine.
type journal struct {
	next   atomic.Int64
	mu     sync.Mutex
	writes []write
	counts map[outcome]int
}

func newJournal() *journal { return &journal{counts: map[outcome]int{}} }

// ids reserves n ids that follow one another and returns the first.
func (j *journal) ids(n int) int64 { return j.next.Add(int64(n)) - int64(n) + 1 }

// note keeps the writes of one transaction with its outcome.
func (j *journal) note(ws []write, out outcome) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range ws {
		ws[i].out = out
	}
	j.writes = append(j.writes, ws...)
	j.counts[out] += len(ws)
}

// all is every write so far, in no order.
func (j *journal) all() []write {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]write(nil), j.writes...)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return fmt.Sprintf("%d writes: %d acknowledged, %d unknown, %d refused", len(j.writes), j.counts[acked], j.counts[unknown], j.counts[refused])
}

// save writes the journal as a text, one write a line.
func (j *journal) save(dir string, tables []*table) error {
	f, err := os.Create(filepath.Join(dir, "journal.txt"))
	if err != nil {
		return fmt.Errorf("save journal: %w", err)
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	fmt.Fprintln(w, "# id base table key region operation outcome")
	for _, x := range j.all() {
		fmt.Fprintf(w, "%d %d %s %d %c %c %c\n", x.id, x.base, tables[x.table].name, x.key, 'A'+x.side, x.op, x.out)
	}
	return w.Flush()
}
