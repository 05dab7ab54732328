package pg

import (
	"slices"
	"strings"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Names of the triggers that setup makes where applied rows would be changed by the
// application's own triggers. BEFORE triggers run in the order of their names, bytewise.
const (
	SaveTrigger    = "!pgwaltz_save"
	RestoreTrigger = "zzzz_pgwaltz_restore"
)

// Table is a table as the catalog has it at one moment.
type Table struct {
	OID         uint32
	Schema      string
	Name        string
	Owner       string
	Kind        byte // 'r' table, 'p' partitioned table
	Unlogged    bool
	Identity    wal.Identity
	Partition   bool             // is a partition of another table
	Root        wal.RelationName // topmost partitioned table; the table itself where it is none
	HasChildren bool             // other tables inherit from it, or it has partitions
	Extension   bool             // belongs to an extension
	RowSecurity bool
	Columns     []Column
	// PrimaryKey is the key's columns in key order; nil when there is none. DeferrableKey
	// is a key that PostgreSQL does not take as replica identity.
	PrimaryKey    []string
	DeferrableKey bool
	// IdentityIndex is the columns of the index that the identity USING INDEX names, in
	// index order; nil with any other identity, or when that index was dropped.
	IdentityIndex []string
	UniqueIndexes []Index // the primary key among them
	Triggers      []Trigger
}

// Column is a column that is not dropped.
type Column struct {
	Name       string
	Num        int16
	TypeOID    uint32
	TypeName   string // format_type without the modifier, qualified unless built in
	TypMod     int32
	TypType    byte // of the type: 'b' base, 'c' composite, 'd' domain, 'e' enum, 'r' range, 'm' multirange
	ElemOID    uint32
	BaseOID    uint32 // what a domain is made of in the end; the type itself for others
	BaseMod    int32  // and its modifier; TypMod for others
	NotNull    bool
	HasDefault bool
	Default    string // its expression, as the server prints it
	Generated  byte   // 's' stored, 'v' virtual, 0 no
	Identity   byte   // 'a' always, 'd' by default, 0 no
	// BinarySafe is a built-in type whose binary form means the same on another server.
	BinarySafe bool
}

// Index is a unique index.
type Index struct {
	Name       string
	OID        uint32
	Columns    []string // key columns; "" for an expression
	Primary    bool
	Partial    bool
	Deferrable bool
	Expression bool
}

// Trigger is a trigger that is no part of a constraint.
type Trigger struct {
	Name    string
	Before  bool
	Row     bool
	Insert  bool
	Update  bool
	Delete  bool
	Enabled byte // 'O' origin, 'D' disabled, 'R' replica, 'A' always
	Args    []string
}

// Ref is the table's name as a map key.
func (t *Table) Ref() wal.RelationName { return wal.RelationName{Schema: t.Schema, Name: t.Name} }

// SQL is the table's quoted name.
func (t *Table) SQL() string { return QuoteTable(t.Schema, t.Name) }

// Column returns the named column, or nil.
func (t *Table) Column(name string) *Column {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return &t.Columns[i]
		}
	}
	return nil
}

// HasGenerated reports whether the table has a generated column of the kind: 's' stored, 'v'
// virtual.
func (t *Table) HasGenerated(kind byte) bool {
	return slices.ContainsFunc(t.Columns, func(c Column) bool { return c.Generated == kind })
}

// HasIdentity reports whether PostgreSQL lets updates and deletes of the table through once
// it is published.
func (t *Table) HasIdentity() bool {
	switch t.Identity {
	case wal.IdentityFull:
		return !t.HasGenerated('v') // which no publication sends, and FULL would have to hold
	case wal.IdentityDefault:
		return len(t.PrimaryKey) > 0 && !t.DeferrableKey
	case wal.IdentityIndex:
		return len(t.IdentityIndex) > 0
	}
	return false
}

// BinarySafe reports whether every column that is published may travel in binary.
func (t *Table) BinarySafe() bool {
	for i := range t.Columns {
		if c := &t.Columns[i]; c.Generated == 0 && !c.BinarySafe {
			return false
		}
	}
	return true
}

// HasRowTriggers reports whether the application has BEFORE row triggers on insert or update,
// which could change an applied row.
func (t *Table) HasRowTriggers() bool {
	for _, g := range t.Triggers {
		if g.Before && g.Row && (g.Insert || g.Update) && g.Enabled != 'D' && !g.ours() {
			return true
		}
	}
	return false
}

// HasUpdateTrigger reports whether a BEFORE row trigger on update exists, such as one that
// raises the version.
func (t *Table) HasUpdateTrigger() bool {
	for _, g := range t.Triggers {
		if g.Before && g.Row && g.Update && (g.Enabled == 'O' || g.Enabled == 'A') && !g.ours() {
			return true
		}
	}
	return false
}

// AlwaysTriggers names the BEFORE row triggers that fire for applied rows even under
// session_replication_role = replica.
func (t *Table) AlwaysTriggers() []string {
	var out []string
	for _, g := range t.Triggers {
		if g.Before && g.Row && (g.Insert || g.Update) && (g.Enabled == 'A' || g.Enabled == 'R') && !g.ours() {
			out = append(out, g.Name)
		}
	}
	return out
}

// LateTriggers names the AFTER triggers that run for applied rows; replica tells whether these are
// written under session_replication_role = replica.
func (t *Table) LateTriggers(replica bool) []string {
	var out []string
	for _, g := range t.Triggers {
		if !g.Before && (g.Enabled == 'A' || replica && g.Enabled == 'R' || !replica && g.Enabled == 'O') {
			out = append(out, g.Name)
		}
	}
	return out
}

// Restorer returns the arguments of the restorer triggers (the role), nil
// unless both are there and enabled.
func (t *Table) Restorer() []string {
	var save, restore *Trigger
	for i := range t.Triggers {
		switch g := &t.Triggers[i]; {
		case g.Enabled != 'O' && g.Enabled != 'A':
		case g.Name == SaveTrigger:
			save = g
		case g.Name == RestoreTrigger:
			restore = g
		}
	}
	if save == nil || restore == nil || strings.Join(save.Args, "\x00") != strings.Join(restore.Args, "\x00") {
		return nil
	}
	return save.Args
}

// AfterRestorer names BEFORE row triggers that sort behind the restoring trigger and so may
// undo it.
func (t *Table) AfterRestorer() []string {
	var out []string
	for _, g := range t.Triggers {
		if g.Before && g.Row && (g.Insert || g.Update) && g.Enabled != 'D' && g.Name > RestoreTrigger {
			out = append(out, g.Name)
		}
	}
	return out
}

func (g *Trigger) ours() bool { return g.Name == SaveTrigger || g.Name == RestoreTrigger }
