package sidecar

import (
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A tombstone stays while a peer, or this region, has changes parked that are as old.
func TestTombstonesStayWhileAPeerHasChangesParked(t *testing.T) {
	t.Parallel()
	s := &Sidecar{cfg: &config.Config{Tombstones: config.Tombstones{MinAge: time.Hour}, MaxClockSkew: time.Second}, parked: parked.NewIndex(), in: map[string]*inboundState{}}
	s.out.acks = map[string]peerAck{"us": {}, "ap": {}}
	if age := s.settledAge(); age != time.Hour {
		t.Errorf("nothing is parked: %s", age)
	}
	s.out.acks["ap"] = peerAck{Ack: broker.Ack{Parked: wal.MicrosOf(time.Now().Add(-50 * time.Hour))}}
	if age := s.settledAge(); age < 50*time.Hour+time.Minute || age > 51*time.Hour {
		t.Errorf("something is parked for 50 hours: %s", age)
	}
	s.parkedAt.Store(int64(wal.MicrosOf(time.Now().Add(-70 * time.Hour))))
	if age := s.settledAge(); age < 70*time.Hour+time.Minute || age > 71*time.Hour {
		t.Errorf("something is parked here for 70 hours: %s", age)
	}
	s.out.acks["us"] = peerAck{Ack: broker.Ack{Parked: parkedEver}}
	if age := s.settledAge(); age < 50*365*24*time.Hour {
		t.Errorf("a peer has not looked yet: %s", age)
	}
}

// What is parked is said with the acknowledgement that covers it, before the table was looked at.
func TestParkedSince(t *testing.T) {
	t.Parallel()
	s := &Sidecar{parked: parked.NewIndex()}
	if at := s.parkedSince(); at != 0 {
		t.Errorf("nothing is parked: %d", at)
	}
	began := wal.MicrosOf(time.Now())
	s.parked.Add("us", 1)
	if at := s.parkedSince(); at < began {
		t.Errorf("parked a moment ago: %d", at)
	}
	s.parkedAt.Store(7)
	if at := s.parkedSince(); at != 7 {
		t.Errorf("parked at 7: %d", at)
	}
}
