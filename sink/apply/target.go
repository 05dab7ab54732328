package apply

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

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
	immediate bool // every unique index is checked at once, so ON CONFLICT may be used
	fires     bool // a row trigger fires here also for applied rows (ENABLE REPLICA or ALWAYS)
}

type tableColumn struct {
	name      string
	typ       string // format_type under an empty search_path, without a length
	oid       uint32
	generated bool
	always    bool // GENERATED ALWAYS AS IDENTITY
}

const schemaSQL = `select a.attname, pg_catalog.format_type(a.atttypid, -1), a.atttypid::int8,
  a.attgenerated <> '', a.attidentity = 'a',
  not exists (select from pg_catalog.pg_index i where i.indrelid = c.oid
    and (i.indisunique or i.indisexclusion) and not i.indimmediate),
  exists (select from pg_catalog.pg_trigger g where g.tgrelid = c.oid and not g.tgisinternal and g.tgenabled in ('R', 'A'))
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p')
order by a.attnum`

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
		if err := rows.Scan(&c.name, &c.typ, &oid, &c.generated, &c.always, &t.immediate, &t.fires); err != nil {
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
	return t, nil
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
	cols   conflict.Columns
	shape  statement.Shape
}

func newTarget(s *tableSchema, rel *wal.Relation, policy Policy) (*target, error) {
	t := &target{schema: s, rel: rel, table: statement.Quote(s.name.Schema) + "." + statement.Quote(s.name.Name)}
	t.key = rel.KeyColumns()
	inKey := map[int]bool{}
	for _, k := range t.key {
		inKey[k] = true
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
		t.params[i] = statement.Param{Name: c.name, Type: c.typ}
		t.image = append(t.image, i)
		if c.generated {
			if inKey[i] {
				return nil, &schemaError{name: s.name, code: "428C9", what: "key column " + c.name + " is generated here"}
			}
			continue // computed here; only read, so that contents compare
		}
		t.insert = append(t.insert, i)
		if c.always {
			t.shape.Override = true
		}
		if !inKey[i] && !c.always {
			t.update = append(t.update, i)
		}
	}
	if len(missing) > 0 {
		return nil, &schemaError{name: s.name, code: "42703",
			what: "columns are missing here: " + strings.Join(missing, ", ")}
	}
	version, updatedAt := policy.stampColumns(s.name)
	t.cols = conflict.ColumnsOf(rel, version, updatedAt)
	t.shape.Table = t.table
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
