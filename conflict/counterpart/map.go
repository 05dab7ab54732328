// Package counterpart keeps which column of an origin stands for which column here. They are matched by their names when
// the first change of a column comes, and stay matched whatever they are called later: two columns that swap their names in
// one region are the same columns as before. pgwaltz.counterpart outlives the process.
package counterpart

import (
	"sync"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Column is a column of an origin and its counterpart here.
type Column struct {
	Theirs uint64 // wal.Column.ID
	Table  uint32 // the OID of the table here
	Num    int16  // the number of the column there
	// Name is what the origin calls the column by the newest description that has come; "" when it has none any more.
	Name string
}

// Map knows the counterparts of the columns of one origin. It is shared by the applier and the retrier of the origin; safe for
// concurrent use. The zero value is ready.
type Map struct {
	mu     sync.Mutex
	loaded bool
	tables map[uint32]map[uint64]entry // by the table at the origin
	seen   map[uint32]*wal.Relation
}

type entry struct {
	Column
	stored bool
}

// Loaded reports whether Load was called.
func (m *Map) Loaded() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.loaded
}

// Forget forgets all.
func (m *Map) Forget() { m.replace(nil) }

func (m *Map) replace(list []Column) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loaded, m.tables, m.seen = true, nil, nil
	m.put(list)
}

func (m *Map) put(list []Column) {
	if m.tables == nil {
		m.tables = map[uint32]map[uint64]entry{}
	}
	for _, c := range list {
		t := wal.TableOf(c.Theirs)
		if m.tables[t] == nil {
			m.tables[t] = map[uint64]entry{}
		}
		m.tables[t][c.Theirs] = entry{c, true}
	}
}

// Of lists what is known of the columns of a table of the origin.
func (m *Map) Of(table uint32) []Column {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Column, 0, len(m.tables[table]))
	for _, e := range m.tables[table] {
		out = append(out, e.Column)
	}
	return out
}

// Stands reports whether columns of the origin are known that stand for such of a table here.
func (m *Map) Stands(table uint32) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.tables {
		for _, e := range t {
			if e.Table == table {
				return true
			}
		}
	}
	return false
}

// See takes the newest description of a table of the origin, which says what its columns are called there now. What it says is
// stored with the next transaction (Unstored).
func (m *Map) See(rel *wal.Relation) {
	if len(rel.Columns) == 0 || !rel.Numbered() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := wal.TableOf(rel.Columns[0].ID)
	if m.seen[t] == rel {
		return
	}
	if m.seen == nil || len(m.seen) > maxSeen {
		m.seen = map[uint32]*wal.Relation{}
	}
	m.seen[t] = rel
	names := map[uint64]string{}
	for i := range rel.Columns {
		names[rel.Columns[i].ID] = rel.Columns[i].Name
	}
	for id, e := range m.tables[t] {
		if e.Name != names[id] {
			e.Name, e.stored = names[id], false
			m.tables[t][id] = e
		}
	}
}

// maxSeen bounds the memory of See.
const maxSeen = 20000

// Unstored lists what is known and not in the database.
func (m *Map) Unstored() []Column {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Column
	for _, t := range m.tables {
		for _, e := range t {
			if !e.stored {
				out = append(out, e.Column)
			}
		}
	}
	return out
}

// Settle notes that columns were stored: the transaction has committed. One of which something newer was seen meanwhile is stored again.
func (m *Map) Settle(list []Column) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range list {
		e, known := m.tables[wal.TableOf(c.Theirs)][c.Theirs]
		m.put([]Column{c})
		if known && e.Name != c.Name {
			c.Name = e.Name
			m.tables[wal.TableOf(c.Theirs)][c.Theirs] = entry{c, false}
		}
	}
}
