package pg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Slot is one row of pg_replication_slots. Fields that the server's version does not have
// stay empty.
type Slot struct {
	Name               string
	Plugin             string
	Type               string // logical, physical
	Database           string
	Active             bool
	ActivePID          int32
	Temporary          bool
	RestartLSN         wal.LSN // 0 when the slot is lost
	ConfirmedFlushLSN  wal.LSN
	WALStatus          string // reserved, extended, unreserved, lost; "" where unknown
	SafeWALSize        int64  // bytes until it may be lost; meaningless unless HasSafeWALSize
	HasSafeWALSize     bool
	Conflicting        bool   // 16
	InvalidationReason string // 17
	Failover           bool   // 17
	CurrentLSN         wal.LSN
}

// Lost reports whether the slot cannot be read any more.
func (s *Slot) Lost() bool {
	return s.WALStatus == "lost" || s.InvalidationReason != "" || s.Conflicting
}

// RetainedBytes is how much WAL the slot keeps from being removed.
func (s *Slot) RetainedBytes() int64 {
	if s.RestartLSN == 0 || s.CurrentLSN < s.RestartLSN {
		return 0
	}
	return int64(s.CurrentLSN - s.RestartLSN)
}

// LoadSlot reads the slot's state; nil when there is no such slot.
func LoadSlot(ctx context.Context, q Querier, name string) (*Slot, error) {
	var text []byte
	err := q.QueryRow(ctx, `select pg_catalog.to_jsonb(s) || pg_catalog.jsonb_build_object('current_lsn',
  case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn() else pg_catalog.pg_current_wal_lsn() end)
from pg_catalog.pg_replication_slots s where s.slot_name = $1::text`, name).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read slot %q: %w", name, err)
	}
	s, err := parseSlot(text)
	if err != nil {
		return nil, fmt.Errorf("read slot %q: %w", name, err)
	}
	return s, nil
}

func parseSlot(text []byte) (*Slot, error) {
	var r struct {
		Name         string  `json:"slot_name"`
		Plugin       string  `json:"plugin"`
		Type         string  `json:"slot_type"`
		Database     string  `json:"database"`
		Active       bool    `json:"active"`
		ActivePID    int32   `json:"active_pid"`
		Temporary    bool    `json:"temporary"`
		Restart      *string `json:"restart_lsn"`
		Confirmed    *string `json:"confirmed_flush_lsn"`
		WALStatus    string  `json:"wal_status"`
		SafeWALSize  *int64  `json:"safe_wal_size"`
		Conflicting  bool    `json:"conflicting"`
		Invalidation string  `json:"invalidation_reason"`
		Failover     bool    `json:"failover"`
		Current      *string `json:"current_lsn"`
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, err
	}
	s := &Slot{
		Name: r.Name, Plugin: r.Plugin, Type: r.Type, Database: r.Database, Active: r.Active, ActivePID: r.ActivePID,
		Temporary: r.Temporary, WALStatus: r.WALStatus, Conflicting: r.Conflicting, InvalidationReason: r.Invalidation, Failover: r.Failover,
	}
	if r.SafeWALSize != nil {
		s.SafeWALSize, s.HasSafeWALSize = *r.SafeWALSize, true
	}
	for _, l := range []struct {
		text *string
		to   *wal.LSN
	}{{r.Restart, &s.RestartLSN}, {r.Confirmed, &s.ConfirmedFlushLSN}, {r.Current, &s.CurrentLSN}} {
		if l.text == nil {
			continue
		}
		var err error
		if *l.to, err = wal.ParseLSN(*l.text); err != nil {
			return nil, err
		}
	}
	return s, nil
}
