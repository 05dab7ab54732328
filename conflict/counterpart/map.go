// Package counterpart keeps which column of an origin stands for which column here. They are matched by their names when
// the first change of a column comes, and stay matched whatever they are called later: two columns that swap their names in
// one region are the same columns as before. pgwaltz.counterpart outlives the process.
package counterpart

import (
	"maps"
	"slices"
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
	mu       sync.Mutex
	loaded   bool
	tables   map[uint32]map[uint64]Column // by the table at the origin
	here     map[uint32][]uint32          // the tables of the origin whose columns stand for such of a table here, in the order of their OIDs
	unstored map[uint64]struct{}          // those that the database does not have so
	seen     map[uint32]*wal.Relation
	returned map[uint32]uint32 // the table here that one of the origin was taken for by its name, until the names were the same again (Returned)
	left     map[uint32]uint32 // the table here that one of the origin has left where it stood by its name only (Strays)
	former   map[uint32]uint32 // the table here that one of the origin stood for before another one took that one's name (Former)
}

// maxTables is how many tables of the origin are known to stand for one here: a table that is made anew under its name, again and
// again, is another one each time. Older ones are forgotten, by their OIDs.
const maxTables = 16

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
	m.loaded, m.tables, m.here, m.unstored, m.seen, m.former, m.left, m.returned = true, nil, nil, nil, nil, nil, nil, nil
	for _, c := range list {
		m.put(c)
	}
}

// put takes a column as it is stored.
func (m *Map) put(c Column) {
	if m.tables == nil {
		m.tables, m.here, m.unstored = map[uint32]map[uint64]Column{}, map[uint32][]uint32{}, map[uint64]struct{}{}
	}
	t := wal.TableOf(c.Theirs)
	if wal.NumOf(c.Theirs) == 0 {
		if m.former == nil {
			m.former = map[uint32]uint32{}
		}
		if m.former[t] = c.Table; c.Table == 0 {
			delete(m.former, t)
		}
		return
	}
	if m.tables[t] == nil {
		m.tables[t] = map[uint64]Column{}
	}
	was, known := m.tables[t][c.Theirs]
	if known && was.Table != c.Table && m.home(t) == was.Table && m.shared(t, was.Table) {
		if m.left == nil {
			m.left = map[uint32]uint32{}
		}
		m.left[t] = was.Table
	}
	if known && was.Table != c.Table && m.former[t] == c.Table {
		if m.returned == nil {
			m.returned = map[uint32]uint32{}
		}
		m.returned[t] = was.Table
	}
	m.tables[t][c.Theirs] = c
	delete(m.unstored, c.Theirs)
	if known && was.Table == c.Table {
		return
	}
	if known && !m.any(t, was.Table) {
		m.here[was.Table] = slices.DeleteFunc(m.here[was.Table], func(x uint32) bool { return x == t })
	}
	at, found := slices.BinarySearch(m.here[c.Table], t)
	if found {
		return
	}
	m.here[c.Table] = slices.Insert(m.here[c.Table], at, t)
	if list := m.here[c.Table]; len(list) > maxTables {
		oldest := list[0]
		if oldest == t {
			oldest = list[1]
		}
		m.drop(oldest, c.Table)
	}
}

// any reports whether a column of a table of the origin stands for one of a table here.
func (m *Map) any(theirs, here uint32) bool {
	for _, c := range m.tables[theirs] {
		if c.Table == here {
			return true
		}
	}
	return false
}

// drop forgets which columns of a table of the origin stand for those of a table here.
func (m *Map) drop(theirs, here uint32) {
	for id, c := range m.tables[theirs] {
		if c.Table == here {
			delete(m.tables[theirs], id)
			delete(m.unstored, id)
		}
	}
	if len(m.tables[theirs]) == 0 {
		delete(m.tables, theirs)
		delete(m.seen, theirs)
		delete(m.former, theirs)
	}
	m.here[here] = slices.DeleteFunc(m.here[here], func(x uint32) bool { return x == theirs })
}

// Of lists what is known of the columns of a table of the origin.
func (m *Map) Of(table uint32) []Column {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Column, 0, len(m.tables[table]))
	for _, c := range m.tables[table] {
		out = append(out, c)
	}
	return out
}

// Stands reports whether columns of the origin are known that stand for such of a table here.
func (m *Map) Stands(table uint32) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.here[table]) > 0
}

// StandsForOther reports whether columns of a table here stand for such of another table of the origin than the given one.
func (m *Map) StandsForOther(here, theirs uint32) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.here[here], func(x uint32) bool { return x != theirs })
}

// Home is the table here that most columns of a table of the origin stand for; 0 where nothing is known of them. loaded is false before Load.
func (m *Map) Home(theirs uint32) (here uint32, loaded bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.home(theirs), m.loaded
}

func (m *Map) home(theirs uint32) (here uint32) {
	n := map[uint32]int{}
	for _, c := range m.tables[theirs] {
		n[c.Table]++
	}
	for t := range n {
		if here == 0 || n[t] > n[here] || n[t] == n[here] && t > here {
			here = t
		}
	}
	return here
}

// Former is kept beside the columns when a table of the origin comes to stand for another table than was, which has given its name away: the origin
// may follow and call its own as was is called by now.
func Former(theirs, was uint32) Column { return Column{Theirs: wal.ColumnID(theirs, 0), Table: was} }

// Leaves returns what is kept (Former) beside the columns when a table of the origin comes to stand for a table here and not any more for the one that it stood for. It returns
// nothing where another table of the origin stands for that one as well, and has not come there from elsewhere itself: then the one that leaves was there by its
// name only, because the names had been passed on at the origin first, and does not belong there. It belongs where it comes to now: a third one, that has left that table
// before, was there by its name only as well, and must not be told so again (neverThere).
func (m *Map) Leaves(theirs, here uint32) (kept []Column) {
	m.mu.Lock()
	defer m.mu.Unlock()
	home := m.home(theirs)
	switch {
	case home == 0 || home == here:
		return nil
	case !m.shared(theirs, home):
		return []Column{Former(theirs, home)}
	}
	for x, was := range m.former {
		if was == here && x != theirs {
			kept = append(kept, neverThere(x))
		}
	}
	return kept
}

// neverThere takes the place of what Former has noted of a table of the origin; Load forgets it.
func neverThere(theirs uint32) Column { return Former(theirs, 0) }

// shared reports whether another table of the origin than theirs stands for a table here, and has not come there from elsewhere by its name.
func (m *Map) shared(theirs, here uint32) bool {
	return slices.ContainsFunc(m.here[here], func(x uint32) bool { return x != theirs && m.home(x) == here && m.former[x] == 0 })
}

// Stray is a table of the origin of which changes have gone into a table here, Here, that another table of the origin stands for as well: one of the two goes by its
// name only, because the names had been passed on there before they were here.
type Stray struct {
	Theirs, Here uint32
	Called       wal.RelationName // at the origin, by the newest description
}

// Strays lists them, also those that stand for another table by now. Of two that stand for one table both are listed: it belongs to the one that is called as it is.
func (m *Map) Strays() []Stray {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Stray
	for t, rel := range m.seen {
		if here, ok := m.left[t]; ok {
			out = append(out, Stray{t, here, rel.Ref()})
		} else if home := m.home(t); home != 0 && m.shared(t, home) {
			out = append(out, Stray{t, home, rel.Ref()})
		}
	}
	return out
}

// Returned lists tables of the origin, and the tables here into which their changes went by their name, because the names were passed on here first. They go
// where they belong again: the table here has rows of them that its counterpart there may not have.
func (m *Map) Returned() map[uint32]uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.returned)
}

// Elsewhere returns the table here that a table of the origin stands for, where that is another one than here, and here stands for
// another table of the origin: a change that names here belongs into that one. 0 else, and where here is the one that it stood for before: the names have
// gone one further here, and now there.
func (m *Map) Elsewhere(here, theirs uint32) uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	home := m.home(theirs)
	if home == 0 || home == here || m.former[theirs] == here {
		return 0
	}
	if slices.ContainsFunc(m.here[here], func(x uint32) bool { return x != theirs && m.home(x) == here }) {
		return home
	}
	return 0
}

// Called is the name that the newest description of a table of the origin has; ok is false where none has come since Load.
func (m *Map) Called(theirs uint32) (name wal.RelationName, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rel := m.seen[theirs]
	if rel == nil {
		return name, false
	}
	return rel.Ref(), true
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
	if len(m.tables[t]) == 0 {
		return
	}
	names := make(map[int16]string, len(rel.Columns))
	for i := range rel.Columns {
		names[wal.NumOf(rel.Columns[i].ID)] = rel.Columns[i].Name
	}
	m.say(t, names)
}

func (m *Map) say(theirs uint32, names map[int16]string) {
	for id, c := range m.tables[theirs] {
		if n := names[wal.NumOf(id)]; c.Name != n {
			c.Name = n
			m.tables[theirs][id], m.unstored[id] = c, struct{}{}
		}
	}
}

// Say takes what the origin calls the columns of a table now, by their numbers: it was asked, since no newer description has come. It is stored as that of See is.
func (m *Map) Say(theirs uint32, names map[int16]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.say(theirs, names)
}

// Theirs lists the tables of the origin whose columns stand for such of a table here.
func (m *Map) Theirs(here uint32) []uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.here[here])
}

// maxSeen bounds the memory of See.
const maxSeen = 20000

// Unstored lists what is known and not in the database. It is asked at each commit, and costs nothing where there is nothing.
func (m *Map) Unstored() []Column {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Column
	for id := range m.unstored {
		out = append(out, m.tables[wal.TableOf(id)][id])
	}
	return out
}

// Settle notes that columns were stored: the transaction has committed. One of which something newer was seen meanwhile is stored again.
func (m *Map) Settle(list []Column) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range list {
		t := wal.TableOf(c.Theirs)
		was, known := m.tables[t][c.Theirs]
		m.put(c)
		if known && was.Name != c.Name {
			c.Name = was.Name
			m.tables[t][c.Theirs], m.unstored[c.Theirs] = c, struct{}{}
		}
	}
}
