package rowkey

import (
	"context"
	"fmt"

	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// askRows bounds one question to the server.
const askRows = 1000

// Fill sets Keys of every change of rel whose key only the server can tell and which has none
// yet. k must describe the key of rel. Values that the types here do not take are an error.
func Fill(ctx context.Context, q Querier, k *Key, rel *wal.Relation, changes []*wal.Change) error {
	for len(changes) > 0 {
		n := min(len(changes), askRows)
		if err := fill(ctx, q, k, rel, changes[:n]); err != nil {
			return err
		}
		changes = changes[n:]
	}
	return nil
}

func fill(ctx context.Context, q Querier, k *Key, rel *wal.Relation, changes []*wal.Change) error {
	var asked []statement.Asked
	var at []int // positions in rel
	for n, i := range rel.KeyColumns() {
		if n >= len(k.Columns) || k.Columns[n].Form != rel.Columns[i].Form {
			return fmt.Errorf("ask for keys of %s: the key here is another one", rel)
		}
		if c := &k.Columns[n]; c.Form.Asked() {
			asked = append(asked, statement.Asked{Param: c.asked(), Lower: c.Form == wal.FormLower, Hash: c.Hash})
			at = append(at, i)
		}
	}
	var rows []wal.Tuple
	for _, c := range changes {
		if c.New != nil {
			rows = append(rows, c.New)
		}
		if c.Old != nil {
			rows = append(rows, c.Old)
		}
	}
	args := make([]any, len(at))
	for n, i := range at {
		texts := make([]*string, len(rows))
		for j, row := range rows {
			texts[j] = wal.TextOf(rel.Columns[i].OID, row[i])
		}
		args[n] = texts
	}
	answers := make([][][]byte, 0, len(rows))
	found, err := q.Query(ctx, statement.Ask(asked), args...)
	if err != nil {
		return fmt.Errorf("ask for keys of %s: %w", rel, err)
	}
	defer found.Close()
	for found.Next() {
		one := make([][]byte, len(at))
		for i, v := range found.RawValues() {
			one[i] = append([]byte{}, v...)
		}
		answers = append(answers, one)
	}
	if err := found.Err(); err != nil {
		return fmt.Errorf("ask for keys of %s: %w", rel, err)
	}
	if len(answers) != len(rows) {
		return fmt.Errorf("ask for keys of %s: %d answers to %d questions", rel, len(answers), len(rows))
	}
	for _, c := range changes {
		c.Keys = &wal.Keys{}
		if c.New != nil {
			c.Keys.New = rel.AppendKey(nil, c.New, answers[0]...)
			answers = answers[1:]
		}
		if c.Old != nil {
			c.Keys.Old = rel.AppendKey(nil, c.Old, answers[0]...)
			answers = answers[1:]
		}
	}
	return nil
}

// asked is the parameter of a question for the key.
func (c *Column) asked() statement.Param {
	p := c.Param
	if c.base != "" {
		p.Type = c.base
	}
	return p
}

// Describe sets what the publisher has to know of the key of rel: PrimaryKey, Deferrable, Partitioned, NotNull, the
// form of each key column, and behind the others the generated columns of the key that the
// WAL does not hold. It leaves rel as it is when a key column is missing for another reason.
func (k *Key) Describe(rel *wal.Relation) {
	var key []int
	columns := append([]wal.Column(nil), rel.Columns...)
	for i := range k.Columns {
		c := &k.Columns[i]
		at := rel.Column(c.Name)
		if at < 0 && c.Generated == "" && k.Width == len(rel.Columns) {
			at = c.Place // renamed since: the WAL is older than the catalog
		}
		if at < 0 {
			if c.Generated == "" {
				return
			}
			at = len(columns)
			columns = append(columns, wal.Column{Name: c.Name, OID: c.OID, TypeMod: -1, Key: true, Computed: true})
		}
		columns[at].Form = c.Form
		key = append(key, at)
	}
	if key != nil {
		rel.Columns, rel.PrimaryKey, rel.Deferrable = columns, key, k.Deferrable
		rel.Partitioned = k.Partitioned
		for _, name := range k.NotNull {
			if at := rel.Column(name); at >= 0 {
				rel.NotNull = append(rel.NotNull, at)
			}
		}
	}
}
