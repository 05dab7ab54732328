package apply

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/pgwaltz/pgwaltz/wal"
)

// A parked change may lack columns here that its origin has dropped as well. The next change of the table says so; where none comes, the
// origin is asked what columns its table has.

// maxSaid bounds the tables of which the answers are kept, and those that an origin is asked for at once.
const maxSaid = 200

// saidColumns is what the origin answered when it was asked for the columns of its tables. The numbers of columns of a table only grow, and none is used
// again. So of a column that is not in an answer it is known that it is gone only where its number is not above one that was in use when the
// question went out: a later one was added since. Safe for concurrent use.
type saidColumns struct {
	mu     sync.Mutex
	tables map[uint32]saidTable
	asks   map[uint32]int16 // by table: the highest number of a column that somebody waits to be told of
	asked  map[uint32]int16 // those of the question that is on its way, or was last
}

type saidTable struct {
	names map[int16]string // by number
	upTo  int16            // a column that is not among them is gone where its number is not above this
}

// of returns the columns of a table as they were told last; nil where nothing was told since a column of the given number was in use.
func (s *saidColumns) of(table uint32, num int16) map[int16]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tables[table]; num <= t.upTo {
		return t.names
	}
	return nil
}

// ask notes that the columns of a table are to be asked for, which has, or had, a column of the given number.
func (s *saidColumns) ask(table uint32, num int16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asks == nil {
		s.asks = map[uint32]int16{}
	}
	if was, ok := s.asks[table]; ok || len(s.asks) < maxSaid {
		s.asks[table] = max(was, num)
	}
}

// take returns the tables to ask for, and forgets them: who waits for an answer asks again. The answers come before it is called again.
func (s *saidColumns) take() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Collect(maps.Keys(s.asks))
	s.asks, s.asked = nil, s.asks
	return out
}

// say notes an answer to a question that went out behind take.
func (s *saidColumns) say(table uint32, names map[int16]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	upTo := max(s.tables[table].upTo, s.asked[table])
	if s.tables == nil || len(s.tables) >= maxSaid {
		s.tables = map[uint32]saidTable{}
	}
	s.tables[table] = saidTable{names, upTo}
}

// Lacking lists the tables of the origin whose columns parked changes wait to be told of (SayColumns), each once until it is tried again.
func (s *Suspects) Lacking() []uint32 { return s.said.take() }

// SayColumns takes what the origin calls the columns of one of its tables now, by their numbers, where it was asked.
func (s *Suspects) SayColumns(theirs uint32, names map[int16]string) {
	s.said.say(theirs, names)
	s.columns.Say(theirs, names)
}

// dropped describes the table of a parked change without the columns that are missing here and that the origin has dropped, and returns the
// places of the others. It returns nil where there are none, or nobody has told yet; then the origin is to be asked. An own
// change is another matter: see renumbered.
func (r *Retrier) dropped(ctx context.Context, rel *wal.Relation) (*wal.Relation, []int, error) {
	if r.a.cfg.Self || len(rel.Columns) == 0 || !rel.Numbered() {
		return nil, nil, nil
	}
	table, last := wal.TableOf(rel.Columns[0].ID), int16(0)
	for _, c := range rel.Columns {
		last = max(last, wal.NumOf(c.ID))
	}
	there := r.a.cfg.Suspects.said.of(table, last)
	if there != nil {
		s, err := loadSchema(ctx, r.a.conn, rel.Ref(), r.a.cfg.Replica)
		if err != nil {
			return nil, nil, err
		}
		if out, places := lessen(rel, there, func(name string) bool { _, ok := s.index[name]; return ok }); out != nil {
			return out, places, nil
		}
	}
	r.a.cfg.Suspects.said.ask(table, last)
	return nil, nil, nil
}

// lessen describes a relation without the columns that are neither here nor at the origin, whose columns are there by their numbers. It returns nil when
// that changes nothing or the key, when the origin has a column of that name under another number, and when the key is called
// otherwise there: the number of the table may belong to another one since the origin was restored.
func lessen(rel *wal.Relation, there map[int16]string, here func(string) bool) (*wal.Relation, []int) {
	named := map[string]bool{}
	for _, name := range there {
		named[name] = true
	}
	for _, k := range rel.KeyColumns() {
		if there[wal.NumOf(rel.Columns[k].ID)] != rel.Columns[k].Name {
			return nil, nil
		}
	}
	out := *rel
	out.Columns, out.PrimaryKey = nil, nil
	var kept []int
	at := make([]int, len(rel.Columns))
	for i, c := range rel.Columns {
		if _, ok := there[wal.NumOf(c.ID)]; !ok && !named[c.Name] && !here(c.Name) {
			at[i] = -1
			continue
		}
		at[i] = len(kept)
		kept, out.Columns = append(kept, i), append(out.Columns, c)
	}
	if len(kept) == 0 || len(kept) == len(rel.Columns) || slices.ContainsFunc(rel.PrimaryKey, func(k int) bool { return at[k] < 0 }) {
		return nil, nil
	}
	for _, k := range rel.PrimaryKey {
		out.PrimaryKey = append(out.PrimaryKey, at[k])
	}
	return &out, kept
}
