package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgwaltz/pgwaltz/internal/admin"
	"github.com/pgwaltz/pgwaltz/internal/status"
)

func get(t *testing.T, h http.Handler, method, path string) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEndpointsReadOnly(t *testing.T) {
	t.Parallel()
	h := admin.New(admin.Config{}).Handler()
	for _, path := range []string{"/", "/metrics", "/livez", "/readyz", "/status"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
			if r := get(t, h, method, path); r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d", method, path, r.StatusCode)
			}
		}
	}
	if r := get(t, h, "GET", "/nothing"); r.StatusCode != http.StatusNotFound {
		t.Errorf("/nothing: %d", r.StatusCode)
	}
}

func TestReadyzNamesTheState(t *testing.T) {
	t.Parallel()
	for state, code := range map[status.State]int{
		status.Replicating: 200, status.CatchingUp: 200, status.Parked: 200, status.Standby: 200,
		status.Partitioned: 503, status.Gap: 503, status.Down: 503, "": 503,
	} {
		h := admin.New(admin.Config{Status: func() status.Status {
			return status.Status{State: state, Inbound: []status.Inbound{{Origin: "us", State: status.Gap, Reason: "frame 7 is missing"}}}
		}}).Handler()
		r := get(t, h, "GET", "/readyz")
		word := state
		if word == "" {
			word = status.Down
		}
		if text := body(t, r); r.StatusCode != code || !strings.HasPrefix(text, string(word)+"\n") || !strings.Contains(text, "inbound us gap: frame 7 is missing") {
			t.Errorf("%q: %d %q", state, r.StatusCode, text)
		}
	}
}

func TestLivez(t *testing.T) {
	t.Parallel()
	var stuck error
	h := admin.New(admin.Config{Alive: func() error { return stuck }}).Handler()
	if r := get(t, h, "GET", "/livez"); r.StatusCode != 200 {
		t.Errorf("alive: %d", r.StatusCode)
	}
	stuck = errors.New("slot loop has not turned for 90s")
	if r := get(t, h, "GET", "/livez"); r.StatusCode != 503 || !strings.Contains(body(t, r), "90s") {
		t.Errorf("stuck: %d", r.StatusCode)
	}
}

func TestStatusAndMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "pgwaltz_test_total", Help: "A test."})
	registry.MustRegister(c)
	c.Inc()
	h := admin.New(admin.Config{Registry: registry, Status: func() status.Status { return status.Status{Region: "eu", State: status.Replicating} }}).Handler()
	if text := body(t, get(t, h, "GET", "/metrics")); !strings.Contains(text, "pgwaltz_test_total 1") {
		t.Errorf("metrics:\n%s", text)
	}
	var st status.Status
	if err := json.Unmarshal([]byte(body(t, get(t, h, "GET", "/status"))), &st); err != nil || st.Region != "eu" {
		t.Errorf("status %+v, error %v", st, err)
	}
}

// start runs a server and returns it with what stops it.
func start(t *testing.T, cfg admin.Config) (*admin.Server, func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, done := admin.New(cfg), make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := func() error { cancel(); return <-done }
	t.Cleanup(func() { cancel() })
	return s, stop
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick, limit := time.NewTicker(5*time.Millisecond), time.After(10*time.Second)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s: not in time", what)
		}
	}
}

func TestSecondServerWaitsForThePort(t *testing.T) {
	t.Parallel()
	region := func(name string) func() status.Status {
		return func() status.Status { return status.Status{Region: name, State: status.Replicating} }
	}
	first, stopFirst := start(t, admin.Config{Listen: "127.0.0.1:0", Status: region("first")})
	await(t, "first server", func() bool { return first.Addr() != "" })
	address := first.Addr()
	second, stopSecond := start(t, admin.Config{Listen: address, Status: region("second")})
	if st, err := admin.Fetch(t.Context(), address); err != nil || st.Region != "first" {
		t.Fatalf("status %+v, error %v", st, err)
	}
	if err := stopFirst(); err != nil {
		t.Fatal(err)
	}
	await(t, "take-over", func() bool { return second.Addr() == address })
	if st, err := admin.Fetch(t.Context(), address); err != nil || st.Region != "second" {
		t.Fatalf("status %+v, error %v", st, err)
	}
	if err := stopSecond(); err != nil {
		t.Fatal(err)
	}
}

func TestAddressFileLeadsToPortZero(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "http.addr")
	s, stop := start(t, admin.Config{Listen: "127.0.0.1:0", AddressFile: file, Status: func() status.Status { return status.Status{Region: "eu"} }})
	await(t, "server", func() bool { _, err := os.Stat(file); return s.Addr() != "" && err == nil })
	address, err := admin.Address("127.0.0.1:0", file)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := admin.Fetch(t.Context(), address); err != nil || st.Region != "eu" || st.State != status.Down {
		t.Fatalf("status %+v, error %v", st, err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Fatalf("the address file is left behind: %v", err)
	}
}

func TestRunEndsWhileWaitingAndWithoutAddress(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, listen := range []string{"", taken.Addr().String()} {
		_, stop := start(t, admin.Config{Listen: listen})
		if err := stop(); err != nil {
			t.Errorf("listen %q: %v", listen, err)
		}
	}
	if err := admin.New(admin.Config{Listen: "no port"}).Run(t.Context()); err == nil {
		t.Error("an impossible address was accepted")
	}
}

func TestAddress(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{"0.0.0.0:9": "127.0.0.1:9", ":9": "127.0.0.1:9", "[::]:9": "127.0.0.1:9", "10.0.0.1:9": "10.0.0.1:9", "host:9": "host:9"} {
		if got, err := admin.Address(listen, ""); err != nil || got != want {
			t.Errorf("Address(%q) = %q, %v", listen, got, err)
		}
	}
	for _, listen := range []string{"", "x", "127.0.0.1:0"} {
		if _, err := admin.Address(listen, ""); err == nil {
			t.Errorf("Address(%q) has no error", listen)
		}
	}
}

// A reason can hold a name from the database: it begins no line of its own.
func TestReadyzKeepsReasonsOnTheirLine(t *testing.T) {
	t.Parallel()
	s := admin.New(admin.Config{Status: func() status.Status {
		return status.Status{State: status.Gap, Outbound: &status.Outbound{State: status.Gap, Reason: "table x\nreplicating\x1b[2J is"}}
	}})
	answer := httptest.NewRecorder()
	s.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	if got, want := answer.Body.String(), "gap\noutbound gap: table x\\nreplicating\\x1b[2J is\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
