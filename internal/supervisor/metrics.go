package supervisor

import (
	"maps"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/wal"
)

// collector gives the families of a sidecar that mean something in this mode, under the same names, and two
// of its own. docs/fallback.md lists them.
type collector struct {
	s     *Supervisor
	descs map[string]*prometheus.Desc
}

// Collector gives the metrics of a supervisor.
func Collector(s *Supervisor) prometheus.Collector {
	c := &collector{s: s, descs: map[string]*prometheus.Desc{}}
	for _, m := range []struct {
		name, help string
		labels     []string
	}{
		{"build_info", "1, with what was built and whom it serves as labels.", []string{"cluster", "region", "version", "go_version"}},
		{"up", "0 while the state of the whole sidecar is down, else 1.", nil},
		{"leader", "1 while this process is the one at work for its region, 0 for the standby.", nil},
		{"mode", "1 for the mode that is in effect.", []string{"mode"}},
		{"state", "1 for the state that a direction is in, 0 for the others; direction all is the sidecar's own state.", []string{"direction", "peer", "state"}},
		{"replication_lag_bytes", "WAL of the origin that is not applied at the other end, in bytes.", []string{"direction", "peer"}},
		{"applied_lsn_bytes", "Position of the origin's WAL that is applied at the other end.", []string{"direction", "peer"}},
		{"slot_active", "1 while somebody reads the slot.", nil},
		{"slot_wal_status", "1 for the slot's wal_status in pg_replication_slots, 0 for the others.", []string{"status"}},
		{"slot_retained_bytes", "WAL that the slot keeps the server from removing.", nil},
		{"wal_end_lsn_bytes", "End of the local server's WAL, when it last told.", nil},
		{"confirmed_lsn_bytes", "Position up to which the server was told that it may forget.", nil},
		{"conflicts_total", "Conflicts that this process recorded in the audit log.", []string{"type"}},
		{"last_conflict_timestamp_seconds", "Unix time of the newest of them; absent while there was none.", nil},
		{"subscription_errors", "Errors of the subscription's workers that the server has counted; always 0 before PostgreSQL 15.", []string{"origin"}},
	} {
		c.descs[m.name] = prometheus.NewDesc(prometheus.BuildFQName("pgwaltz", "", m.name), m.help, m.labels, nil)
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.s.mu.Lock()
	st, errors := c.s.seen, maps.Clone(c.s.errors)
	c.s.mu.Unlock()
	put := func(name string, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(c.descs[name], prometheus.GaugeValue, v, labels...)
	}
	flag := func(name string, on bool, labels ...string) {
		v := 0.0
		if on {
			v = 1
		}
		put(name, v, labels...)
	}
	position := func(name, text string, labels ...string) {
		if at, err := wal.ParseLSN(text); err == nil {
			put(name, float64(at), labels...)
		}
	}
	state := func(direction, peer string, is status.State) {
		for _, s := range []status.State{status.Replicating, status.CatchingUp, status.Partitioned, status.Gap, status.Parked, status.Down, status.Standby} {
			flag("state", s == is, direction, peer, string(s))
		}
	}
	put("build_info", 1, st.Cluster, st.Region, st.Version, runtime.Version())
	flag("up", st.State != status.Down)
	flag("leader", st.State != status.Standby && (st.Outbound != nil || len(st.Inbound) > 0))
	put("mode", 1, st.Mode)
	state("all", "", st.State)
	byType := map[string]uint64{}
	for _, t := range conflict.Types() {
		byType[string(t)] = 0 // a series that starts at 0 shows its first increase
	}
	maps.Copy(byType, st.Conflicts.ByType)
	for t, n := range byType {
		ch <- prometheus.MustNewConstMetric(c.descs["conflicts_total"], prometheus.CounterValue, float64(n), t)
	}
	if at := st.Conflicts.LastAt; at != nil {
		put("last_conflict_timestamp_seconds", float64(at.UnixMilli())/1000)
	}
	if o := st.Outbound; o != nil {
		state("outbound", "", o.State)
		flag("slot_active", o.SlotActive)
		for _, word := range []string{"reserved", "extended", "unreserved", "lost"} {
			flag("slot_wal_status", word == o.WALStatus, word)
		}
		put("slot_retained_bytes", float64(o.RetainedBytes))
		position("wal_end_lsn_bytes", o.WALEnd)
		position("confirmed_lsn_bytes", o.ConfirmedLSN)
	}
	for _, in := range st.Inbound {
		state("inbound", in.Origin, in.State)
		put("replication_lag_bytes", float64(in.LagBytes), "inbound", in.Origin)
		position("applied_lsn_bytes", in.EndLSN, "inbound", in.Origin)
		put("subscription_errors", float64(errors[in.Origin]), in.Origin)
	}
}
