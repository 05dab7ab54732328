package conflict

import (
	"strconv"

	"github.com/pgwaltz/pgwaltz/wal"
)

// StampText prints a stamp: generation, version and time, with "-" for a version that is
// NULL or absent and "*" for that of a delete which does not know what it removed; for
// example 0/7/2024-01-02T03:04:05.000006Z.
func StampText(s wal.Stamp) string {
	b := strconv.AppendUint(nil, uint64(s.Generation), 10)
	b = append(b, '/')
	switch s.Version {
	case wal.NullVersion:
		b = append(b, '-')
	case wal.MaxVersion:
		b = append(b, '*')
	default:
		b = strconv.AppendInt(b, s.Version, 10)
	}
	b = append(b, '/')
	return string(append(b, s.UpdatedAt.String()...))
}
