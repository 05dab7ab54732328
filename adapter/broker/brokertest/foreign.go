package brokertest

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Foreign starts a NATS server that no broker of ours has. It ends with the test.
func Foreign(t testing.TB, o *server.Options) *server.Server {
	t.Helper()
	o.ServerName, o.Host, o.Port, o.NoSigs, o.NoLog = "external", "127.0.0.1", -1, true, true
	if o.JetStream {
		o.StoreDir = t.TempDir()
	}
	srv, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	return srv
}
