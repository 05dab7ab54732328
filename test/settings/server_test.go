package settings

import (
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// server: an external NATS server, and who we are there.
func server(s *scene) {
	s.open(harness.PairOptions{}, "create table t(id int primary key, version bigint default 0, updated_at timestamptz default now())")
	a := s.pair.A
	c := a.Sidecar
	known := newKey(s)
	srv, err := natsd.NewServer(&natsd.Options{
		ServerName: "external", Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: s.TempDir(),
		Users: []*natsd.User{{Username: "someone", Password: "right"}}, Nkeys: []*natsd.NkeyUser{{Nkey: known.public}},
	})
	s.must(err)
	srv.Start()
	defer func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	}()
	if !srv.ReadyForConnections(10 * time.Second) {
		s.Fatal("the server does not start")
	}
	c.Set("nats.listen", nil)
	s.give(a, map[string]any{"nats.url": srv.ClientURL()})
	s.must(c.Setup(s.Context()))
	s.set(c, "nats.credentials_file", s.write("seed", newKey(s).seed))
	s.cli(a, 4, "check", "the login is refused")
	s.give(a, map[string]any{"nats.credentials_file": s.write("seed", known.seed)})
	s.cli(a, 0, "check", "logged in", "JetStream answers")
	s.set(c, "nats.credentials_file", nil)
	s.set(c, "nats.user", "someone")
	s.set(c, "nats.password_file", s.write("p", "right"))
	s.cli(a, 0, "check", "logged in")
	// A server that stands alone cannot keep three copies, and says so.
	s.give(a, map[string]any{"nats.replicas": 3})
	s.run(a)
	s.within("three copies to be asked for", func() (bool, string) {
		text := s.log(a)
		return contains(text, "replicas > 1 not supported"), harness.TailFile(c.LogPath, 3)
	})
}
