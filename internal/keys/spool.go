package keys

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// spool keeps differences in their order until the second look: in memory, and behind a limit in
// a file without a name.
type spool struct {
	held []Difference
	file *os.File
	out  *bufio.Writer
	json *json.Encoder
}

// batchRows is how many differences are held, and looked at again at once.
const batchRows = 1000

func newSpool() *spool { return &spool{} }

func (s *spool) any() bool { return len(s.held) > 0 || s.file != nil }

func (s *spool) add(d Difference) error {
	if s.held = append(s.held, d); len(s.held) < batchRows {
		return nil
	}
	if s.file == nil {
		f, err := os.CreateTemp("", "pgwaltz-keys-*")
		if err != nil {
			return fmt.Errorf("keep differences: %w", err)
		}
		s.file, s.out = f, bufio.NewWriter(f)
		s.json = json.NewEncoder(s.out)
		if err := os.Remove(f.Name()); err != nil {
			return fmt.Errorf("keep differences: %w", err)
		}
	}
	for _, d := range s.held {
		if err := s.json.Encode(d); err != nil {
			return fmt.Errorf("keep differences: %w", err)
		}
	}
	s.held = s.held[:0]
	return nil
}

// batches calls f with all differences in order, some at a time.
func (s *spool) batches(f func([]Difference) error) error {
	if s.file != nil {
		if err := s.out.Flush(); err != nil {
			return fmt.Errorf("keep differences: %w", err)
		}
		if _, err := s.file.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("keep differences: %w", err)
		}
		in := json.NewDecoder(bufio.NewReader(s.file))
		var batch []Difference
		for {
			var d Difference
			err := in.Decode(&d)
			if err == nil {
				batch = append(batch, d)
			}
			if len(batch) == batchRows || errors.Is(err, io.EOF) && len(batch) > 0 {
				if err := f(batch); err != nil {
					return err
				}
				batch = nil
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return fmt.Errorf("keep differences: %w", err)
			}
		}
	}
	if len(s.held) == 0 {
		return nil
	}
	return f(s.held)
}

func (s *spool) close() {
	if s.file != nil {
		s.file.Close()
	}
}
