// Package status holds the words and figures in which a sidecar speaks of itself: what
// `pgwaltz status` prints, /status serves and the metrics repeat. It is data only.
package status

import "time"

// State is one of the named states of a direction or of the whole sidecar.
type State string

const (
	Replicating State = "replicating" // in step, or behind by less than the catching-up bound
	CatchingUp  State = "catching-up" // moving, with a backlog
	Partitioned State = "partitioned" // the peer or the broker is out of reach
	Gap         State = "gap"         // the chain is broken and cannot be healed without help
	Parked      State = "parked"      // flowing, with changes or tables set aside
	Down        State = "down"        // not running, or the local server is out of reach
	Standby     State = "standby"     // another sidecar of this region is at work
)

// Status is one sidecar's account of itself.
type Status struct {
	Cluster   string    `json:"cluster"`
	Region    string    `json:"region"`
	Version   string    `json:"version"`
	PID       int       `json:"pid"`
	StartedAt time.Time `json:"started_at"`
	// Mode is who moves the rows; "" is the stream. Weaker says what this mode does not promise.
	Mode      string     `json:"mode,omitempty"`
	Weaker    []string   `json:"weaker,omitempty"`
	State     State      `json:"state"` // the worst of its directions, or parked where a table has an error
	Outbound  *Outbound  `json:"outbound,omitempty"`
	Inbound   []Inbound  `json:"inbound"`
	Conflicts Conflicts  `json:"conflicts"`
	Copy      []Copy     `json:"copy,omitempty"`
	Tables    []Table    `json:"tables"`
	Waiting   []Waiting  `json:"waiting,omitempty"`
	LastError *LastError `json:"last_error,omitempty"`
}

// Waiting is how many changes are set aside of a region that no direction is of, such as one that is no peer any more.
type Waiting struct {
	Origin string `json:"origin"`
	Parked int64  `json:"parked"`
	Reason string `json:"reason"`
}

// Outbound is the direction slot -> JetStream.
type Outbound struct {
	State          State      `json:"state"`
	Reason         string     `json:"reason,omitempty"` // why it is not replicating, in words
	Slot           string     `json:"slot"`
	SlotActive     bool       `json:"slot_active"`
	WALStatus      string     `json:"wal_status,omitempty"` // reserved, extended, unreserved, lost
	SafeWALBytes   int64      `json:"safe_wal_bytes,omitempty"`
	Epoch          string     `json:"epoch"`
	Incarnation    uint32     `json:"incarnation"`
	Frame          uint64     `json:"frame"`
	ReceivedLSN    string     `json:"received_lsn"`
	PublishedLSN   string     `json:"published_lsn"`
	ConfirmedLSN   string     `json:"confirmed_lsn"`
	WALEnd         string     `json:"wal_end"`
	BacklogBytes   int64      `json:"backlog_bytes"`
	BacklogSeconds float64    `json:"backlog_seconds"`
	RetainedBytes  int64      `json:"retained_bytes"`
	ConfirmMode    string     `json:"confirm_mode"`
	BytesAtRisk    int64      `json:"bytes_at_risk"`
	RiskKnown      bool       `json:"risk_known"` // false until every peer was heard of
	Transactions   uint64     `json:"transactions_published"`
	Rows           uint64     `json:"rows_published"`
	Echoes         uint64     `json:"echoes_suppressed"`
	Foreign        uint64     `json:"foreign_messages"`
	StreamMessages uint64     `json:"stream_messages"`
	StreamBytes    uint64     `json:"stream_bytes"`
	StreamMaxBytes int64      `json:"stream_max_bytes"`
	Parked         int64      `json:"parked"` // of this region's own changes
	Peers          []Peer     `json:"peers"`
	Gap            *GapInfo   `json:"gap,omitempty"`
	LastError      *LastError `json:"last_error,omitempty"`
}

// Peer is how far one peer has applied this region's changes.
type Peer struct {
	Region     string    `json:"region"`
	Reachable  bool      `json:"reachable"`
	AppliedLSN string    `json:"applied_lsn"`
	LagBytes   int64     `json:"lag_bytes"`
	LagSeconds float64   `json:"lag_seconds"`
	AckedAt    time.Time `json:"acked_at"`
}

// Inbound is the direction JetStream of one origin -> the local database.
type Inbound struct {
	Origin         string     `json:"origin"`
	State          State      `json:"state"`
	Reason         string     `json:"reason,omitempty"`
	Epoch          string     `json:"epoch"`
	Incarnation    uint32     `json:"incarnation"`
	Frame          uint64     `json:"frame"`
	EndLSN         string     `json:"end_lsn"`
	StreamSeq      uint64     `json:"stream_seq"`
	OriginLSN      string     `json:"origin_lsn"` // the end of the origin's WAL, as it last said
	LagBytes       int64      `json:"lag_bytes"`
	LagSeconds     float64    `json:"lag_seconds"`
	BacklogFrames  uint64     `json:"backlog_frames"`
	Transactions   uint64     `json:"transactions_applied"`
	Rows           uint64     `json:"rows_applied"`
	Duplicates     uint64     `json:"duplicates_skipped"`
	Quarantined    uint64     `json:"quarantined"`
	Parked         int64      `json:"parked"`
	ClockSkewSecs  float64    `json:"clock_skew_seconds"`
	Gap            *GapInfo   `json:"gap,omitempty"`
	LastError      *LastError `json:"last_error,omitempty"`
	LastConflictAt *time.Time `json:"last_conflict_at,omitempty"`
}

// GapInfo names a hole: what is missing lies between From and To.
type GapInfo struct {
	From   string    `json:"from_lsn"`
	To     string    `json:"to_lsn"`
	Since  time.Time `json:"since"`
	Remedy string    `json:"remedy"`
}

// LastError is the newest error of a direction, until it is over. It never holds row values.
type LastError struct {
	At       time.Time `json:"at"`
	Since    time.Time `json:"since"` // the first of those in a row
	Message  string    `json:"message"`
	SQLState string    `json:"sqlstate,omitempty"`
	Table    string    `json:"table,omitempty"`
	LSN      string    `json:"lsn,omitempty"`
}

// Conflicts counts the rows of the audit log. What retention removes stays counted.
type Conflicts struct {
	Total  uint64            `json:"total"`
	ByType map[string]uint64 `json:"by_type,omitempty"`
	LastAt *time.Time        `json:"last_at,omitempty"`
	Last   string            `json:"last,omitempty"` // type and table, no values
}

// Copy is the progress of the initial copy or resync of one table. It is done when every peer
// has durably applied all of it.
type Copy struct {
	Table   string `json:"table"`
	State   string `json:"state"`            // waiting (for changes, or for columns, see Reason), pending, running, failed (tried again), done, off
	Rows    int64  `json:"rows"`             // read and put into the stream
	Applied int64  `json:"applied"`          // of these, applied by every peer
	Reason  string `json:"reason,omitempty"` // why it waits or cannot be copied
}

// Table is one that is not replicated as it should be; the others are. It may come several times.
type Table struct {
	Table  string    `json:"table"`
	Code   string    `json:"code"` // of pgwaltz check
	Error  bool      `json:"error"`
	Reason string    `json:"reason"`
	Remedy string    `json:"remedy"` // the exact statement, setting or command
	Since  time.Time `json:"since"`
}

// Same reports whether both say the same of the same table, whenever that began.
func (t Table) Same(u Table) bool {
	u.Since = t.Since
	return t == u
}

// Troubled is the first table of which an error is found; nil for none.
func (st *Status) Troubled() *Table {
	for i := range st.Tables {
		if st.Tables[i].Error {
			return &st.Tables[i]
		}
	}
	return nil
}
