package config

import (
	"crypto/sha256"
	"time"
)

// Config is the whole configuration. It is complete and checked when it comes from Load,
// and must not be changed afterwards. The yaml tag is the key in the file.
type Config struct {
	// Cluster is the name that all regions of one system share.
	Cluster string `yaml:"cluster"`
	// Region is this database's name; its peers know it by that name.
	Region    string    `yaml:"region"`
	Direction Direction `yaml:"direction"`
	// Mode is how the region replicates as long as no switch has changed it.
	Mode     Mode     `yaml:"mode"`
	Fallback Fallback `yaml:"fallback"`
	Postgres Postgres `yaml:"postgres"`
	Peers    []Peer   `yaml:"peers"`
	Tables   Tables   `yaml:"tables"`
	Stamps   Stamps   `yaml:"stamps"`
	// ReplicaIdentity is what setup does with tables that have a primary key and the
	// default identity.
	ReplicaIdentity ReplicaIdentity `yaml:"replica_identity"`
	Audit           Audit           `yaml:"audit"`
	Tombstones      Tombstones      `yaml:"tombstones"`
	NATS            NATS            `yaml:"nats"`
	Publish         Publish         `yaml:"publish"`
	Apply           Apply           `yaml:"apply"`
	Copy            Copy            `yaml:"copy"`
	// ForwardOrigins are replication origins of other tools whose rows are published too.
	ForwardOrigins []string `yaml:"forward_origins"`
	HTTP           HTTP     `yaml:"http"`
	Log            Log      `yaml:"log"`
	Signing        Signing  `yaml:"signing"`
	// ShutdownTimeout bounds a graceful stop.
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout"`
	// MaxClockSkew is how far ahead of this clock a peer's stamps may be before it is reported.
	MaxClockSkew time.Duration `yaml:"max_clock_skew"`

	file  string
	given *Config           // as the file and the environment have it, without what the files hold that it names
	sum   [sha256.Size]byte // of the signing key
	lines map[string]int    // line in the file by key; absent for defaults and environment
	env   map[string]string
}

// Fallback switches a region to another mode while the stream is impossible, and back. To "" switches it off.
type Fallback struct {
	To Mode `yaml:"to"`
	// After is how long the stream has to have been impossible, and BackAfter how long it has to have been possible again.
	After     time.Duration `yaml:"after"`
	BackAfter time.Duration `yaml:"back_after"`
	// ServerLog is the file that the server's output goes into, where it has no collector; mode pglogical reads its conflicts there.
	ServerLog string `yaml:"server_log"`
}

// On reports whether the region is switched by itself.
func (f Fallback) On() bool { return f.To != "" }

// Postgres is the local database.
type Postgres struct {
	// DSN is complete after Load: dsn_file and the password are already in it.
	DSN          DSN    `yaml:"dsn"`
	DSNFile      string `yaml:"dsn_file"`
	PasswordFile string `yaml:"password_file"`
	Password     Secret `yaml:"-" env:"PASSWORD"`
	// AdminDSN is used by setup only, when the role of DSN must not own anything.
	AdminDSN     DSN           `yaml:"admin_dsn"`
	AdminDSNFile string        `yaml:"admin_dsn_file"`
	Slot         string        `yaml:"slot"`
	Publication  string        `yaml:"publication"`
	LockTimeout  time.Duration `yaml:"lock_timeout"`
	// UnboundedWAL: the server may keep WAL for the slot until its disk is full.
	UnboundedWAL bool `yaml:"unbounded_wal"`

	dsnOfFile bool // DSN is what DSNFile held
}

// Peer is another region.
type Peer struct {
	Region string `yaml:"region"`
	// PublicKey is the ed25519 key that verifies the peer's frames: 32 bytes in base64 or hex.
	PublicKey string `yaml:"public_key"`
	// Certificate, NKey and TokenFile prove to our listener that a link comes from the peer.
	Certificate string `yaml:"certificate"`
	NKey        string `yaml:"nkey"`
	TokenFile   string `yaml:"token_file"`
	// DSN is the peer's database as this region's server and this process reach it: for the
	// fallback modes only. It is complete after Load.
	DSN     DSN    `yaml:"dsn"`
	DSNFile string `yaml:"dsn_file"`
}

// Identified reports whether the peer has an identity of its own on the link.
func (p Peer) Identified() bool { return p.Certificate != "" || p.NKey != "" || p.TokenFile != "" }

// Tables selects what is published and how single tables differ.
type Tables struct {
	Include []Pattern `yaml:"include"`
	Exclude []Pattern `yaml:"exclude"`
	Rules   []Rule    `yaml:"rules"`
}

// Rule overrides settings for the tables that Match matches; nil and "" mean no override.
type Rule struct {
	Match           Pattern         `yaml:"match"`
	Version         *string         `yaml:"version"`
	UpdatedAt       *string         `yaml:"updated_at"`
	Order           Order           `yaml:"order"`
	ReplicaIdentity ReplicaIdentity `yaml:"replica_identity"`
}

// Stamps names the columns that order two writes of a row; "" is no such column.
type Stamps struct {
	Version   string `yaml:"version"`
	UpdatedAt string `yaml:"updated_at"`
	Order     Order  `yaml:"order"`
}

// Audit is the log of conflicts. Redact lists schema.table.column patterns.
type Audit struct {
	Redact    []ColumnPattern `yaml:"redact"`
	Retention time.Duration   `yaml:"retention"` // 0 keeps everything
}

// Tombstones is the memory of deleted rows.
type Tombstones struct {
	MinAge time.Duration `yaml:"min_age"`
}

// NATS is either an external server (URL) or the embedded one (Listen, Dial).
type NATS struct {
	URL             string   `yaml:"url"`
	CredentialsFile string   `yaml:"credentials_file"`
	User            string   `yaml:"user"`
	PasswordFile    string   `yaml:"password_file"`
	Password        Secret   `yaml:"-" env:"PASSWORD"` // complete after Load
	Listen          string   `yaml:"listen"`
	Dial            []string `yaml:"dial"`
	StoreDir        string   `yaml:"store_dir"`
	MaxBytes        Size     `yaml:"max_bytes"`
	Replicas        int      `yaml:"replicas"`
	TLS             TLS      `yaml:"tls"`
	// Insecure allows a listener beyond loopback without TLS or without authentication.
	Insecure bool `yaml:"insecure"`
}

// Embedded reports whether the server runs inside this process.
func (n NATS) Embedded() bool { return n.URL == "" }

// TLS names PEM files.
type TLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	CAFile   string `yaml:"ca_file"`
}

// Enabled reports whether any of the files is named.
func (t TLS) Enabled() bool { return t.CertFile != "" || t.KeyFile != "" || t.CAFile != "" }

// Publish is the direction slot to stream.
type Publish struct {
	Confirm    Confirm       `yaml:"confirm"`
	WALHoldMax Size          `yaml:"wal_hold_max"`
	HoldMargin Size          `yaml:"hold_margin"`
	FrameBytes Size          `yaml:"frame_bytes"`
	MaxFrame   Size          `yaml:"max_frame"`
	Linger     time.Duration `yaml:"linger"`
	Compress   bool          `yaml:"compress"`
	Heartbeat  time.Duration `yaml:"heartbeat"`
}

// Apply is the direction stream to database.
type Apply struct {
	BatchRows  int           `yaml:"batch_rows"`
	Linger     time.Duration `yaml:"linger"`
	Privileges Privileges    `yaml:"privileges"`
}

// Copy is the initial copy and every later resync.
type Copy struct {
	Mode      CopyMode `yaml:"mode"`
	ChunkRows int      `yaml:"chunk_rows"`
}

// HTTP serves status and metrics; Listen "" switches it off.
type HTTP struct {
	Listen string `yaml:"listen"`
}

// Log is how the process speaks on stderr.
type Log struct {
	Level  LogLevel  `yaml:"level"`
	Format LogFormat `yaml:"format"`
}

// Signing is the region's own ed25519 key; frames are unsigned without it.
type Signing struct {
	KeyFile string `yaml:"key_file"`
}

// Publishes reports whether this sidecar reads the slot.
func (c *Config) Publishes() bool { return c.Direction != DirectionApply }

// Applies reports whether this sidecar writes peers' changes.
func (c *Config) Applies() bool { return c.Direction != DirectionPublish }

// PeerNames lists the regions of the peers in their order.
func (c *Config) PeerNames() []string {
	names := make([]string, len(c.Peers))
	for i, p := range c.Peers {
		names[i] = p.Region
	}
	return names
}

// Source says where the key's value came from: "line 7", "PGWALTZ_REGION" or "default".
func (c *Config) Source(key string) string { return sourceText(c.lines[key], c.env[key]) }
