package apply

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/rowkey"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// querier is what reading the catalog needs.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// tableSchema is a local table as the catalog has it now.
type tableSchema struct {
	name      wal.RelationName
	rel       *wal.Relation // the description that it was read for
	columns   []tableColumn
	index     map[string]int
	plain     bool // no partitioned table: statements must not reach its children
	immediate bool // every unique index is checked at once, so ON CONFLICT may be used
	fires     bool // a row trigger fires here also for applied rows (ENABLE REPLICA or ALWAYS)
	key       *rowkey.Key
	deferred  []deferred // deferrable constraints
	// references are foreign keys onto the table that cascade; read only where they are enforced.
	references []reference
}

type tableColumn struct {
	name      string
	typ       string // format_type under an empty search_path, without a length
	oid       uint32
	generated bool
	always    bool // GENERATED ALWAYS AS IDENTITY
	input     bool // statement.Param.Input
}

const schemaSQL = `select col.attname, pg_catalog.format_type(col.atttypid, -1), col.atttypid::int8,
  col.attgenerated <> '', col.attidentity = 'a', ` + rowkey.InputSQL + `, c.relkind = 'r',
  not exists (select from pg_catalog.pg_index i where i.indrelid = c.oid
    and (i.indisunique or i.indisexclusion) and not i.indimmediate),
  exists (select from pg_catalog.pg_trigger g where g.tgrelid = c.oid and not g.tgisinternal and g.tgenabled in ('R', 'A'))
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute col on col.attrelid = c.oid and col.attnum > 0 and not col.attisdropped
where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p')
order by col.attnum`

func loadSchema(ctx context.Context, q querier, name wal.RelationName) (*tableSchema, error) {
	rows, err := q.Query(ctx, schemaSQL, name.Schema, name.Name)
	if err != nil {
		return nil, fmt.Errorf("read definition of %s: %w", name, err)
	}
	defer rows.Close()
	t := &tableSchema{name: name, index: map[string]int{}}
	for rows.Next() {
		var c tableColumn
		var oid int64
		if err := rows.Scan(&c.name, &c.typ, &oid, &c.generated, &c.always, &c.input, &t.plain, &t.immediate, &t.fires); err != nil {
			return nil, fmt.Errorf("read definition of %s: %w", name, err)
		}
		c.oid = uint32(oid)
		t.index[c.name] = len(t.columns)
		t.columns = append(t.columns, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read definition of %s: %w", name, err)
	}
	if len(t.columns) == 0 {
		return nil, &schemaError{name: name, code: "42P01", what: "the table does not exist here"}
	}
	if t.key, err = rowkey.Load(ctx, q, name); err != nil || t.immediate {
		return t, err
	}
	t.deferred, err = loadDeferred(ctx, q, name)
	return t, err
}

// schemaError says that a table here cannot take the events of a table there.
type schemaError struct {
	name wal.RelationName
	code string // the SQLSTATE that PostgreSQL would give
	what string
}

func (e *schemaError) Error() string { return fmt.Sprintf("apply to %s: %s", e.name, e.what) }

// Hint says what to do about it.
func (e *schemaError) Hint() string {
	return "bring the table to the same definition in both regions; parked changes are retried by themselves"
}

// target joins a relation of an origin with the local table: which column goes where, what
// identifies a row, where the stamp is.
type target struct {
	schema *tableSchema
	rel    *wal.Relation
	table  string
	params []statement.Param // one for each column of rel
	key    []int             // positions in rel
	insert []int             // positions in rel to write on insert
	update []int             // positions in rel to write on update, the key left out
	image  []int             // positions in rel that the local image is read from
	always []int             // positions in rel that no update can set, the key left out
	cols   conflict.Columns
	shape  statement.Shape
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
	t.params = make([]statement.Param, len(rel.Columns))
	for i := range rel.Columns {
		n, ok := s.index[rel.Columns[i].Name]
		if !ok {
			missing = append(missing, rel.Columns[i].Name)
			continue
		}
		c := s.columns[n]
		t.params[i] = statement.Param{Name: c.name, Type: c.typ, Input: c.input}
		t.image = append(t.image, i)
		if c.generated {
			continue // computed here; only read, so that contents compare
		}
		t.insert = append(t.insert, i)
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
			what: "columns are missing here: " + strings.Join(missing, ", ")}
	}
	for n, k := range t.key {
		p := s.key.Columns[n].Param
		t.params[k].Equal, t.params[k].Collation = p.Equal, p.Collation
	}
	version, updatedAt := policy.stampColumns(s.name)
	t.cols = conflict.ColumnsOf(rel, version, updatedAt)
	t.shape.Table, t.shape.Only = t.table, s.plain
	if t.cols.Version >= 0 {
		t.shape.Version = version
	}
	if t.cols.UpdatedAt >= 0 {
		t.shape.UpdatedAt = updatedAt
		t.shape.UpdatedType = t.params[t.cols.UpdatedAt].Type
	}
	t.shape.Plain = !s.immediate
	return t, nil
}

// sameKey holds the key of an origin against the one here. Both regions have to name rows in
// the same way, or neither would find what the other one knows of a row.
func sameKey(s *tableSchema, rel *wal.Relation) error {
	there := rel.KeyColumns()
	same := len(there) == len(s.key.Columns)
	for n, k := range there {
		same = same && s.key.Columns[n].Name == rel.Columns[k].Name && s.key.Columns[n].Form == rel.Columns[k].Form
	}
	if !same {
		return &schemaError{name: s.name, code: "42P10", what: fmt.Sprintf("rows are identified by %s at the origin and by %s here", keyNames(rel), s.keyNames())}
	}
	if column, why := s.key.Unknown(); column != "" {
		return &schemaError{name: s.name, code: "42883", what: fmt.Sprintf("key column %s: %s", column, why)}
	}
	return nil
}

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
