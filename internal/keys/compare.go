package keys

import (
	"errors"
	"io"
	"slices"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Difference is a key that has a row in one region only.
type Difference struct {
	Table wal.RelationName
	In    string // the region that has the row
	Entry        // of the row
	Other State  // what the other region knows of the key
	Note  string // of its tombstone: the stamp
}

// Comparison compares the lists of two regions.
type Comparison struct {
	Here, There Source
	// Only are the tables to compare; nil for all that both have.
	Only []wal.RelationName
	// InStep is called once between listing and the second look; nil when there is nothing to
	// wait for.
	InStep func() error
}

// Result says what was compared.
type Result struct {
	Tables, Rows, Differences int
	// Missing are tables that only one region lists, with its name.
	Missing map[wal.RelationName]string
}

// Run calls f with each key that only one region has a row of, by table and key text.
func (c *Comparison) Run(f func(Difference) error) (Result, error) {
	r := Result{Missing: map[wal.RelationName]string{}}
	found := newSpool()
	defer found.close()
	for _, t := range c.tables(&r) {
		n, err := c.table(t, found)
		if err != nil {
			return r, err
		}
		r.Tables++
		r.Rows += n
	}
	if c.InStep != nil && found.any() {
		if err := c.InStep(); err != nil {
			return r, err
		}
	}
	err := found.batches(func(all []Difference) error {
		all, err := c.still(all)
		if err != nil {
			return err
		}
		for _, d := range all {
			r.Differences++
			if err := f(d); err != nil {
				return err
			}
		}
		return nil
	})
	return r, err
}

// tables are those that both list.
func (c *Comparison) tables(r *Result) []wal.RelationName {
	wanted := func(t wal.RelationName) bool { return c.Only == nil || slices.Contains(c.Only, t) }
	var both []wal.RelationName
	for _, t := range c.Here.Tables() {
		switch {
		case !wanted(t):
		case slices.Contains(c.There.Tables(), t):
			both = append(both, t)
		default:
			r.Missing[t] = c.Here.Region()
		}
	}
	for _, t := range c.There.Tables() {
		if wanted(t) && !slices.Contains(c.Here.Tables(), t) {
			r.Missing[t] = c.There.Region()
		}
	}
	return both
}

// table merges the two lists of a table; it returns how many rows were looked at.
func (c *Comparison) table(t wal.RelationName, found *spool) (rows int, err error) {
	here, there := pull(c.Here, t), pull(c.There, t)
	defer here.stop()
	defer there.stop()
	for {
		a, errA := here.peek()
		b, errB := there.peek()
		if err := errors.Join(fault(errA), fault(errB)); err != nil {
			return rows, err
		}
		var key string
		switch {
		case errA != nil && errB != nil:
			return rows, nil
		case errB != nil, errA == nil && a.Key <= b.Key:
			key = a.Key
		default:
			key = b.Key
		}
		mine, err := here.take(key)
		if err != nil {
			return rows, err
		}
		theirs, err := there.take(key)
		if err != nil {
			return rows, err
		}
		rows += count(mine) + count(theirs)
		d := Difference{Table: t, In: c.Here.Region(), Entry: mine, Other: theirs.State, Note: theirs.Note}
		if theirs.State == Row {
			d = Difference{Table: t, In: c.There.Region(), Entry: theirs, Other: mine.State, Note: mine.Note}
		}
		if (mine.State == Row) != (theirs.State == Row) {
			if err := found.add(d); err != nil {
				return rows, err
			}
		}
	}
}

func fault(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func count(e Entry) int {
	if e.State == Row {
		return 1
	}
	return 0
}

// still leaves out what has been settled since the lists were made: rows that have come or gone.
func (c *Comparison) still(all []Difference) ([]Difference, error) {
	keep := make([]bool, len(all))
	for i := range keep {
		keep[i] = true
	}
	for from := 0; from < len(all); {
		to := from
		for to < len(all) && all[to].Table == all[from].Table {
			to++
		}
		entries := make([]Entry, to-from)
		for i := range entries {
			entries[i] = all[from+i].Entry
		}
		for _, s := range []Source{c.Here, c.There} {
			d, ok := s.(*Database)
			if !ok {
				continue
			}
			there, err := d.there(all[from].Table, entries)
			if err != nil {
				return nil, err
			}
			for i := range entries {
				if there[i] != (all[from+i].In == d.region) {
					keep[from+i] = false
				}
			}
		}
		from = to
	}
	var out []Difference
	for i, d := range all {
		if keep[i] {
			out = append(out, d)
		}
	}
	return out, nil
}
