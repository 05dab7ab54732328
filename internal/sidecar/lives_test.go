package sidecar

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/node"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// Another database of a peer gets copies of all tables once; one that changes all the time does not have them
// begun again without end; with copy.mode off nothing is copied, and the status asks for a command.
func TestPeersWithAnotherDatabase(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t).Database(t)
	c := pgtest.Connect(t, dsn)
	pgtest.Exec(t, c, preflight.SchemaSQL()...)
	pgtest.Exec(t, c, "create table orders(id int primary key)", "create publication p for table orders")
	s := &Sidecar{cfg: &config.Config{}, log: slog.New(slog.DiscardHandler), db: &db{connect: func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, dsn) }}}
	t.Cleanup(s.db.close)
	s.cfg.Postgres.Publication, s.cfg.Copy.Mode = "p", config.CopyAuto
	s.lives.forget()
	// asked hears of a database, and reports whether it is provided for and whether copies were asked for.
	asked := func(peer, life string) (done, copies bool) {
		t.Helper()
		pgtest.Exec(t, c, "delete from pgwaltz.copy")
		done, err := s.provide(t.Context(), peer, node.Life([]byte(life)))
		if err != nil {
			t.Fatal(err)
		}
		jobs, err := tablecopy.Load(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		return done, len(jobs) > 0
	}
	for i, step := range []struct {
		life   string
		copies bool
	}{{"1", false}, {"1", false}, {"2", true}, {"2", false}, {"3", true}} {
		if done, copies := asked("us", step.life); !done || copies != step.copies {
			t.Errorf("step %d: done %t, copies %t", i, done, copies)
		}
	}
	n := 0
	for i := range 100 {
		if _, copies := asked("us", fmt.Sprint("changing ", i)); copies {
			n++
		}
	}
	if n == 0 || n > rewindBurst {
		t.Errorf("copies were asked for %d times", n)
	}
	if text := s.lives.lack(); text != "" {
		t.Errorf("a command is asked for: %s", text)
	}
	s.cfg.Copy.Mode = config.CopyOff
	asked("ap", "1")
	for range 2 {
		if done, copies := asked("ap", "2"); done || copies || !strings.Contains(s.lives.lack(), "pgwaltz resync") {
			t.Errorf("copy.mode off: done %t, copies %t, %q", done, copies, s.lives.lack())
		}
	}
	pgtest.Exec(t, c, "update pgwaltz.peer set life = heard") // as resync does
	if done, copies := asked("ap", "2"); !done || copies || s.lives.lack() != "" {
		t.Errorf("behind a resync: done %t, copies %t, %q", done, copies, s.lives.lack())
	}
	asked("sa", "1")
	if asked("sa", "2"); !strings.Contains(s.lives.lack(), "peer sa") {
		t.Errorf("another one lacks rows: %q", s.lives.lack())
	}
	s.out.acks = map[string]peerAck{"sa": {Ack: broker.Ack{Peer: "sa", Deaf: true}}}
	if err := s.lookAtLife(t.Context(), "sa", node.Life([]byte("2"))); err != nil || s.lives.lack() != "" {
		t.Errorf("a peer that applies nothing: %q, %v", s.lives.lack(), err)
	}
}
