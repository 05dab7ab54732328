package config

// Direction says which way changes go.
type Direction string

// Directions.
const (
	DirectionBoth    Direction = "both"
	DirectionPublish Direction = "publish"
	DirectionApply   Direction = "apply"
)

// Mode says who moves the rows between the regions.
type Mode string

// Modes.
const (
	ModeStream    Mode = "stream"    // the sidecars, over NATS
	ModeNative    Mode = "native"    // subscriptions of PostgreSQL
	ModePglogical Mode = "pglogical" // the extension
)

// Order says what is compared first after the generation.
type Order string

// Orders.
const (
	OrderVersion Order = "version" // version, then updated_at
	OrderTime    Order = "time"    // updated_at, then version
)

// ReplicaIdentity says what setup does with a table that has a primary key and the default identity.
type ReplicaIdentity string

// Replica identity choices.
const (
	IdentityFull ReplicaIdentity = "full"
	IdentityKeep ReplicaIdentity = "keep"
)

// Confirm says when the slot may forget.
type Confirm string

// Confirm modes.
const (
	ConfirmAdaptive  Confirm = "adaptive"
	ConfirmApplied   Confirm = "applied"
	ConfirmPublished Confirm = "published"
)

// Privileges says how the application's triggers are kept from changing applied rows.
type Privileges string

// Privilege choices.
const (
	PrivilegesAuto     Privileges = "auto"
	PrivilegesReplica  Privileges = "replica"
	PrivilegesRestorer Privileges = "restorer"
)

// CopyMode says whether rows that were there before are copied.
type CopyMode string

// Copy modes.
const (
	CopyAuto CopyMode = "auto"
	CopyOff  CopyMode = "off"
)

// LogLevel is the lowest level that is written.
type LogLevel string

// LogFormat is the form of a log line.
type LogFormat string

// Log formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// choice is an enumeration that can list its words.
type choice interface{ words() []string }

func (Direction) words() []string       { return []string{"both", "publish", "apply"} }
func (Mode) words() []string            { return []string{"stream", "native", "pglogical"} }
func (Order) words() []string           { return []string{"version", "time"} }
func (ReplicaIdentity) words() []string { return []string{"full", "keep"} }
func (Confirm) words() []string         { return []string{"adaptive", "applied", "published"} }
func (Privileges) words() []string      { return []string{"auto", "replica", "restorer"} }
func (CopyMode) words() []string        { return []string{"auto", "off"} }
func (LogLevel) words() []string        { return []string{"debug", "info", "warn", "error"} }
func (LogFormat) words() []string       { return []string{"text", "json"} }
