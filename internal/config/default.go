package config

import "time"

// Default returns the defaults, without those that follow from other keys (the slot's name,
// the store folder), which Load fills in.
func Default() *Config {
	return &Config{
		Direction:       DirectionBoth,
		Mode:            ModeStream,
		Fallback:        Fallback{After: 15 * time.Minute, BackAfter: 5 * time.Minute},
		Postgres:        Postgres{Publication: "pgwaltz", LockTimeout: 10 * time.Second},
		Tables:          Tables{Include: []Pattern{MustPattern("*.*")}},
		Stamps:          Stamps{Version: "version", UpdatedAt: "updated_at", Order: OrderVersion},
		ReplicaIdentity: IdentityFull,
		Audit:           Audit{Retention: 720 * time.Hour},
		Tombstones:      Tombstones{MinAge: 24 * time.Hour},
		NATS:            NATS{MaxBytes: 1 << 30, Replicas: 1},
		Publish: Publish{
			Confirm: ConfirmAdaptive, WALHoldMax: 8 << 30, HoldMargin: 1 << 30, FrameBytes: 256 << 10, MaxFrame: 700 << 10,
			Linger: 3 * time.Millisecond, Compress: true, Heartbeat: 10 * time.Second,
		},
		Apply:           Apply{BatchRows: 4000, Linger: 2 * time.Millisecond, Privileges: PrivilegesAuto},
		Copy:            Copy{Mode: CopyAuto, ChunkRows: 5000},
		HTTP:            HTTP{Listen: "127.0.0.1:0"},
		Log:             Log{Level: "info", Format: LogText},
		ShutdownTimeout: 10 * time.Second,
		MaxClockSkew:    30 * time.Second,
	}
}
