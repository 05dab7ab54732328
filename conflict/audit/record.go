package audit

import (
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Record is one settled conflict as the applier hands it over. The images and the key are
// JSON texts that went through Redactor already.
type Record struct {
	EventID     [16]byte
	Region      string // where the decision was made
	Relation    wal.RelationName
	Key         []byte // JSON object: key column -> value
	Type        string // conflict.Type, PostgreSQL's names where one exists
	Verdict     string // apply, keep or park
	Reason      string
	Winner      string // region; "" when parked
	Loser       string // region; "" when parked
	LocalStamp  string // "" when there was no local row and no tombstone
	RemoteStamp string
	BaseStamp   string // "" when the origin did not know what it overwrote
	LocalRow    []byte // nil: no row
	RemoteRow   []byte // nil: a delete
	Origin      string
	OriginXID   wal.XID
	CommitLSN   wal.LSN
	CommitTime  wal.Micros // the origin's clock
}

// Row is one row of the log, as List and Get return it.
type Row struct {
	ID          int64      `json:"id"`
	EventID     string     `json:"event_id"`
	DetectedAt  time.Time  `json:"detected_at"`
	Region      string     `json:"region"`
	Schema      string     `json:"schema"`
	Table       string     `json:"table"`
	Key         JSON       `json:"key"`
	Type        string     `json:"type"`
	Verdict     string     `json:"verdict"`
	Reason      string     `json:"reason"`
	Winner      string     `json:"winner,omitempty"`
	Loser       string     `json:"loser,omitempty"`
	LocalStamp  string     `json:"local_stamp,omitempty"`
	RemoteStamp string     `json:"remote_stamp,omitempty"`
	BaseStamp   string     `json:"base_stamp,omitempty"`
	LocalRow    JSON       `json:"local_row"`
	RemoteRow   JSON       `json:"remote_row"`
	Origin      string     `json:"origin"`
	OriginXID   int64      `json:"origin_xid"`
	CommitLSN   string     `json:"commit_lsn"`
	CommitTime  *time.Time `json:"commit_time"`
	LocalXID    int64      `json:"local_xid"`
	LocalLSN    string     `json:"local_lsn"`
}

// LocalRegion is the region that the local side of the row belongs to. It is Region but for
// a region's own event that met a row of the peer here.
func (r Row) LocalRegion() string {
	switch {
	case r.Origin != r.Region || r.Winner == r.Loser:
		return r.Region
	case r.Winner == r.Origin:
		return r.Loser
	}
	return r.Winner
}

// JSON is a JSON text; nil prints as null.
type JSON []byte

// MarshalJSON returns the text itself.
func (j JSON) MarshalJSON() ([]byte, error) {
	if len(j) == 0 {
		return []byte("null"), nil
	}
	return j, nil
}

// UnmarshalJSON keeps the text; null becomes nil.
func (j *JSON) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*j = nil
		return nil
	}
	*j = append(JSON(nil), b...)
	return nil
}
