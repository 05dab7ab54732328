package poll

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/adapter/rowkey"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Stamp columns by their names; a table may have one, both or none.
const (
	VersionColumn   = "version"
	UpdatedAtColumn = "updated_at"
)

// Wish is what a job wants of one table.
type Wish struct {
	Name    wal.RelationName
	Columns []string // nil: all
}

// MismatchError says that a table cannot be copied as its two sides are.
type MismatchError struct {
	Table  wal.RelationName
	What   string
	Remedy string // "" where the words say it
}

func (e *MismatchError) Error() string { return "table " + e.Table.String() + " " + e.What }

// Hint says what to do.
func (e *MismatchError) Hint() string { return e.Remedy }

// Table is one table as it is read. It is made anew for each run, so that a table that was altered
// between two runs is read as it is.
type Table struct {
	Rel  *wal.Relation
	Cols conflict.Columns
	// Notes are what differs between the two sides and does not keep the rows from being copied.
	Notes []string
	// OID is the source's table. Unfit says why its changes cannot be told from a slot; "": they can.
	OID   uint32
	Unfit string

	key     *rowkey.Key // at the source
	there   *rowkey.Key // at the destination
	names   []string
	timed   bool            // an index of the source begins with the time column
	unlike  map[string]bool // columns that have other types in the destination
	from    statement.Shape
	to      statement.Shape
	fromSQL string
}

// Describe compares a table on both sides. A *MismatchError is about this table alone.
func Describe(ctx context.Context, source, destination *pgx.Conn, w Wish) (*Table, error) {
	s, err := load(ctx, source, w.Name, "is not in the source")
	if err != nil {
		return nil, err
	}
	d, err := load(ctx, destination, w.Name, "is not in the destination")
	if err != nil {
		return nil, err
	}
	t := &Table{OID: s.OID}
	if t.key, err = rowkey.Load(ctx, source, w.Name); err != nil {
		return nil, err
	}
	if t.there, err = rowkey.Load(ctx, destination, w.Name); err != nil {
		return nil, err
	}
	if err := t.sameKey(w.Name); err != nil {
		return nil, err
	}
	t.unlike = map[string]bool{}
	chosen, err := t.choose(w, s, d)
	if err != nil {
		return nil, err
	}
	t.Rel = &wal.Relation{Schema: s.Schema, Name: s.Name, Identity: wal.IdentityFull}
	for _, c := range chosen {
		t.Rel.Columns = append(t.Rel.Columns, wal.Column{ID: wal.ColumnID(s.OID, c.Num), Name: c.Name, OID: c.TypeOID, TypeMod: c.TypMod, Key: true})
		t.names = append(t.names, c.Name)
	}
	t.key.Describe(t.Rel)
	t.Cols = conflict.ColumnsOf(t.Rel, VersionColumn, UpdatedAtColumn)
	t.from = statement.Shape{Table: s.SQL(), Only: !t.key.Partitioned, Key: t.key.Params()}
	t.to = statement.Shape{Table: d.SQL(), Only: !t.there.Partitioned, Key: t.there.Params()}
	t.fromSQL = s.SQL()
	if !t.key.Partitioned {
		t.fromSQL = "only " + t.fromSQL
	}
	if err := t.readable(ctx, source, "source", t.from); err != nil {
		return nil, err
	}
	if err := t.readable(ctx, destination, "destination", t.to); err != nil {
		return nil, err
	}
	t.Unfit = unfit(s)
	if i := t.Cols.UpdatedAt; i >= 0 && t.Rel.Columns[i].OID == wal.OIDTimestamptz { // others have no place in time without a zone
		t.timed, err = timeIndex(ctx, source, s.OID, UpdatedAtColumn)
	}
	return t, err
}

// unfit says why a slot does not tell which rows of a table were written. A table without replica identity must never be
// published: its updates and deletes fail from then on.
func unfit(s *pg.Table) string {
	switch {
	case s.Kind != 'r' || s.Partition || s.HasChildren:
		return "is partitioned, or inherited from"
	case s.Unlogged:
		return "is unlogged"
	case s.Identity == wal.IdentityFull:
		return ""
	case s.Identity == wal.IdentityDefault && s.PrimaryKey != nil && !s.DeferrableKey:
		return ""
	case s.Identity == wal.IdentityIndex && s.IdentityIndex != nil:
		for _, c := range s.PrimaryKey {
			if !slices.Contains(s.IdentityIndex, c) {
				return "has a replica identity without all columns of its key" // where a row left its key is not told
			}
		}
		return ""
	}
	return "has no replica identity"
}

// readable asks the server whether this role may read all rows and the chosen columns: rights on schema, table and columns, and
// that row security hides nothing.
func (t *Table) readable(ctx context.Context, conn *pgx.Conn, end string, shape statement.Shape) error {
	args := make([]any, len(t.Rel.PrimaryKey))
	for i := range args {
		args[i] = []string{}
	}
	rows, err := conn.Query(ctx, statement.Read(shape, t.names), args...)
	if err == nil {
		rows.Close()
		err = rows.Err()
	}
	if pg.Code(err) == "42501" {
		var said *pgconn.PgError
		errors.As(err, &said)
		return &MismatchError{t.Rel.Ref(), "may not be read in the " + end + ": " + said.Message, "in the " + end + ": grant usage on schema " + statement.Quote(t.Rel.Schema) +
			", and select on the table; where row security is on, the role needs bypassrls"}
	}
	if err != nil {
		return fmt.Errorf("look at %s in the %s: %w", t.Rel, end, err)
	}
	return nil
}

// Shape names the columns that are read, and what they are in the source.
func (t *Table) Shape() string {
	var b strings.Builder
	for i := range t.Rel.Columns {
		c := &t.Rel.Columns[i]
		fmt.Fprintf(&b, "%q %d %d %d,", c.Name, c.ID, c.OID, c.TypeMod)
	}
	return b.String()
}

func load(ctx context.Context, conn *pgx.Conn, name wal.RelationName, missing string) (*pg.Table, error) {
	t, err := pg.LoadTable(ctx, conn, name.Schema, name.Name)
	if errors.Is(err, pg.ErrNoTable) {
		return nil, &MismatchError{Table: name, What: missing}
	}
	return t, err
}

// sameKey refuses a table whose rows cannot be told apart in one way on both sides.
func (t *Table) sameKey(name wal.RelationName) error {
	names := func(k *rowkey.Key) (out []string) {
		for i := range k.Columns {
			out = append(out, k.Columns[i].Name)
		}
		return out
	}
	from, to := names(t.key), names(t.there)
	switch {
	case len(from) == 0:
		return &MismatchError{Table: name, What: "has no primary key in the source"}
	case !slices.Equal(from, to):
		return &MismatchError{Table: name, What: fmt.Sprintf("has the key (%s) in the source and (%s) in the destination", strings.Join(from, ", "), strings.Join(to, ", "))}
	case t.key.Generated() != nil || t.there.Generated() != nil:
		return &MismatchError{Table: name, What: "has a generated column in its key"}
	}
	for _, k := range []*rowkey.Key{t.key, t.there} {
		if column, why := k.Unknown(); column != "" {
			return &MismatchError{Table: name, What: fmt.Sprintf("has the key column %s: %s", column, why)}
		}
	}
	return nil
}

// choose returns the source's columns that are copied, in the order of the source.
func (t *Table) choose(w Wish, s, d *pg.Table) ([]*pg.Column, error) {
	for _, n := range w.Columns {
		if s.Column(n) == nil {
			return nil, &MismatchError{Table: w.Name, What: fmt.Sprintf("has no column %q in the source", n)}
		}
	}
	inKey := func(n string) bool {
		return slices.ContainsFunc(t.key.Columns, func(c rowkey.Column) bool { return c.Name == n })
	}
	var chosen []*pg.Column
	for i := range s.Columns {
		c := &s.Columns[i]
		if w.Columns != nil && !slices.Contains(w.Columns, c.Name) && !inKey(c.Name) {
			continue
		}
		there := d.Column(c.Name)
		switch {
		case c.Generated != 0 && (there == nil || there.Generated != 0):
		case there == nil && w.Columns != nil:
			return nil, &MismatchError{Table: w.Name, What: fmt.Sprintf("has no column %q in the destination", c.Name)}
		case there == nil:
			t.Notes = append(t.Notes, fmt.Sprintf("column %q is not in the destination and is not copied", c.Name))
		case there.Generated != 0:
			t.Notes = append(t.Notes, fmt.Sprintf("column %q is generated in the destination and is not copied", c.Name))
		default:
			t.unlike[c.Name] = there.TypeName != c.TypeName || there.TypMod != c.TypMod
			if there.TypeName != c.TypeName {
				t.Notes = append(t.Notes, fmt.Sprintf("column %q is %s in the source and %s in the destination", c.Name, c.TypeName, there.TypeName))
			}
			chosen = append(chosen, c)
		}
	}
	for i := range d.Columns {
		c := &d.Columns[i]
		if s.Column(c.Name) == nil && c.NotNull && !c.HasDefault && c.Identity == 0 && c.Generated == 0 {
			return nil, &MismatchError{Table: w.Name, What: fmt.Sprintf("needs a value for column %q of the destination, which the source does not have", c.Name)}
		}
	}
	return chosen, nil
}

const timeIndexSQL = `select exists (select from pg_catalog.pg_index i join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
where i.indrelid = $1::int8::oid and a.attname = $2 and i.indisvalid and i.indpred is null)`

// timeIndex reports whether rows can be found by the time column without reading the table.
func timeIndex(ctx context.Context, conn *pgx.Conn, oid uint32, column string) (is bool, err error) {
	if err := conn.QueryRow(ctx, timeIndexSQL, int64(oid), column).Scan(&is); err != nil {
		return false, fmt.Errorf("look for an index: %w", err)
	}
	return is, nil
}
