package conflict

import (
	"strconv"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Record is one settled conflict: what the audit log stores of it. Whoever resolved fills
// it; the images are JSON objects, redacted already, and nil where there is no row.
type Record struct {
	Region   string // where it was decided
	Relation wal.RelationName
	Key      string // the text of wal.AppendKey
	Type     Type
	Verdict  Verdict
	Reason   Reason
	Winner   string // region; "" when parked
	Loser    string // region; "" when parked

	Local  Side // what was found here
	Remote Side // what came
	Base   wal.Base

	LocalRow  []byte
	RemoteRow []byte

	Origin     string // region the event came from
	XID        wal.XID
	CommitLSN  wal.LSN
	CommitTime wal.Micros // the origin's clock
}

// Sides returns the winning and the losing entry. For Park and Same nothing was decided and
// the local entry, which stays, comes first.
func (r *Record) Sides() (winner, loser Side) {
	if r.Verdict == Apply {
		return r.Remote, r.Local
	}
	return r.Local, r.Remote
}

// EventID is the id that this conflict has in both regions; see the function EventID.
func (r *Record) EventID() [16]byte {
	return EventID(r.Relation, r.Key, r.Local, r.Remote)
}

// Stamps returns the stamps of both sides and of the base as the log prints them; "" for
// what is not known.
func (r *Record) Stamps() (local, remote, base string) {
	if r.Local.Known {
		local = StampText(r.Local.Stamp)
	}
	if r.Remote.Known {
		remote = StampText(r.Remote.Stamp)
	}
	if r.Base.Known && !(r.Base.HasDigest && r.Base.Stamp == (wal.Stamp{})) {
		base = StampText(r.Base.Stamp)
	}
	return local, remote, base
}

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
