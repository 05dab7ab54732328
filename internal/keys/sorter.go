package keys

import (
	"bufio"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// runBytes is how much a sorter holds in memory before it goes to a file.
const runBytes = 32 << 20

// sorter sorts entries by key text and state, on disk when there are many. Its files have no
// names any more when they are in use, so nothing is left behind by a process that is killed.
type sorter struct {
	limit int
	held  []Entry
	size  int
	runs  []*os.File
}

func newSorter() *sorter { return &sorter{limit: runBytes} }

// order is that of lists.
func order(a, b Entry) int {
	if c := strings.Compare(a.Key, b.Key); c != 0 {
		return c
	}
	return int(a.State) - int(b.State)
}

func (s *sorter) add(e Entry) error {
	s.held = append(s.held, e)
	s.size += 120 + len(e.Key) + len(e.Note)
	for _, v := range e.Values {
		s.size += 16 + len(v)
	}
	if s.size < s.limit {
		return nil
	}
	return s.spill()
}

// spill writes what is held to a file of its own.
func (s *sorter) spill() error {
	f, err := os.CreateTemp("", "pgwaltz-keys-*")
	if err != nil {
		return fmt.Errorf("sort keys: %w", err)
	}
	s.runs = append(s.runs, f)
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("sort keys: %w", err)
	}
	slices.SortFunc(s.held, order)
	w := bufio.NewWriterSize(f, 1<<16)
	for _, e := range s.held {
		if err := writeEntry(w, e); err != nil {
			return fmt.Errorf("sort keys: %w", err)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("sort keys: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("sort keys: %w", err)
	}
	s.held, s.size = s.held[:0], 0
	return nil
}

// each calls f with all entries in order.
func (s *sorter) each(f func(Entry) error) error {
	slices.SortFunc(s.held, order)
	h := &heads{}
	if len(s.held) > 0 {
		rest := s.held[1:]
		h.all = append(h.all, head{s.held[0], func() (e Entry, err error) {
			if len(rest) == 0 {
				return e, io.EOF
			}
			e, rest = rest[0], rest[1:]
			return e, nil
		}})
	}
	for _, file := range s.runs {
		r := bufio.NewReaderSize(file, 1<<16)
		next := func() (Entry, error) { return readEntry(r) }
		e, err := next()
		if err != nil {
			return fmt.Errorf("read sorted keys: %w", err)
		}
		h.all = append(h.all, head{e, next})
	}
	heap.Init(h)
	for len(h.all) > 0 {
		top := &h.all[0]
		if err := f(top.Entry); err != nil {
			return err
		}
		e, err := top.next()
		switch {
		case errors.Is(err, io.EOF):
			heap.Pop(h)
			continue
		case err != nil:
			return fmt.Errorf("read sorted keys: %w", err)
		}
		top.Entry = e
		heap.Fix(h, 0)
	}
	return nil
}

func (s *sorter) close() {
	for _, f := range s.runs {
		f.Close()
	}
}

// head is the next entry of a run.
type head struct {
	Entry
	next func() (Entry, error)
}

// heads is a heap of runs.
type heads struct{ all []head }

func (h *heads) Len() int           { return len(h.all) }
func (h *heads) Less(i, j int) bool { return order(h.all[i].Entry, h.all[j].Entry) < 0 }
func (h *heads) Swap(i, j int)      { h.all[i], h.all[j] = h.all[j], h.all[i] }
func (h *heads) Push(x any)         { h.all = append(h.all, x.(head)) }
func (h *heads) Pop() any {
	last := h.all[len(h.all)-1]
	h.all = h.all[:len(h.all)-1]
	return last
}

// writeEntry writes lengths and texts.
func writeEntry(w *bufio.Writer, e Entry) error {
	b := []byte{byte(e.State)}
	for _, s := range append([]string{e.Key, e.Note}, e.Values...) {
		b = binary.AppendUvarint(b, uint64(len(s))+1)
		b = append(b, s...)
	}
	b = append(b, 0)
	_, err := w.Write(b)
	return err
}

func readEntry(r *bufio.Reader) (e Entry, err error) {
	state, err := r.ReadByte()
	if err != nil {
		return e, err
	}
	e.State = State(state)
	for n := 0; ; n++ {
		size, err := binary.ReadUvarint(r)
		if err != nil {
			return e, io.ErrUnexpectedEOF
		}
		if size == 0 {
			return e, nil
		}
		text := make([]byte, size-1)
		if _, err := io.ReadFull(r, text); err != nil {
			return e, io.ErrUnexpectedEOF
		}
		switch n {
		case 0:
			e.Key = string(text)
		case 1:
			e.Note = string(text)
		default:
			e.Values = append(e.Values, string(text))
		}
	}
}
