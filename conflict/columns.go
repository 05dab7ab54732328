package conflict

import (
	"fmt"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Columns says where a relation keeps its version and its time: positions in
// wal.Relation.Columns, -1 for a column that the table does not have.
type Columns struct{ Version, UpdatedAt int }

// ColumnsOf finds the named columns in a relation. An empty name is never found.
func ColumnsOf(rel *wal.Relation, version, updatedAt string) Columns {
	return Columns{Version: rel.Column(version), UpdatedAt: rel.Column(updatedAt)}
}

// Stampless reports that the table has neither column: the stamp of a row is the commit
// time of its last write, and is kept beside the table.
func (c Columns) Stampless() bool { return c.Version < 0 && c.UpdatedAt < 0 }

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
// DateStyle ISO or binary. An error names the column and never the value.
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
		v, ok := versionOf(rel.Columns[i].OID, t[i])
		if !ok {
			return s, fmt.Errorf("read stamp of %s: column %q is not a version", rel, rel.Columns[i].Name)
		}
		s.Version = v
	}
	if i := c.UpdatedAt; i >= 0 {
		if i >= len(t) || i >= len(rel.Columns) {
			return s, fmt.Errorf("read stamp of %s: the image has no column %d", rel, i)
		}
		m, ok := timeOf(rel.Columns[i].OID, t[i])
		if !ok {
			return s, fmt.Errorf("read stamp of %s: column %q is not a time", rel, rel.Columns[i].Name)
		}
		s.UpdatedAt = m
	}
	return s, nil
}
