package wal

// Identity is the replica identity of a relation as pg_class.relreplident has it.
type Identity byte

const (
	IdentityDefault Identity = 'd'
	IdentityNothing Identity = 'n'
	IdentityFull    Identity = 'f'
	IdentityIndex   Identity = 'i'
)

// Column describes one published column.
type Column struct {
	Name    string
	OID     uint32 // type oid at the origin; comparable between servers only below 16384
	Type    string // schema-qualified type name for user types, "" for built-in ones
	TypeMod int32
	Key     bool // in the replica identity; true for every column under FULL
	// Form says what of the value's text names the row; it matters for key columns only.
	Form Form
	// Computed: the WAL does not hold the column (a generated one of the key); the publisher
	// has the server compute it. Such columns stand at the end. Known at the origin only.
	Computed bool
	// ID is what the column is at its origin, whatever it is called: see ColumnID. 0 where that is not known.
	ID uint64
}

// ColumnID names a column for as long as it exists: by the OID of its table and its number there. A column that is
// dropped and added again is another one.
func ColumnID(table uint32, num int16) uint64 { return uint64(table)<<16 | uint64(uint16(num)) }

// TableOf is the OID of the table that a column ID names.
func TableOf(id uint64) uint32 { return uint32(id >> 16) }

// NumOf is the number of the column within its table that a column ID names.
func NumOf(id uint64) int16 { return int16(uint16(id)) }

// Relation describes a published table at one moment of its origin's WAL. It is immutable
// once made; a changed table gets a new Relation.
type Relation struct {
	Schema string
	Name   string
	// OID is the table's number at its origin, which it keeps when it is renamed. Known at the origin only; 0 elsewhere.
	OID      uint32
	Identity Identity
	Columns  []Column
	// PrimaryKey lists the columns that identify a row, by position in Columns and in the order
	// of their index: the primary key's, or with identity USING INDEX those of that index.
	// nil when the table has no such index, or the origin did not say.
	PrimaryKey []int
	// Deferrable: the index may hold two rows of one key while a transaction runs. Known at
	// the origin only.
	Deferrable bool
	// Partitioned: the rows are in partitions, which may have other replica identities: an old image
	// that is called full may hold the key alone. Known at the origin only.
	Partitioned bool
	// NotNull are columns of a partitioned table that are never NULL. Known at the origin only.
	NotNull []int
}

// Ref returns the relation's name as a map key.
func (r *Relation) Ref() RelationName { return RelationName{r.Schema, r.Name} }

// String prints schema.table as RelationName.String does; for logs and side tables.
func (r *Relation) String() string { return r.Ref().String() }

// Numbered reports whether the origin knew what each column is (Column.ID). Columns of several tables are none of one.
func (r *Relation) Numbered() bool {
	for i := range r.Columns {
		if id := r.Columns[i].ID; id == 0 || TableOf(id) != TableOf(r.Columns[0].ID) {
			return false
		}
	}
	return true
}

// Column returns the position of the named column, or -1.
func (r *Relation) Column(name string) int {
	for i := range r.Columns {
		if r.Columns[i].Name == name {
			return i
		}
	}
	return -1
}

// Sent is the number of columns that the WAL holds: all but the computed ones.
func (r *Relation) Sent() int {
	n := len(r.Columns)
	for n > 0 && r.Columns[n-1].Computed {
		n--
	}
	return n
}

// KeyColumns returns the positions of the columns that identify a row: those of the index
// that the origin named, else the replica identity's columns. It is nil for a table
// with identity FULL and no known key, and for NOTHING.
func (r *Relation) KeyColumns() []int {
	if r.PrimaryKey != nil {
		return r.PrimaryKey
	}
	if r.Identity == IdentityFull || r.Identity == IdentityNothing {
		return nil
	}
	var key []int
	for i := range r.Columns {
		if r.Columns[i].Key {
			key = append(key, i)
		}
	}
	return key
}
