package apply

import (
	"fmt"
	"strings"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/counterpart"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// target joins a relation of an origin with the local table: which column goes where, what
// identifies a row, where the stamp is.
type target struct {
	schema   *tableSchema
	rel      *wal.Relation
	table    string
	params   []statement.Param // one for each column of rel
	key      []int             // positions in rel
	insert   []int             // positions in rel to write on insert
	update   []int             // positions in rel to write on update, the key left out
	image    []int             // positions in rel that the local image is read from
	always   []int             // positions in rel that no update can set, the key left out
	check    []int             // positions in rel whose stored values may differ from those sent
	made     []int             // those of them that are generated here, and are not at the origin
	spelling []spelling        // one for each column of rel
	cols     conflict.Columns
	unlike   bool                 // the table here does not have the stamp columns that rel has, or has others
	matched  []counterpart.Column // columns of the origin that are matched for the first time
	shape    statement.Shape
	namesake *namesake           // passedOn
	rows     map[rowShape]string // statements of queueRow
	// rowBytes is about how large the rows are that were read last.
	rowBytes int
}

func newTarget(s *tableSchema, rel *wal.Relation, policy Policy) (*target, error) {
	t := &target{schema: s, rel: rel, table: statement.Table(s.name.Schema, s.name.Name)}
	t.key = rel.KeyColumns()
	inKey := map[int]bool{}
	for _, k := range t.key {
		inKey[k] = true
	}
	if err := sameKey(s, rel); err != nil {
		return nil, err
	}
	var missing []string
	t.params, t.spelling = make([]statement.Param, len(rel.Columns)), make([]spelling, len(rel.Columns))
	for i := range rel.Columns {
		n, ok := s.index[rel.Columns[i].Name]
		if !ok {
			missing = append(missing, rel.Columns[i].Name)
			continue
		}
		c := s.columns[n]
		t.params[i] = statement.Param{Name: c.name, Type: c.typ, Input: c.input}
		t.spelling[i] = spellingOf(c.oid, rel.Columns[i].OID)
		t.image = append(t.image, i)
		if c.generated { // computed here; only read, so that contents compare
			if i < rel.Sent() {
				t.check, t.made = append(t.check, i), append(t.made, i) // the origin gives it a value, which may be another one
			}
			continue
		}
		t.insert = append(t.insert, i)
		if s.rewrites || c.mayDiffer(&rel.Columns[i]) {
			t.check = append(t.check, i)
		}
		if c.always {
			t.shape.Override = true
			if !inKey[i] {
				t.always = append(t.always, i)
			}
		}
		// A key that has several spellings takes over that of the winner.
		if (!inKey[i] || rel.Columns[i].Form != wal.FormPlain) && !c.always {
			t.update = append(t.update, i)
		}
	}
	if len(missing) > 0 {
		return nil, &schemaError{name: s.name, code: "42703",
			what: missingHere + strings.Join(missing, ", ")}
	}
	for n, k := range t.key {
		p := s.key.Columns[n].Param
		t.params[k].Equal, t.params[k].Collation = p.Equal, p.Collation
	}
	version, updatedAt := policy.stampColumns(s.name)
	t.cols = conflict.ColumnsOf(rel, version, updatedAt)
	t.unlike = !t.cols.Alike(s.stamps(version, updatedAt))
	t.shape.Table, t.shape.Only = t.table, s.plain
	if t.cols.Version >= 0 {
		t.shape.Version = version
		t.shape.VersionText = !integer(s.columns[s.index[version]].oid)
	}
	if t.cols.UpdatedAt >= 0 {
		t.shape.UpdatedAt = updatedAt
		t.shape.UpdatedType = t.params[t.cols.UpdatedAt].Type
		oid := s.columns[s.index[updatedAt]].oid
		t.shape.TimeText = oid != wal.OIDTimestamptz && oid != wal.OIDTimestamp
	}
	t.shape.Plain = !s.immediate
	return t, nil
}

// missingHere is in front of the names of columns that a table lacks.
const missingHere = "columns are missing here: "

// mayDiffer reports whether the column may store another value than the one that comes from the
// given column of the origin, without an error: a smaller scale rounds, a date drops the time.
func (c *tableColumn) mayDiffer(there *wal.Column) bool {
	builtIn := func(oid uint32) bool { return oid < firstUserOID }
	switch {
	case builtIn(c.oid) != builtIn(there.OID):
		return true
	case !builtIn(c.oid):
		return c.coerces || c.wire != there.Type || c.mod != -1 && c.mod != there.TypeMod
	case c.oid == there.OID:
		return c.mod != -1 && c.mod != there.TypeMod
	}
	return !integer(c.oid) || !integer(there.OID)
}

// firstUserOID is where the oids begin that a database gives out itself; others mean the same
// on every server.
const firstUserOID = 16384

// sameKey holds the key of an origin against the one here. Both regions have to name rows in
// the same way, or neither would find what the other one knows of a row.
func sameKey(s *tableSchema, rel *wal.Relation) error {
	there := rel.KeyColumns()
	same := len(there) == len(s.key.Columns)
	for n, k := range there {
		same = same && s.key.Columns[n].Name == rel.Columns[k].Name && s.key.Columns[n].Form == rel.Columns[k].Form
		if same && !sameText(s.key.Columns[n].OID, rel.Columns[k].OID) {
			return &schemaError{name: s.name, code: otherKey, what: fmt.Sprintf("key column %s is of type %s here and of another one at the origin", s.key.Columns[n].Name, s.key.Columns[n].Param.Type)}
		}
	}
	if !same {
		return &schemaError{name: s.name, code: otherKey, what: fmt.Sprintf("rows are identified by %s at the origin and by %s here", keyNames(rel), s.keyNames())}
	}
	if column, why := s.key.Unknown(); column != "" {
		return &schemaError{name: s.name, code: "42883", what: fmt.Sprintf("key column %s: %s", column, why)}
	}
	return nil
}

// sameText reports whether two types of key columns print one value in the same way.
func sameText(here, there uint32) bool {
	words := func(oid uint32) bool { return oid == wal.OIDText || oid == oidVarchar }
	return here == there || here >= firstUserOID || there >= firstUserOID || integer(here) && integer(there) || words(here) && words(there)
}

const oidVarchar = 1043

func integer(oid uint32) bool { return oid == wal.OIDInt2 || oid == wal.OIDInt4 || oid == wal.OIDInt8 }

func floating(oid uint32) bool { return oid == wal.OIDFloat4 || oid == wal.OIDFloat8 }

func keyNames(rel *wal.Relation) string {
	var names []string
	for _, k := range rel.KeyColumns() {
		names = append(names, keyName(rel.Columns[k].Name, rel.Columns[k].Form))
	}
	return nameList(names)
}

func (s *tableSchema) keyNames() string {
	var names []string
	for i := range s.key.Columns {
		names = append(names, keyName(s.key.Columns[i].Name, s.key.Columns[i].Form))
	}
	return nameList(names)
}

func keyName(name string, form wal.Form) string {
	if form == wal.FormPlain {
		return name
	}
	return name + " as " + form.String()
}

func nameList(names []string) string {
	if names == nil {
		return "nothing"
	}
	return "(" + strings.Join(names, ", ") + ")"
}

// keyless reports that rows can only be told apart by their whole contents.
func (t *target) keyless() bool { return t.key == nil }

// stampless reports that stamps are kept beside the table.
func (t *target) stampless() bool { return t.cols.Stampless() }

// paramsOf returns the parameters of the given columns, marked with how their values travel.
func (t *target) paramsOf(cols []int, binary func(int) bool) []statement.Param {
	ps := make([]statement.Param, len(cols))
	for i, c := range cols {
		ps[i] = t.params[c]
		if binary(c) {
			ps[i].Binary = true
		}
	}
	return ps
}
