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
}

// Relation describes a published table at one moment of its origin's log. It is immutable
// once made; a changed table gets a new Relation.
type Relation struct {
	Schema   string
	Name     string
	Identity Identity
	Columns  []Column
	// PrimaryKey lists the primary key's columns by position in Columns, in key order,
	// where the origin knows them (FULL does not say). nil when unknown or absent.
	PrimaryKey []int
}

// RelationName is a table's schema and name. It is comparable and serves as map key.
type RelationName struct{ Schema, Name string }

// Ref returns the relation's name as a map key.
func (r *Relation) Ref() RelationName { return RelationName{r.Schema, r.Name} }

// String prints schema.table without quoting; for logs, never for SQL.
func (n RelationName) String() string { return n.Schema + "." + n.Name }

// String prints schema.table without quoting; for logs, never for SQL.
func (r *Relation) String() string { return r.Schema + "." + r.Name }

// Column returns the position of the named column, or -1.
func (r *Relation) Column(name string) int {
	for i := range r.Columns {
		if r.Columns[i].Name == name {
			return i
		}
	}
	return -1
}

// KeyColumns returns the positions of the columns that identify a row: the primary key
// where the origin named it, else the replica identity's columns. It is nil for a table
// with identity FULL and no known primary key, and for NOTHING.
func (r *Relation) KeyColumns() []int {
	if r.PrimaryKey != nil && r.Identity != IdentityIndex {
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
