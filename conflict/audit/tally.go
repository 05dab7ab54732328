package audit

import (
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Tally counts rows of the log that were written.
type Tally struct {
	ByType map[string]uint64
	Last   string // type and table of one of the newest; no values
}

// Add counts what another tally has counted, too.
func (t *Tally) Add(o Tally) {
	for kind, n := range o.ByType {
		t.count(kind, n)
	}
	if o.Last != "" {
		t.Last = o.Last
	}
}

// Total is the number of rows of all types.
func (t *Tally) Total() (n uint64) {
	for _, k := range t.ByType {
		n += k
	}
	return n
}

// Read counts the rows that InsertSQL returns.
func (t *Tally) Read(rows pgx.Rows) error {
	var kind, table string
	if _, err := pgx.ForEachRow(rows, []any{&kind, &table}, func() error {
		t.count(kind, 1)
		t.Last = kind + " on " + table
		return nil
	}); err != nil {
		return fmt.Errorf("write audit rows: %w", err)
	}
	return nil
}

func (t *Tally) count(kind string, n uint64) {
	if t.ByType == nil {
		t.ByType = map[string]uint64{}
	}
	t.ByType[kind] += n
}
