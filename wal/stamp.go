package wal

import (
	"math"
	"time"
)

// Micros is an instant in microseconds since the Unix epoch, UTC: the resolution of
// PostgreSQL's timestamptz. The two ends of the range stand for -infinity (and NULL) and
// infinity.
type Micros int64

const (
	// MinMicros stands for -infinity and for a NULL or missing time.
	MinMicros Micros = math.MinInt64
	// MaxMicros stands for infinity.
	MaxMicros Micros = math.MaxInt64

	// NullVersion is the place of a NULL or missing version: below every other.
	NullVersion int64 = math.MinInt64
	// MaxVersion is the version of a delete whose base is unknown (replica identity
	// DEFAULT): above every other of its generation, so that such a delete wins.
	MaxVersion int64 = math.MaxInt64
)

// MicrosOf converts a time. It loses what is below a microsecond.
func MicrosOf(t time.Time) Micros { return Micros(t.UnixMicro()) }

// Time converts back; the two infinities become the zero time.
func (m Micros) Time() time.Time {
	if m == MinMicros || m == MaxMicros {
		return time.Time{}
	}
	return time.UnixMicro(int64(m)).UTC()
}

// String prints RFC 3339 with microseconds, or -infinity, infinity.
func (m Micros) String() string {
	switch m {
	case MinMicros:
		return "-infinity"
	case MaxMicros:
		return "infinity"
	}
	return m.Time().Format("2006-01-02T15:04:05.000000Z07:00")
}

// Stamp places one write of a row among all writes of that row. It is compared
// lexicographically; a tie of all three is decided by the contents (package conflict).
type Stamp struct {
	// Generation counts the lives of a key: it rises when a key is inserted over a
	// tombstone and when a local write does not raise version or time by itself.
	Generation uint32
	Version    int64  // the version column, NullVersion where there is none
	UpdatedAt  Micros // the time column, else the commit time of the transaction
}

// Compare returns -1, 0 or +1. It is a total order.
func (s Stamp) Compare(o Stamp) int {
	switch {
	case s.Generation != o.Generation:
		return sign(s.Generation < o.Generation)
	case s.Version != o.Version:
		return sign(s.Version < o.Version)
	case s.UpdatedAt != o.UpdatedAt:
		return sign(s.UpdatedAt < o.UpdatedAt)
	}
	return 0
}

func sign(less bool) int {
	if less {
		return -1
	}
	return 1
}
