package native

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/wal"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	item, now := wal.RelationName{Schema: "public", Name: "item"}, time.Unix(1e9, 0)
	good := func() Seen {
		return Seen{
			At: now, Sub: &Subscription{Enabled: true, Slot: "s", Tables: map[wal.RelationName]byte{item: 'r'}}, Worker: true, Applied: 1000, Heard: now, Counted: true,
			Slot: &pg.Slot{Name: "s", Active: true, ConfirmedFlushLSN: 900, CurrentLSN: 1200}, Published: []wal.RelationName{item},
		}
	}
	for _, c := range []struct {
		name   string
		failed int
		spoil  func(s *Seen)
		want   status.State
		says   string
	}{
		{"well", 0, func(*Seen) {}, status.Replicating, ""},
		{"one error is none", 1, func(*Seen) {}, status.Replicating, ""},
		{"none", 0, func(s *Seen) { s.Sub = nil }, status.Down, "mode switch native"},
		{"disabled", 0, func(s *Seen) { s.Sub.Enabled = false }, status.Down, "alter subscription \"p\" enable"},
		{"no worker", 0, func(s *Seen) { s.Worker = false }, status.Down, "no worker"},
		{"loop", 2, func(s *Seen) { s.Worker = false }, status.Down, "for ever"},
		{"away", 0, func(s *Seen) { s.Worker, s.Slot, s.PeerErr = false, nil, errors.New("refused") }, status.Partitioned, "refused"},
		{"silent", 0, func(s *Seen) { s.Heard, s.Slot, s.PeerErr = now.Add(-2*quiet), nil, errors.New("refused") }, status.Partitioned, "refused"},
		{"only not for us", 0, func(s *Seen) { s.Slot, s.PeerErr = nil, errors.New("refused") }, status.Replicating, "lag is not known"},
		{"gone", 0, func(s *Seen) { s.Slot, s.Worker = nil, false }, status.Gap, "is gone"},
		{"lost", 0, func(s *Seen) { s.Slot.WALStatus = "lost" }, status.Gap, "is lost"},
		{"copy", 0, func(s *Seen) { s.Sub.Tables[item] = 'd' }, status.CatchingUp, "1 tables"},
		{"new table", 0, func(s *Seen) { delete(s.Sub.Tables, item) }, status.CatchingUp, "1 tables"},
		{"behind", 0, func(s *Seen) { s.Slot.CurrentLSN += 1 << 30 }, status.CatchingUp, "behind"},
	} {
		s := good()
		c.spoil(&s)
		in, _ := Judge("eu", "p", s, c.failed)
		if in.State != c.want || !strings.Contains(in.Reason, c.says) || c.says == "" && in.Reason != "" {
			t.Errorf("%s: %s, %q", c.name, in.State, in.Reason)
		}
	}
	if in, _ := Judge("eu", "p", good(), 0); in.LagBytes != 200 || in.EndLSN != "0/3E8" {
		t.Errorf("%+v", in)
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	var h History
	at := time.Unix(1e9, 0)
	for i, c := range []struct {
		errors int64
		after  time.Duration
		want   int
	}{
		{7, 0, 0}, // what was before is not ours
		{8, time.Second, 1}, {8, 2 * time.Second, 1}, {10, 3 * time.Second, 3}, {0, 4 * time.Second, 3}, {1, 5 * time.Second, 4}, {1, 62 * time.Second, 3}, {1, 3 * time.Minute, 0},
	} {
		if got := h.Note(Seen{At: at.Add(c.after), Counted: true, Errors: c.errors}); got != c.want {
			t.Errorf("%d: %d, want %d", i, got, c.want)
		}
	}
}
