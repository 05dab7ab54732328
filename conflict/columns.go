package conflict

import (
	"fmt"
	"slices"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Columns says where a relation keeps its version and its time: positions in
// wal.Relation.Columns, -1 for a column that the table does not have.
type Columns struct{ Version, UpdatedAt int }

// ColumnsOf finds the stamp columns of a relation by name and type; an empty name is never
// found. A column of another built-in type is not a stamp, whatever its name: it may have
// been added, or have changed its type, while the replicator runs. Types of users (domains)
// count by their name alone. The result depends on the relation's description only, so every
// region finds the same.
func ColumnsOf(rel *wal.Relation, version, updatedAt string) Columns {
	find := func(name string, types ...uint32) int {
		i := rel.Column(name)
		if i < 0 || name == "" {
			return -1
		}
		if oid := rel.Columns[i].OID; oid < firstUserOID && !slices.Contains(types, oid) {
			return -1
		}
		return i
	}
	return Columns{
		Version:   find(version, wal.OIDInt8, wal.OIDInt4, wal.OIDInt2, wal.OIDNumeric),
		UpdatedAt: find(updatedAt, wal.OIDTimestamptz, wal.OIDTimestamp, wal.OIDDate),
	}
}

// firstUserOID is where the oids begin that a database gives out itself.
const firstUserOID = 16384

// Stampless reports that the table has neither column: the stamp of a row is the commit
// time of its last write, and is kept beside the table.
func (c Columns) Stampless() bool { return c.Version < 0 && c.UpdatedAt < 0 }

// Alike reports whether two descriptions of a table have the same of the two columns. Where they have not, one write has
// two stamps, and whoever compares has to know which one counts.
func (c Columns) Alike(o Columns) bool {
	return c.Version < 0 == (o.Version < 0) && c.UpdatedAt < 0 == (o.UpdatedAt < 0)
}

// StampOf reads the stamp of generation 0 from an image.
//
//	column absent    version: wal.NullVersion; time: wal.MinMicros, or fallback where the
//	                 table has no version either
//	value NULL       wal.NullVersion; wal.MinMicros
//	value Unchanged  as NULL; a version or a time is never stored out of line
//	-infinity        wal.MinMicros, the same place as NULL
//	infinity         wal.MaxMicros
//	-2^63, 2^63-1    the same places as NULL and as the version of a delete that does not
//	                 know its base; beyond both ends a numeric version saturates
//
// Versions are int2, int4, int8 (text or binary) or the text of a numeric, whose fraction
// is cut off. Times are timestamptz, timestamp (taken as UTC) and date, as text under
// DateStyle ISO or binary. A value that cannot be read (NaN, or a domain over something
// else) stands where NULL does: it must not stop a pipe, and every region reads it so.
// An error means that the image does not belong to the relation; it never holds a value.
func StampOf(c Columns, rel *wal.Relation, t wal.Tuple, fallback wal.Micros) (wal.Stamp, error) {
	s := wal.Stamp{Version: wal.NullVersion, UpdatedAt: wal.MinMicros}
	if c.Stampless() {
		s.UpdatedAt = fallback
		return s, nil
	}
	if i := c.Version; i >= 0 {
		if i >= len(t) || i >= len(rel.Columns) {
			return s, fmt.Errorf("read stamp of %s: the image has no column %d", rel, i)
		}
		if v, ok := versionOf(rel.Columns[i].OID, t[i]); ok {
			s.Version = v
		}
	}
	if i := c.UpdatedAt; i >= 0 {
		if i >= len(t) || i >= len(rel.Columns) {
			return s, fmt.Errorf("read stamp of %s: the image has no column %d", rel, i)
		}
		if m, ok := timeOf(rel.Columns[i].OID, t[i]); ok {
			s.UpdatedAt = m
		}
	}
	return s, nil
}
