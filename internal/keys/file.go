package keys

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/pgwaltz/pgwaltz/internal/visible"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A list of a region as a file: one JSON array for each line. The first names the format, the
// cluster and the region; a table's line begins its entries; the last one says that nothing is
// missing.

// format is the version of the file.
const format = "pgwaltz-keys-1"

// ErrFile says that a file holds no complete list.
var ErrFile = errors.New("it is not a complete list of keys: make it again with `pgwaltz keys --write`")

// Write writes the lists of a region.
func Write(w io.Writer, cluster string, s Source) error {
	out := bufio.NewWriterSize(w, 1<<16)
	line := func(v ...any) error {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			return err
		}
		_, err := out.Write(visible.JSON(b.Bytes()))
		return err
	}
	if err := line(format, cluster, s.Region()); err != nil {
		return fmt.Errorf("write keys: %w", err)
	}
	for _, t := range s.Tables() {
		if err := line("table", t.String()); err != nil {
			return fmt.Errorf("write keys: %w", err)
		}
		err := s.List(t, func(e Entry) error { return line(string(e.State), e.Key, e.Note, e.Values) })
		if err != nil {
			return fmt.Errorf("write keys: %w", err)
		}
	}
	if err := line("end"); err != nil {
		return fmt.Errorf("write keys: %w", err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write keys: %w", err)
	}
	return nil
}

// File is a region's list in a file. Its tables are listed in their order, once.
type File struct {
	Cluster string
	region  string
	tables  []wal.RelationName
	in      io.ReadSeeker
	at      map[wal.RelationName]int64
}

// Read looks through a file and sees that it is whole. The file must stay open until the last
// List.
func Read(in io.ReadSeeker) (*File, error) {
	f := &File{in: in, at: map[wal.RelationName]int64{}}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	r, at, ended := bufio.NewReaderSize(in, 1<<16), int64(0), false
	for n := 0; !ended; n++ {
		text, err := r.ReadBytes('\n')
		if err != nil {
			return nil, fmt.Errorf("read keys, line %d: %w", n+1, ErrFile)
		}
		at += int64(len(text))
		if n > 0 && text[1] == '"' && len(text) > 3 && text[3] == '"' {
			continue // an entry
		}
		var words []string
		if err := json.Unmarshal(text, &words); err != nil {
			return nil, fmt.Errorf("read keys, line %d: %w", n+1, ErrFile)
		}
		switch {
		case n == 0 && len(words) == 3 && words[0] == format:
			f.Cluster, f.region = words[1], words[2]
		case n > 0 && len(words) == 2 && words[0] == "table":
			name, ok := wal.ParseRelationName(words[1])
			if !ok {
				return nil, fmt.Errorf("read keys, line %d: %w", n+1, ErrFile)
			}
			f.tables = append(f.tables, name)
			f.at[name] = at
		case n > 0 && len(words) == 1 && words[0] == "end":
			ended = true
		default:
			return nil, fmt.Errorf("read keys, line %d: %w", n+1, ErrFile)
		}
	}
	slices.SortFunc(f.tables, byName)
	return f, nil
}

// Region implements Source.
func (f *File) Region() string { return f.region }

// Tables implements Source.
func (f *File) Tables() []wal.RelationName { return f.tables }

// List implements Source.
func (f *File) List(table wal.RelationName, each func(Entry) error) error {
	at, ok := f.at[table]
	if !ok {
		return nil
	}
	if _, err := f.in.Seek(at, io.SeekStart); err != nil {
		return fmt.Errorf("read keys: %w", err)
	}
	r := bufio.NewReaderSize(f.in, 1<<16)
	last := Entry{}
	for {
		text, err := r.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("read keys of %s: %w", table, ErrFile)
		}
		if len(text) < 4 || text[3] != '"' {
			return nil // the next table, or the end
		}
		var e Entry
		var state string
		if err := json.Unmarshal(text, &[]any{&state, &e.Key, &e.Note, &e.Values}); err != nil || len(state) != 1 {
			return fmt.Errorf("read keys of %s: %w", table, ErrFile)
		}
		e.State = State(state[0])
		if order(last, e) > 0 {
			return fmt.Errorf("read keys of %s: they are not sorted: %w", table, ErrFile)
		}
		last = e
		if err := each(e); err != nil {
			return err
		}
	}
}
