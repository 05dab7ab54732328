package harness

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func TestProcessEnds(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	start := func(script string) *Process {
		p, err := StartProcess(Spec{Name: "sh", Path: "/bin/sh", Args: []string{"-c", script}, Log: log})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		return p
	}
	if code, err := start("echo hello; exit 3").Wait(t.Context(), 5*time.Second); err != nil || code != 3 {
		t.Fatalf("got %d, %v", code, err)
	}
	if got := TailFile(log, 1); got != "hello" {
		t.Fatalf("log holds %q", got)
	}
	p := start("exec sleep 60")
	if p.RSS() == 0 || p.PeakRSS() == 0 {
		t.Error("no memory reading")
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, err := p.Wait(t.Context(), 5*time.Second); err != nil || code != 128+15 {
		t.Fatalf("got %d, %v", code, err)
	}
}

func TestNATSSurvivesKill(t *testing.T) {
	t.Parallel()
	room, err := NewRoom()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { room.Close() })
	n, err := NewNATS(room, "nats")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	ctx := t.Context()
	if err := n.Start(ctx); err != nil {
		t.Fatal(err)
	}
	c, js, err := n.Client()
	if err != nil {
		t.Fatal(err)
	}
	s := &Stream{Name: "S", Subject: "s.f", nc: c, js: js}
	if err := s.Configure(ctx, func(c *jetstream.StreamConfig) { c.MaxMsgs = 100 }); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"a", "b", "c", "d"} {
		if err := s.Publish(ctx, []byte(text), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Reorder(ctx, []int{2, 1, 4, 3}); err != nil {
		t.Fatal(err)
	}
	if err := s.Overlap(ctx); err != nil {
		t.Error(err)
	}
	if err := s.StalePublish(ctx); err != nil {
		t.Error(err)
	}
	c.Close()
	n.Kill()
	if n.Running() {
		t.Fatal("it still runs")
	}
	if err := n.Start(ctx); err != nil {
		t.Fatal(err)
	}
	c, js, err = n.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.nc, s.js = c, js
	msgs, err := s.Messages(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, m := range msgs {
		got += string(m.Data)
	}
	if got != "badc" {
		t.Fatalf("the stream holds %q", got)
	}
	if err := n.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := FlipBit(n.Store, "S"); err != nil {
		t.Error(err)
	}
	if err := DeleteStore(n.Store); err != nil {
		t.Error(err)
	}
}

func TestSidecarSettings(t *testing.T) {
	t.Parallel()
	room, err := NewRoom()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { room.Close() })
	s, err := NewSidecar(room, "a", "a", map[string]any{"nats.listen": "x", "region": "a"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetText("tables.exclude", `["public.x"]`); err != nil {
		t.Fatal(err)
	}
	s.Set("nats.listen", nil)
	path, err := s.ConfigPath()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := "http:\n    listen: " + s.HTTPAddr + "\nnats: {}\nregion: a\ntables:\n    exclude:\n        - public.x\n"
	if string(data) != want {
		t.Fatalf("got\n%swant\n%s", data, want)
	}
}

func TestLookupJSON(t *testing.T) {
	t.Parallel()
	text := `{"a":{"n":12345678901234567890},"peers":[{"region":"us","x":"y"},{"region":"eu"}],"b":true}`
	for path, want := range map[string]string{
		"a.n": "12345678901234567890", "peers.us.x": "y", "peers.1.region": "eu", "peers.#": "2", "b": "true", "none.at.all": "", "peers.zz": "",
	} {
		if got, err := LookupJSON(text, path); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
		}
	}
}

func TestSumMetric(t *testing.T) {
	t.Parallel()
	page := strings.Join([]string{"# HELP x", `x{a="1",b="2"} 3`, `x{a="1",b="3"} 4`, `x{a="2"} 9`, "y 1.5e3"}, "\n")
	for name, want := range map[string]float64{`x{a="1"}`: 7, "x": 16, "y": 1500, `x{b="3", a="1"}`: 4} {
		if got, ok := SumMetric(page, name); !ok || got != want {
			t.Errorf("%s: got %v, %v, want %v", name, got, ok, want)
		}
	}
	if _, ok := SumMetric(page, "z"); ok {
		t.Error("found what is not there")
	}
}
