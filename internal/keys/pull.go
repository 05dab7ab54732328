package keys

import (
	"errors"
	"io"
	"iter"

	"github.com/pgwaltz/pgwaltz/wal"
)

// puller turns a list around: entries are asked for.
type puller struct {
	next func() (Entry, error, bool)
	stop func()
	head Entry
	err  error
	full bool
}

var errStopped = errors.New("nobody asks any more")

func pull(s Source, t wal.RelationName) *puller {
	p := &puller{}
	p.next, p.stop = iter.Pull2(func(yield func(Entry, error) bool) {
		err := s.List(t, func(e Entry) error {
			if !yield(e, nil) {
				return errStopped
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStopped) {
			yield(Entry{}, err)
		}
	})
	return p
}

// peek returns the next entry without taking it; io.EOF behind the last.
func (p *puller) peek() (Entry, error) {
	if !p.full {
		e, err, ok := p.next()
		if !ok {
			err = io.EOF
		}
		p.head, p.err, p.full = e, err, true
	}
	return p.head, p.err
}

// take takes all entries of a key, and returns the one that counts.
func (p *puller) take(key string) (Entry, error) {
	first := Entry{Key: key, State: None}
	for {
		e, err := p.peek()
		if errors.Is(err, io.EOF) || err == nil && e.Key != key {
			return first, nil
		}
		if err != nil {
			return first, err
		}
		if first.State == None {
			first = e
		}
		p.full = false
	}
}
