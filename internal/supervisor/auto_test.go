package supervisor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/lead"
	"github.com/pgwaltz/pgwaltz/internal/supervisor"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// auto is the process of a region with fallback whose peer is the other one. extra is the rest of its configuration.
func auto(t *testing.T, cluster, own, ownDSN, peer, peerDSN, extra string) (*config.Config, *supervisor.Auto) {
	t.Helper()
	cfg := loadText(t, fmt.Sprintf("cluster: %s\nregion: %s\nfallback: {to: native}\npostgres: {dsn: %q, unbounded_wal: true}\npeers: [{region: %s, dsn: %q}]\nnats: {url: \"nats://127.0.0.1:1\", insecure: true}\n%s", cluster, own, ownDSN, peer, peerDSN, extra))
	return cfg, supervisor.NewAuto(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), "test")
}

// away makes a database whose region has been switched by the process of another one.
func away(t *testing.T, s *pgtest.Server, region, mode, by string) (dsn string, conn *pgx.Conn) {
	t.Helper()
	dsn = s.Database(t)
	conn = pgtest.Connect(t, dsn)
	pgtest.Exec(t, conn, "create schema pgwaltz", fallback.Schema, lead.Schema,
		fmt.Sprintf("insert into pgwaltz.mode (region, mode, settled, since, by, auto) values ('%s', '%s', true, now(), '%s', true)", region, mode, by))
	return dsn, conn
}

func says(t *testing.T, conn *pgx.Conn, region string) string {
	t.Helper()
	row, err := fallback.Load(t.Context(), conn, region)
	if err != nil || row == nil {
		t.Fatalf("%+v, %v", row, err)
	}
	return fmt.Sprintf("%s %t", row.Mode, row.Settled)
}

// Both regions are in mode native. The process of us starts while its own database is away: it does not know its mode, and leaves the peer alone.
func TestPeerIsNotCalledBackBeforeTheOwnRowIsRead(t *testing.T) {
	t.Parallel()
	dsn, eu := away(t, &east, "eu", "native", "us")
	_, a := auto(t, "auto", "us", "host=127.0.0.1 port=1 user=postgres dbname=none", "eu", dsn, "")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if err := a.Run(ctx); err != nil {
		t.Error(err)
	}
	if got := says(t, eu, "eu"); got != "native true" {
		t.Errorf("eu is told to go to %s", got)
	}
}

func TestPeerIsCalledBackByARegionThatStreams(t *testing.T) {
	t.Parallel()
	dsn, eu := away(t, &east, "eu", "native", "us")
	ours, us := away(t, &west, "us", "native", "us")
	_, a := auto(t, "auto", "us", ours, "eu", dsn, "")
	if ok, err := lead.Claim(t.Context(), us, "us"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	stays := func(why string) {
		t.Helper()
		if a.Agree(t.Context()) {
			t.Errorf("%s: it agrees", why)
		}
		if got := says(t, eu, "eu"); got != "native true" {
			t.Errorf("%s: eu is told to go to %s", why, got)
		}
	}
	stays("the own row says native")
	pgtest.Exec(t, us, "update pgwaltz.mode set mode = 'stream', settled = false")
	stays("the way back is not finished")
	pgtest.Exec(t, us, "update pgwaltz.mode set settled = true", "update pgwaltz.lead set pid = 0")
	stays("nobody has the lead")
	pgtest.Exec(t, us, "delete from pgwaltz.lead")
	if ok, err := lead.Claim(t.Context(), us, "us"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if !a.Agree(t.Context()) {
		t.Error("it does not agree")
	}
	if got := says(t, eu, "eu"); got != "stream false" {
		t.Errorf("eu is %s", got)
	}
}

// A database is away for longer than the stream may be impossible, and its sidecar with it. That time does not count: when it is back, the sidecar is about to be.
func TestTimeWithoutADatabaseDoesNotCount(t *testing.T) {
	t.Parallel()
	there, _ := away(t, &east, "eu", "stream", "eu")
	ours, _ := away(t, &west, "us", "stream", "us")
	const nowhere = "host=127.0.0.1 port=1 user=postgres dbname=none"
	for name, dsn := range map[string][2]string{"the peer's": {ours, nowhere}, "its own": {nowhere, there}} {
		cfg, _ := auto(t, "auto", "us", dsn[0], "eu", dsn[1], "")
		cfg.Fallback.After = time.Second
		a := supervisor.NewAuto(cfg, slog.New(slog.DiscardHandler), "test")
		tick, end := time.NewTicker(100*time.Millisecond), time.After(4*time.Second)
		for over := false; !over; {
			if to := a.Turn(t.Context()); to != "" {
				t.Errorf("%s: it goes to %s", name, to)
			}
			select {
			case <-tick.C:
			case <-end:
				over = true
			}
		}
		tick.Stop()
		if a.Due(time.Now()) {
			t.Errorf("%s: it is due", name)
		}
		if n := a.Refused(t); n != 1 {
			t.Errorf("%s: refused is %v", name, n)
		}
	}
}

// eu is asked for mode native, and its process was dead for longer than a switch may fail. What counts is its own time.
func TestOldWishIsObeyed(t *testing.T) {
	t.Parallel()
	there, _ := away(t, &west, "us", "native", "us")
	for began, want := range map[time.Duration]string{0: "native true", 2 * time.Minute: "native true", 4 * time.Minute: "stream true"} {
		t.Run(began.String(), func(t *testing.T) {
			dsn := east.Database(t)
			cfg, a := auto(t, fmt.Sprintf("auto%d", began/time.Minute), "eu", dsn, "us", there, "direction: publish\n")
			here, err := supervisor.Connect(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			eu := &region{t: t, cfg: cfg, conn: pgtest.Connect(t, dsn), here: here}
			eu.exec(`create table public.item (id int primary key, body text, version int not null default 1, updated_at timestamptz not null default now())`)
			eu.setup()
			here.Close(context.Background())
			eu.exec(fallback.Schema, `insert into pgwaltz.mode (region, mode, settled, since, by, auto) values ('eu', 'native', false, now() - interval '1 day', 'us', true)`)
			row, err := fallback.Load(t.Context(), eu.conn, "eu")
			if err != nil {
				t.Fatal(err)
			}
			var since time.Time
			if began > 0 {
				since = time.Now().Add(-began)
			}
			if err := a.FinishSince(t.Context(), since, row); err != nil {
				t.Error(err)
			}
			if got := says(t, eu.conn, "eu"); got != want {
				t.Errorf("eu is %s, want %s", got, want)
			}
		})
	}
}

// The way to the peer becomes a black hole behind the log-in: nothing answers, and no connection ends.
func TestSilentPeerIsGivenUp(t *testing.T) {
	t.Parallel()
	dsn, _ := away(t, &east, "eu", "native", "us")
	ours, _ := away(t, &west, "us", "stream", "us")
	_, a := auto(t, "auto", "us", ours, "eu", swallow(t, dsn, "pgwaltz.mode"), "")
	began := time.Now()
	if err := a.CallBack(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %s", took)
	}
}

// Whoever waits for a lock at the peer lets go of it, so that no wish is written late.
func TestLockedPeerIsGivenUp(t *testing.T) {
	t.Parallel()
	dsn, eu := away(t, &east, "eu", "stream", "us")
	ours, _ := away(t, &west, "us", "native", "us")
	_, a := auto(t, "auto", "us", ours, "eu", dsn, "")
	if !a.PeerIsBack(t.Context()) {
		t.Error("the peer is not back")
	}
	pgtest.Exec(t, eu, "begin", "lock table pgwaltz.mode in access exclusive mode")
	if a.PeerIsBack(t.Context()) {
		t.Error("it was not read")
	}
	pgtest.Exec(t, eu, "rollback")
}

// swallow leads to a database until the client says word: from there on nothing passes any more, either way.
func swallow(t *testing.T, dsn, word string) string {
	t.Helper()
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		open.Wait()
	})
	open.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", fmt.Sprintf("%s/.s.PGSQL.%d", c.Host, c.Port))
			if err != nil {
				client.Close()
				continue
			}
			mu.Lock()
			conns = append(conns, client, server)
			mu.Unlock()
			open.Go(func() { io.Copy(client, server) }) //nolint:errcheck // it ends with the test
			open.Go(func() {
				buf := make([]byte, 64<<10)
				for silent := false; ; {
					n, err := client.Read(buf)
					if err != nil {
						server.Close()
						return
					}
					if silent = silent || bytes.Contains(buf[:n], []byte(word)); !silent {
						if _, err := server.Write(buf[:n]); err != nil {
							return
						}
					}
				}
			})
		}
	})
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=%s sslmode=disable", l.Addr().(*net.TCPAddr).Port, c.User, c.Database)
}
