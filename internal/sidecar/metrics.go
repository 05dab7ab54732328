package sidecar

import (
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wal"
)

// namespace begins the name of every metric of ours.
const namespace = "pgwaltz"

// Values of the label "direction"; all is the sidecar as a whole.
const dirAll, dirOutbound, dirInbound = "all", "outbound", "inbound"

// metric describes one family. docs/metrics.md lists the same ones; a test compares them.
type metric struct {
	name   string
	kind   prometheus.ValueType
	help   string
	labels []string
}

// metrics lists what the collector gives, but for the runtime's own families. Labels are
// bounded by the configuration: regions, and closed lists of words; never tables or keys.
func metrics() []metric {
	const g, c = prometheus.GaugeValue, prometheus.CounterValue
	way, origin, peer := []string{"direction", "peer"}, []string{"origin"}, []string{"peer"}
	return []metric{
		{"build_info", g, "1, with what was built and whom it serves as labels.", []string{"cluster", "region", "version", "go_version"}},
		{"up", g, "0 while the state of the whole sidecar is down, else 1.", nil},
		{"leader", g, "1 while this process is the one at work for its region, 0 for the standby.", nil},
		{"state", g, "1 for the state that a direction is in, 0 for the others; direction all is the sidecar's own state.", []string{"direction", "peer", "state"}},
		{"last_error_timestamp_seconds", g, "Unix time of the newest error of a pipe; absent while there was none.", nil},

		{"replication_lag_seconds", g, "Commit time of the newest change that is known, less that of the newest change applied at the other end.", way},
		{"replication_lag_bytes", g, "WAL published by the origin and not applied at the other end, in bytes of its WAL.", way},
		{"applied_lsn_bytes", g, "Position of the origin's WAL that is applied at the other end.", way},
		{"incarnation", g, "Number of the incarnation of the origin's stream that is written, or applied.", way},
		{"frame_number", g, "Last frame of that incarnation that is durable in the stream, or applied.", way},

		{"slot_present", g, "1 while the replication slot exists.", nil},
		{"slot_active", g, "1 while somebody reads the slot.", nil},
		{"slot_wal_status", g, "1 for the slot's wal_status in pg_replication_slots, 0 for the others.", []string{"status"}},
		{"slot_retained_bytes", g, "WAL that the slot keeps the server from removing.", nil},
		{"slot_safe_wal_bytes", g, "WAL that can still be written before the slot may be lost; absent where the server sets no limit.", nil},
		{"wal_end_lsn_bytes", g, "End of the local server's WAL, when it last told.", nil},
		{"received_lsn_bytes", g, "Position up to which the server has sent its WAL.", nil},
		{"published_lsn_bytes", g, "Position up to which frames are durable in the stream.", nil},
		{"confirmed_lsn_bytes", g, "Position up to which the server was told that it may forget.", nil},
		{"backlog_bytes", g, "WAL of the local server that is not durable in the stream yet.", nil},
		{"confirm_mode", g, "1 for what the confirmed position rests on now: applied by every peer, or published in the stream.", []string{"mode"}},
		{"confirm_at_risk_bytes", g, "Confirmed WAL that some peer has not applied: the stream alone holds it.", nil},
		{"published_transactions_total", c, "Transactions framed.", nil},
		{"published_rows_total", c, "Changed rows framed.", nil},
		{"echoes_suppressed_total", c, "Decoded transactions left out because they were applied here, not made here.", nil},
		{"foreign_messages_total", c, "Logical messages with the prefix pgwaltz.tell that no sidecar of this region wrote; they are ignored.", nil},
		{"peer_reachable", g, "1 while the peer's sidecar answers.", peer},
		{"peer_ack_age_seconds", g, "Time since the peer last said how far it has applied; it says so every second. Absent before the first word.", peer},

		{"applied_transactions_total", c, "Transactions of the origin applied since its checkpoint was created.", origin},
		{"applied_rows_total", c, "Rows written for the origin.", origin},
		{"apply_batches_total", c, "Local transactions that applied changes.", origin},
		{"apply_retries_total", c, "Batches tried again after a deadlock, a serialization failure or a lock timeout.", origin},
		{"apply_ordered_total", c, "Batches applied row by row because one of their rows failed.", origin},
		{"parked_changes", g, "Changes set aside now because they cannot be applied.", origin},
		{"parked_total", c, "Times that a change was set aside.", origin},
		{"clock_skew_seconds", g, "How far stamps of the origin were ahead of this clock, lately.", origin},
		{"heartbeat_age_seconds", g, "Age of the newest frame read from the origin, by the origin's clock; an idle origin sends one with every heartbeat. Absent before the first.", origin},

		{"conflicts_total", c, "Conflicts that this process recorded in the audit log.", []string{"type"}},
		{"last_conflict_timestamp_seconds", g, "Unix time of the newest of them; absent while there was none.", nil},
		{"copy_tables", g, "Tables by the state of their initial copy or resync.", []string{"state"}},
		{"copy_rows", g, "Rows that the copies at hand have sent.", nil},
		{"tombstone_index_entries", g, "Tombstones held in memory.", nil},
		{"certificate_expiry_timestamp_seconds", g, "Unix time at which a certificate of the link ends: this region's (own), and those that peers have shown.", []string{"of"}},
		{"tombstone_index_full", g, "1 when there are more tombstones than the index holds.", nil},
	}
}

type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

// collector derives the figures of a sidecar from its status at the moment of the scrape, so
// that nothing is counted twice and nothing can be forgotten on the way. Safe for concurrent
// use, as the registry demands.
type collector struct {
	s        *Sidecar
	families map[string]family
	runtime  []prometheus.Collector // Go and process
	read     func(*subscribe.Subscription) subscribe.State
	// certificates says when those of the link end.
	certificates func() map[string]time.Time
}

func newCollector(s *Sidecar) prometheus.Collector {
	c := &collector{s: s, families: map[string]family{}, read: (*subscribe.Subscription).State, runtime: []prometheus.Collector{
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}}
	c.certificates = func() map[string]time.Time {
		if v := s.view.Load(); v != nil && v.broker != nil {
			return v.broker.Certificates()
		}
		return nil
	}
	for _, m := range metrics() {
		c.families[m.name] = family{prometheus.NewDesc(prometheus.BuildFQName(namespace, "", m.name), m.help, m.labels, nil), m.kind}
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range c.families {
		ch <- f.desc
	}
	for _, r := range c.runtime {
		r.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	for _, r := range c.runtime {
		r.Collect(ch)
	}
	e := emitter{c.families, ch, time.Now()}
	st := c.s.Status()
	c.sidecar(e, &st)
	if st.Outbound != nil {
		c.outbound(e, st.Outbound)
	}
	for i := range st.Inbound {
		c.inbound(e, &st.Inbound[i])
	}
}

// emitter gives out the metrics of one scrape.
type emitter struct {
	families map[string]family
	ch       chan<- prometheus.Metric
	now      time.Time
}

func (e emitter) put(name string, v float64, labels ...string) {
	f := e.families[name]
	e.ch <- prometheus.MustNewConstMetric(f.desc, f.kind, v, labels...)
}

func (e emitter) flag(name string, on bool, labels ...string) {
	v := 0.0
	if on {
		v = 1
	}
	e.put(name, v, labels...)
}

// lsn gives a position as a number of bytes; one that is not known is left out.
func (e emitter) lsn(name, text string, labels ...string) {
	if at, err := wal.ParseLSN(text); err == nil {
		e.put(name, float64(at), labels...)
	}
}

// age gives the seconds since t; before there was a t nothing is given.
func (e emitter) age(name string, t time.Time, labels ...string) {
	if !t.IsZero() {
		e.put(name, max(0, e.now.Sub(t).Seconds()), labels...)
	}
}

func (e emitter) at(name string, t time.Time) { e.put(name, float64(t.UnixMilli())/1e3) }

func (e emitter) state(direction, peer string, is status.State) {
	for _, s := range []status.State{status.Replicating, status.CatchingUp, status.Partitioned, status.Gap, status.Parked, status.Down, status.Standby} {
		e.flag("state", s == is, direction, peer, string(s))
	}
}

func (c *collector) sidecar(e emitter, st *status.Status) {
	s := c.s
	s.mu.Lock()
	leads, failedAt := s.role == status.Replicating, s.lastErrAt
	s.mu.Unlock()
	e.put("build_info", 1, st.Cluster, st.Region, st.Version, runtime.Version())
	e.flag("up", st.State != status.Down)
	e.flag("leader", leads)
	e.state(dirAll, "", st.State)
	if !failedAt.IsZero() {
		e.at("last_error_timestamp_seconds", failedAt)
	}
	byType := map[string]uint64{}
	for _, t := range conflict.Types() {
		byType[string(t)] = 0 // a series that starts at 0 shows its first increase
	}
	for t, n := range st.Conflicts.ByType {
		byType[t] = n
	}
	for t, n := range byType {
		e.put("conflicts_total", float64(n), t)
	}
	if st.Conflicts.LastAt != nil {
		e.at("last_conflict_timestamp_seconds", *st.Conflicts.LastAt)
	}
	for _, x := range st.Waiting {
		e.put("parked_changes", float64(x.Parked), x.Origin)
	}
	tables, rows := map[string]int{"waiting": 0, "pending": 0, "running": 0, "failed": 0, "done": 0, "off": 0}, int64(0)
	for _, t := range st.Copy {
		tables[t.State]++
		if t.State != "off" {
			rows += t.Rows
		}
	}
	for state, n := range tables {
		e.put("copy_tables", float64(n), state)
	}
	e.put("copy_rows", float64(rows))
	e.put("tombstone_index_entries", float64(s.own.Len()))
	e.flag("tombstone_index_full", s.own.Full())
	for of, end := range c.certificates() {
		e.put("certificate_expiry_timestamp_seconds", float64(end.Unix()), of)
	}
}

func (c *collector) outbound(e emitter, o *status.Outbound) {
	e.state(dirOutbound, "", o.State)
	e.put("incarnation", float64(o.Incarnation), dirOutbound, "")
	e.put("frame_number", float64(o.Frame), dirOutbound, "")
	c.slot(e, o)
	e.lsn("wal_end_lsn_bytes", o.WALEnd)
	e.lsn("received_lsn_bytes", o.ReceivedLSN)
	e.lsn("published_lsn_bytes", o.PublishedLSN)
	e.lsn("confirmed_lsn_bytes", o.ConfirmedLSN)
	e.put("backlog_bytes", float64(o.BacklogBytes))
	rests := o.ConfirmMode[strings.LastIndexByte(o.ConfirmMode, '/')+1:]
	for _, mode := range []string{"applied", "published"} {
		e.flag("confirm_mode", mode == rests, mode)
	}
	if o.RiskKnown {
		e.put("confirm_at_risk_bytes", float64(o.BytesAtRisk))
	}
	e.put("published_transactions_total", float64(o.Transactions))
	e.put("published_rows_total", float64(o.Rows))
	e.put("echoes_suppressed_total", float64(o.Echoes))
	e.put("foreign_messages_total", float64(o.Foreign))
	e.put("parked_changes", float64(o.Parked), c.s.cfg.Region)
	for _, p := range o.Peers {
		e.put("replication_lag_seconds", p.LagSeconds, dirOutbound, p.Region)
		e.put("replication_lag_bytes", float64(p.LagBytes), dirOutbound, p.Region)
		e.lsn("applied_lsn_bytes", p.AppliedLSN, dirOutbound, p.Region)
		e.flag("peer_reachable", p.Reachable, p.Region)
		e.age("peer_ack_age_seconds", p.AckedAt, p.Region)
	}
}

// slot tells what the catalog says of the slot, once somebody has looked.
func (c *collector) slot(e emitter, o *status.Outbound) {
	out := &c.s.out
	out.mu.Lock()
	row, seen := out.row, !out.seenAt.IsZero()
	out.mu.Unlock()
	if !seen {
		return
	}
	e.flag("slot_present", row != nil)
	e.flag("slot_active", o.SlotActive)
	for _, word := range []string{"reserved", "extended", "unreserved", "lost"} {
		e.flag("slot_wal_status", word == o.WALStatus, word)
	}
	e.put("slot_retained_bytes", float64(o.RetainedBytes))
	if row != nil && row.HasSafeWALSize {
		e.put("slot_safe_wal_bytes", float64(row.SafeWALSize))
	}
}

func (c *collector) inbound(e emitter, st *status.Inbound) {
	in := c.s.in[st.Origin]
	in.mu.Lock()
	applier, sub := in.applier, in.sub
	in.mu.Unlock()
	e.state(dirInbound, st.Origin, st.State)
	e.put("incarnation", float64(st.Incarnation), dirInbound, st.Origin)
	e.put("frame_number", float64(st.Frame), dirInbound, st.Origin)
	e.put("replication_lag_seconds", st.LagSeconds, dirInbound, st.Origin)
	e.put("replication_lag_bytes", float64(st.LagBytes), dirInbound, st.Origin)
	e.lsn("applied_lsn_bytes", st.EndLSN, dirInbound, st.Origin)
	e.put("applied_transactions_total", float64(st.Transactions), st.Origin)
	e.put("applied_rows_total", float64(st.Rows), st.Origin)
	e.put("parked_changes", float64(st.Parked), st.Origin)
	e.put("clock_skew_seconds", st.ClockSkewSecs, st.Origin)
	if sub != nil {
		if sent := c.read(sub).SentAt; sent > 0 && sent != wal.MaxMicros {
			e.age("heartbeat_age_seconds", sent.Time(), st.Origin)
		}
	}
	none := &apply.Stats{}
	n := none
	if applier != nil {
		n = &applier.Stats
	}
	e.put("apply_batches_total", float64(in.batches.Load()+n.Batches.Load()), st.Origin)
	e.put("apply_retries_total", float64(in.retries.Load()+n.Retries.Load()), st.Origin)
	e.put("apply_ordered_total", float64(in.ordered.Load()+n.Ordered.Load()), st.Origin)
	e.put("parked_total", float64(in.parkedTotal.Load()+n.Parked.Load()), st.Origin)
}
