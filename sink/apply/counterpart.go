package apply

import (
	"context"
	"slices"
	"strings"

	"github.com/pgwaltz/pgwaltz/conflict/counterpart"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A name may pass from one column to another: two swap theirs, one is renamed away and another one gets the name, one is dropped
// and added again. As long as only one region has done that, a name means two things. So the origin says what each column is
// (wal.Column.ID), and it is known here which column that stands for (counterpart.Map). A change that would bring a value into
// another column than its own is parked (stateSwapped). When the origin's newest description calls all columns as they are called here,
// parked changes go in under the names that their columns have now.
//
// Columns are matched for the first time by their names. That, and every name in a statement, holds only while the table is as
// it was read: whoever has written or matched looks again before the commit, under the locks that the rows hold (guardDefinitions).

// stateSwapped is the SQLSTATE of changes that name columns as they are called in one region only.
const stateSwapped = "PW006"

// match finds the columns here that the columns of a relation are to go into, if its origin says what they are. It returns those that are matched
// now, for the first time. The error says which names are other columns here.
func (a *Applier) match(rel *wal.Relation, s *tableSchema) (matched []counterpart.Column, err error) {
	if len(rel.Columns) == 0 || !rel.Numbered() {
		return nil, nil
	}
	table := wal.TableOf(rel.Columns[0].ID)
	known := a.counterparts(table, s)
	var other []string
	for i := range rel.Columns {
		c := &rel.Columns[i]
		n, here := s.index[c.Name]
		if !here {
			continue // missing here: said by the name
		}
		k, ok := known[c.ID]
		switch {
		case ok && k.Num == s.columns[n].num:
		case ok, taken(known, s.columns[n].num):
			other = append(other, c.Name)
		default:
			matched = append(matched, counterpart.Column{Theirs: c.ID, Table: s.oid, Num: s.columns[n].num, Name: c.Name})
		}
	}
	if other != nil {
		return nil, &schemaError{name: s.name, code: stateSwapped, what: "columns of these names are other ones here than at the origin, renamed, or dropped and added again, in one region only: " + strings.Join(other, ", ")}
	}
	if len(matched) > 0 {
		matched = append(matched, a.cfg.Suspects.columns.Leaves(table, s.oid)...)
	}
	return matched, nil
}

// taken reports whether a column here stands for another one of the table already.
func taken(known map[uint64]counterpart.Column, num int16) bool {
	for _, k := range known {
		if k.Num == num {
			return true
		}
	}
	return false
}

// counterparts are those of the columns of a table of the origin in a table here, by the ID.
func (a *Applier) counterparts(table uint32, s *tableSchema) map[uint64]counterpart.Column {
	out := map[uint64]counterpart.Column{}
	if a.cfg.Self {
		if table == s.oid {
			for _, c := range s.columns {
				id := wal.ColumnID(table, c.num)
				out[id] = counterpart.Column{Theirs: id, Table: table, Num: c.num, Name: c.name}
			}
		}
		return out
	}
	for _, k := range a.cfg.Suspects.columns.Of(table) {
		if k.Table == s.oid {
			out[k.Theirs] = k
		}
	}
	return out
}

// unnumbered refuses changes of which the origin does not know what their columns are, where it did know of others of the
// table: the names may have passed from one to another meanwhile.
func (a *Applier) unnumbered(rel *wal.Relation, t *target) error {
	if a.cfg.Self || len(rel.Columns) == 0 || rel.Numbered() || !a.cfg.Suspects.columns.Stands(t.schema.oid) {
		return nil
	}
	return &schemaError{name: t.schema.name, code: stateSwapped, what: "the table was altered at the origin about when the change was made, and nobody knows which columns its names stood for"}
}

// alike reports whether the origin calls its columns, by the newest description, as they are called here.
func (a *Applier) alike(table uint32, s *tableSchema) bool {
	known := a.counterparts(table, s)
	for _, k := range known {
		if c := s.byNum(k.Num); k.Name != "" && (c == nil || c.name != k.Name) {
			return false
		}
	}
	return len(known) > 0
}

func (s *tableSchema) byNum(num int16) *tableColumn {
	for i := range s.columns {
		if s.columns[i].num == num {
			return &s.columns[i]
		}
	}
	return nil
}

// renumbered describes the relation of a parked change by what its columns are called here now, and returns the places of those that are
// left: a column that both regions have dropped is nobody's loss. It returns nil where that is not known, or would change
// nothing.
func (r *Retrier) renumbered(ctx context.Context, rel *wal.Relation) (*wal.Relation, []int, error) {
	if len(rel.Columns) == 0 || !rel.Numbered() {
		return nil, nil, nil
	}
	s, err := loadSchema(ctx, r.a.conn, rel.Ref(), r.a.cfg.Replica)
	if err != nil {
		return nil, nil, err
	}
	table := wal.TableOf(rel.Columns[0].ID)
	if !r.a.alike(table, s) {
		return nil, nil, nil
	}
	known := r.a.counterparts(table, s)
	out := *rel
	out.Columns, out.PrimaryKey = nil, nil
	var places []int
	at := make([]int, len(rel.Columns))
	for i := range rel.Columns {
		c := rel.Columns[i]
		k, ok := known[c.ID]
		at[i] = -1
		here := s.byNum(k.Num)
		switch {
		case !ok && r.a.cfg.Self && table == s.oid: // dropped
			continue
		case !ok: // matched by the name
		case here != nil:
			c.Name = here.name
		case k.Name == "":
			continue
		default:
			return nil, nil, nil
		}
		if out.Column(c.Name) >= 0 {
			return nil, nil, nil
		}
		at[i] = len(places)
		places, out.Columns = append(places, i), append(out.Columns, c)
	}
	for _, k := range rel.KeyColumns() {
		if at[k] < 0 {
			return nil, nil, nil
		}
	}
	for _, k := range rel.PrimaryKey {
		out.PrimaryKey = append(out.PrimaryKey, at[k])
	}
	if slices.EqualFunc(out.Columns, rel.Columns, func(a, b wal.Column) bool { return a.Name == b.Name }) {
		return nil, nil, nil
	}
	return &out, places, nil
}

// description is what renumbered returns.
type description struct {
	rel    *wal.Relation
	places []int
}

// under gives a parked change the names that its columns have now. It returns nil, and no error, where that is not known. Where
// a change merely lacks columns, swapped is false, and all others are called as they were, nothing has to be known of them; but what an own
// change lacks was dropped, and no later change may come to say so.
func (r *Retrier) under(ctx context.Context, c *parked.Change, swapped bool) (*target, error) {
	was := c.Transaction.Changes[0].Relation
	known, ok := r.now[was]
	if !ok {
		var err error
		if known.rel, known.places, err = r.renumbered(ctx, was); err != nil {
			return nil, err
		}
		r.now[was] = known
	}
	rel, places := known.rel, known.places
	if rel == nil || !swapped && !r.a.cfg.Self && !slices.ContainsFunc(rel.Columns, func(c wal.Column) bool { return was.Column(c.Name) < 0 || was.Columns[was.Column(c.Name)].ID != c.ID }) {
		return nil, nil
	}
	t, err := r.a.target(ctx, r.intern(rel))
	if err != nil {
		return nil, nil // what it lacks is said of the change as it is
	}
	return t, r.take(c, t, rel, places)
}

// unknown deals with a parked change of which nobody knows what its columns are, once the origin calls its columns as they are called
// here. A delete goes in: it names its row by the key. Of others the origin is asked for the rows that it holds under their keys.
func (r *Retrier) unknown(ctx context.Context, c *parked.Change, se *schemaError) (*target, error) {
	ch := &c.Transaction.Changes[0]
	now := r.a.cfg.Suspects.shapes.of(ch.Relation.Ref())
	if now == nil || !now.Numbered() {
		return nil, se
	}
	t, err := r.a.target(ctx, r.intern(now))
	if err != nil || !sameKeyColumns(ch.Relation, now) {
		return nil, se
	}
	if ch.Op == wal.Delete && slices.Equal(columnNames(ch.Relation), columnNames(now)) {
		ch.Relation = now
		return t, nil
	}
	return nil, &goneColumns{se, now}
}

func columnNames(rel *wal.Relation) []string {
	out := make([]string, len(rel.Columns))
	for i := range rel.Columns {
		out[i] = rel.Columns[i].Name
	}
	return out
}

// ours returns what describes the relations of other regions as this region's own: what is told is published from here, so its columns are named by
// what they are here. The rows were written or read under these names in this attempt.
func (a *Applier) ours() func(*wal.Relation) *wal.Relation {
	known := map[*wal.Relation]*wal.Relation{}
	return func(rel *wal.Relation) *wal.Relation {
		if known[rel] == nil {
			out := *rel
			out.Columns = slices.Clone(rel.Columns)
			var s *tableSchema
			for used := range a.named {
				if used.name == rel.Ref() {
					s = used // all of them say the same, or guardDefinitions refuses the commit
				}
			}
			for i := range out.Columns {
				out.Columns[i].ID = 0
				if s == nil {
					continue
				}
				if n, ok := s.index[out.Columns[i].Name]; ok {
					out.Columns[i].ID = wal.ColumnID(s.oid, s.columns[n].num)
				}
			}
			known[rel] = &out
		}
		return known[rel]
	}
}

// forgetNames begins another attempt. What was matched by one that was committed is known by now, and by one that was rolled back was
// matched for nothing.
func (a *Applier) forgetNames() {
	clear(a.named)
	clear(a.matching)
}

// storeMatched writes, in the open transaction, which columns were matched and what the origin calls its columns now. What it
// returns is settled when the transaction has committed.
func (a *Applier) storeMatched(ctx context.Context) ([]counterpart.Column, error) {
	if a.cfg.Self {
		return nil, nil
	}
	list := a.cfg.Suspects.columns.Unstored()
	for t := range a.matching {
		list = append(list, t.matched...)
	}
	return list, side(counterpart.Store(ctx, a.conn, a.cfg.Origin, list))
}
