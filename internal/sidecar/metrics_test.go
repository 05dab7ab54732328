package sidecar

import (
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/source/slot"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wal"
)

// busy is a sidecar that has something to say in every metric. Nothing runs in it.
func busy(t *testing.T) *Sidecar {
	t.Helper()
	cfg := &config.Config{Cluster: "accounts", Region: "eu", Direction: config.DirectionBoth, Peers: []config.Peer{{Region: "us"}}}
	cfg.Publish.Confirm = config.ConfirmAdaptive
	s, err := New(cfg, slog.New(slog.DiscardHandler), "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	s.epoch = wal.Epoch{SystemID: 7, Timeline: 1, Slot: "pgwaltz_eu"}
	s.view.Store(&view{epoch: s.epoch})
	s.role = status.Replicating
	s.lastErrAt = now.Add(-time.Hour)
	s.conf = status.Conflicts{Total: 3, ByType: map[string]uint64{"update_deleted": 3}, LastAt: &now}
	s.copy = []status.Copy{{Table: "public.users", State: "done", Rows: 70}, {Table: "public.orders", State: "running", Rows: 30}, {Table: "public.logs", State: "off", Rows: 5}}
	s.own.Put(wal.RelationName{Schema: "public", Name: "users"}, []byte("7"), conflict.Item{Next: 2, LSN: 5})

	o := &s.out
	o.state, o.incarnation, o.seenAt = status.Replicating, 2, now
	o.row = &pg.Slot{Name: "pgwaltz_eu", Active: true, WALStatus: "extended", RestartLSN: 100, CurrentLSN: 1100, SafeWALSize: 4096, HasSafeWALSize: true}
	o.slot = slot.New(slot.Config{Name: "pgwaltz_eu"})
	o.frame.Store(17)
	o.content.Store(17)
	o.durable.Store(900)
	o.ends.note(now.Add(-3*time.Second), 700)
	o.ends.note(now.Add(-2500*time.Millisecond), 1000)
	o.confirmed.Store(800)
	o.atRisk.Store(50)
	o.riskKnown.Store(true)
	o.mode.Store("published")
	o.stats.Transactions.Store(11)
	o.stats.Rows.Store(22)
	o.acks["us"] = peerAck{
		Ack:      broker.Ack{Peer: "us", Epoch: s.epoch, Incarnation: 2, Frame: 15, EndLSN: 750, Proved: 750, CommitTime: 4_000_000},
		received: now.Add(-3 * time.Second),
	}
	o.stats.LastCommit.Store(6_500_000)
	o.stats.Sent.Store(6_500_000)

	in := s.in["us"]
	in.state = status.Replicating
	in.cp = checkpoint.Checkpoint{Origin: "us", Epoch: s.epoch, Incarnation: 1, FrameNo: 9, EndLSN: 333, Transactions: 44}
	in.sub = subscribe.New(subscribe.Config{Cluster: "accounts", Region: "eu", Origin: "us"})
	in.applier = apply.New(apply.Config{Region: "eu", Origin: "us"})
	in.applier.Stats.Rows.Store(5)
	in.applier.Stats.Retries.Store(6)
	in.rows.Store(100)
	in.retries.Store(2)
	in.duplicates.Store(2)
	in.quarantined.Store(1)
	s.parked.Add("us", 4)
	in.skew.Store(90_000_000)
	return s
}

// reading is a collector of s whose subscriptions have read something.
func reading(s *Sidecar) prometheus.Collector {
	c := newCollector(s).(*collector)
	c.certificates = func() map[string]time.Time { return map[string]time.Time{"own": time.Unix(4_000_000_000, 0)} }
	c.read = func(*subscribe.Subscription) subscribe.State {
		return subscribe.State{Reachable: true, SentAt: wal.MicrosOf(time.Now().Add(-2 * time.Second))}
	}
	return c
}

// series is one gathered value, by "name{label=value,...}" without the namespace.
func series(t *testing.T, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			name := strings.TrimPrefix(f.GetName(), namespace+"_")
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			out[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

func TestCollector(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry() // compares what is collected with what is described
	registry.MustRegister(reading(busy(t)))
	got := series(t, registry)
	for name, want := range map[string]float64{
		"up":     1,
		"leader": 1,
		"state{direction=inbound,peer=us,state=parked}":      1,
		"state{direction=inbound,peer=us,state=replicating}": 0,
		"replication_lag_bytes{direction=outbound,peer=us}":  250,
		"backlog_bytes": 100,
		"applied_lsn_bytes{direction=outbound,peer=us}": 750,
		"applied_lsn_bytes{direction=inbound,peer=us}":  333,
		"frame_number{direction=outbound,peer=}":        17,
		"frame_number{direction=inbound,peer=us}":       9,
		"slot_present":                                 1,
		"slot_active":                                  1,
		"slot_retained_bytes":                          1000,
		"slot_safe_wal_bytes":                          4096,
		"slot_wal_status{status=extended}":             1,
		"slot_wal_status{status=lost}":                 0,
		"published_lsn_bytes":                          900,
		"confirmed_lsn_bytes":                          800,
		"confirm_mode{mode=published}":                 1,
		"confirm_mode{mode=applied}":                   0,
		"confirm_at_risk_bytes":                        50,
		"published_transactions_total":                 11,
		"published_rows_total":                         22,
		"peer_reachable{peer=us}":                      0,
		"applied_transactions_total{origin=us}":        44,
		"applied_rows_total{origin=us}":                105,
		"apply_retries_total{origin=us}":               8,
		"parked_changes{origin=us}":                    4,
		"clock_skew_seconds{origin=us}":                90,
		"conflicts_total{type=update_deleted}":         3,
		"conflicts_total{type=insert_exists}":          0,
		"copy_rows":                                    100,
		"copy_tables{state=running}":                   1,
		"copy_tables{state=pending}":                   0,
		"tombstone_index_entries":                      1,
		"tombstone_index_full":                         0,
		"certificate_expiry_timestamp_seconds{of=own}": 4e9,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s = %v (there: %v), want %v", name, v, ok, want)
		}
	}
	for name, want := range map[string]float64{"peer_ack_age_seconds{peer=us}": 3, "heartbeat_age_seconds{origin=us}": 2, "replication_lag_seconds{direction=outbound,peer=us}": 2.5} {
		if v := got[name]; v < want-1 || v > want+60 {
			t.Errorf("%s = %v, want about %v", name, v, want)
		}
	}
}

func TestCollectorBeforeTheFirstTerm(t *testing.T) {
	t.Parallel()
	s, err := New(&config.Config{Cluster: "accounts", Region: "eu", Direction: config.DirectionBoth, Peers: []config.Peer{{Region: "us"}}}, slog.New(slog.DiscardHandler), "")
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(newCollector(s))
	got := series(t, registry)
	if got["leader"] != 0 || got["state{direction=all,peer=,state=down}"] != 1 || got["up"] != 0 {
		t.Errorf("a sidecar that has not begun: leader %v, down %v, up %v", got["leader"], got["state{direction=all,peer=,state=down}"], got["up"])
	}
	for _, absent := range []string{"slot_present", "slot_retained_bytes", "peer_ack_age_seconds{peer=us}", "heartbeat_age_seconds{origin=us}", "last_error_timestamp_seconds"} {
		if v, ok := got[absent]; ok {
			t.Errorf("%s = %v before anything is known", absent, v)
		}
	}
}

// documented reads the rows of the tables in docs/metrics.md: name, type, labels.
func documented(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `("+namespace+"_[a-z0-9_]+)` \\| ([a-z]+) \\| ([^|]*) \\|").FindAllStringSubmatch(string(text), -1) {
		if _, ok := out[m[1]]; ok {
			t.Errorf("docs/metrics.md lists %s twice", m[1])
		}
		labels := regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(m[3], -1)
		words := []string{}
		for _, l := range labels {
			words = append(words, l[1])
		}
		slices.Sort(words)
		out[m[1]] = fmt.Sprint(m[2], words)
	}
	return out
}

// registered lists what /metrics shows of a sidecar, in the form of documented: the
// collector's families, the publisher's and the subscriptions'; others are the runtime's.
func registered(t *testing.T) (ours map[string]string, others []string) {
	t.Helper()
	s := busy(t)
	s.registry.MustRegister(reading(s))
	s.subscriptionMetrics("us") // they come with the first run of the pipe
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	ours = map[string]string{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), namespace+"_") {
			others = append(others, f.GetName())
			continue
		}
		words := []string{}
		for _, l := range f.GetMetric()[0].GetLabel() {
			words = append(words, l.GetName())
		}
		slices.Sort(words)
		ours[f.GetName()] = fmt.Sprint(strings.ToLower(f.GetType().String()), words)
		if f.GetHelp() == "" {
			t.Errorf("%s has no help", f.GetName())
		}
	}
	return ours, others
}

func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	docs := documented(t)
	ours, others := registered(t)
	for name, is := range ours {
		switch says, ok := docs[name]; {
		case !ok:
			t.Errorf("docs/metrics.md does not list %s (%s)", name, is)
		case says != is:
			t.Errorf("docs/metrics.md says %s of %s, which is %s", says, name, is)
		}
	}
	for name := range docs {
		if _, ok := ours[name]; !ok {
			t.Errorf("docs/metrics.md lists %s, which does not exist", name)
		}
	}
	for _, m := range metrics() {
		if _, ok := ours[namespace+"_"+m.name]; !ok {
			t.Errorf("%s is described and never given out", m.name)
		}
	}
	for _, name := range others {
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s is none of ours", name)
		}
	}
}
