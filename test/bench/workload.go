package main

import (
	"context"
	"fmt"
	"time"
)

// Kind is how a workload is measured.
type Kind string

// Drain writes the history first and lets each contender drain it; Live and Latency run
// while the contender is at work.
const (
	Drain   Kind = "drain"
	Live    Kind = "live"
	Latency Kind = "latency"
	Idle    Kind = "idle"   // both directions, and nothing happens
	Beside  Kind = "beside" // TPC-C, see tpcc.go
	Fill    Kind = "fill"   // the first copy, see fill.go
	Mutual  Kind = "mutual" // both regions write, see both.go
)

// Workload is one row of the table.
type Workload struct {
	Name  string
	What  string
	Kind  Kind
	Must  string // ratio to native that performance.md asks for, for the reader
	Base  func(Options) Base
	Write func(ctx context.Context, r *Rig, database string, o Options) (rows int, err error) // Drain only
	Sweep bool                                                                                // sweep.go; runs only when it is asked for
	Work  int                                                                                 // Sweep only: how many rows, tables or peers
	Peers int                                                                                 // to which the rows go; 0 is one
	// Latency only
	Rate int  // transactions per second
	Busy bool // a busy loop on each core takes half of the CPU
	// Beside only
	Scene   Scene
	Stamped bool // the tables have stamp columns
}

// loadScript is one insert, update or (5 %) delete per transaction, and each changes one
// row. Every client updates rows of its own, so that nobody waits for a row lock; deletes
// take rows that nobody updates.
func loadScript(base int) string {
	keep := base * 3 / 4
	return fmt.Sprintf(`\set r random(1, 100)
\set i random(1, %d) * 4 + :client_id
\if :r <= 50
insert into users (username, email, password) select 'n' || u, 'n' || u || '@example.com', md5(u) from (select gen_random_uuid()::text u) x;
\elif :r <= 95
update users set level = level + 1, active = not active where uuid = md5((:i)::text)::uuid;
\else
delete from users where uuid = (select md5((%d + nextval('bench_gone'))::text)::uuid);
\endif
`, max(keep/4-1, 1), keep)
}

func loadBase(o Options) Base { return Base{Rows: o.count(200_000)} }

// workloads in the order in which they run.
func workloads() []Workload {
	return append([]Workload{
		{Name: "W0", What: "idle, in both directions", Kind: Idle, Must: "-", Base: loadBase},
		{Name: "W1", What: "live OLTP, source transactions/s kept", Kind: Live, Must: "0.95", Base: loadBase},
		{Name: "W2", What: "backlog, ten rows a transaction", Kind: Drain, Must: "1.1", Base: loadBase, Write: writeTens},
		{Name: "W3", What: "backlog, one COPY", Kind: Drain, Must: "1.15", Base: func(Options) Base { return Base{Rows: 40} }, Write: writeCopy},
		{Name: "W4", What: "backlog, one UPDATE", Kind: Drain, Must: "1.15", Base: func(o Options) Base { return Base{Rows: o.count(200_000)} }, Write: writeUpdate},
		{Name: "W5u", What: "backlog, wide rows updated, TOAST unchanged", Kind: Drain, Must: "1.5", Base: wideBase, Write: writeWideUpdates},
		{Name: "W5i", What: "backlog, 2 kB inserts", Kind: Drain, Must: "0.9", Base: func(Options) Base { return Base{Rows: 40, Wide: true} }, Write: writeWideInserts},
		{Name: "W5b", What: "backlog, 100 kB inserts", Kind: Drain, Must: "-", Base: func(Options) Base { return Base{Rows: 40, Wide: true} }, Write: writeBigInserts},
		{Name: "W6", What: "backlog, one-row transactions", Kind: Drain, Must: "1.15", Base: loadBase, Write: writeOnes},
		{Name: "W7a", What: "latency at 100 transactions/s", Kind: Latency, Must: "-", Base: loadBase, Rate: 100},
		{Name: "W7", What: "latency at 500 transactions/s", Kind: Latency, Must: "2.5, p99 < 5 ms", Base: loadBase, Rate: latencyRate},
		{Name: "W7c", What: "latency at 2,000 transactions/s", Kind: Latency, Must: "-", Base: loadBase, Rate: 2000},
		{Name: "W7h", What: "latency at 500 transactions/s and half the CPU", Kind: Latency, Must: "p99 < 100 ms", Base: loadBase, Rate: latencyRate, Busy: true},
		{Name: "W8", What: "both regions write, transactions/s kept by both", Kind: Mutual, Must: "0.95 of pglogical", Base: loadBase},
		{Name: "W10", What: "first copy of 1,000,000 rows into an empty table", Kind: Fill, Must: "0.5", Base: func(o Options) Base { return Base{Rows: o.count(1_000_000)} }},
		{Name: "W9", What: "TPC-C, tables without stamp columns", Kind: Beside, Must: "0.9", Scene: Steady},
		{Name: "W9s", What: "TPC-C, tables with stamp columns", Kind: Beside, Must: "0.9", Scene: Steady, Stamped: true},
		{Name: "W9b", What: "TPC-C from a backlog, without stamp columns", Kind: Beside, Must: "0.9", Scene: Backlog},
		{Name: "W9bs", What: "TPC-C from a backlog, with stamp columns", Kind: Beside, Must: "0.9", Scene: Backlog, Stamped: true},
		{Name: "W9c", What: "TPC-C during the first copy, without stamp columns", Kind: Beside, Must: "0.9", Scene: Copying},
		{Name: "W9cs", What: "TPC-C during the first copy, with stamp columns", Kind: Beside, Must: "0.9", Scene: Copying, Stamped: true},
	}, sweep()...)
}

func wideBase(o Options) Base { return Base{Rows: o.count(20_000), Wide: true} }

// workload is the one of that name, which exists.
func workload(name string) Workload {
	for _, w := range workloads() {
		if w.Name == name {
			return w
		}
	}
	return Workload{Name: name}
}

// workloadNames are those of the sweep, or the others.
func workloadNames(swept bool) []string {
	var names []string
	for _, w := range workloads() {
		if w.Sweep == swept {
			names = append(names, w.Name)
		}
	}
	return names
}

const clients = 4

// writeOnes is W6: what W1 does, written to the end first.
func writeOnes(ctx context.Context, r *Rig, db string, o Options) (int, error) {
	n := o.count(500_000) / clients
	return n * clients, r.history(ctx, db, loadScript(loadBase(o).Rows), n)
}

// writeTens is W2: five rows inserted and five updated in one transaction.
func writeTens(ctx context.Context, r *Rig, db string, o Options) (int, error) {
	n := max(o.count(500_000)/10/clients, 1)
	quarter := loadBase(o).Rows / clients
	script := fmt.Sprintf(`\set i %d * :client_id + random(1, %d)
begin;
insert into users (username, email, password) select 'n' || u, 'n' || u || '@example.com', md5(u) from (select gen_random_uuid()::text u from generate_series(1, 5)) x;
update users set level = level + 1 where uuid = any (array(select md5(i::text)::uuid from generate_series(:i, :i + 4) i));
commit;
`, quarter, max(quarter-5, 1))
	return n * clients * 10, r.history(ctx, db, script, n)
}

// writeUpdate is W4: every base row in one statement.
func writeUpdate(ctx context.Context, r *Rig, db string, o Options) (int, error) {
	return o.count(200_000), r.exec(ctx, r.Source, db, `update users set level = level + 1`)
}

// writeWideUpdates is W5u: each base row gets a new profile; the long text stays.
func writeWideUpdates(ctx context.Context, r *Rig, db string, o Options) (int, error) {
	n := wideBase(o).Rows / clients
	script := `update users set profile = ` + profile("i") + ` from (select nextval('bench_next') i) x where uuid = md5(x.i::text)::uuid;
`
	return n * clients, r.history(ctx, db, script, n)
}

// writeWideInserts is W5i.
func writeWideInserts(ctx context.Context, r *Rig, db string, o Options) (int, error) {
	n := o.count(20_000) / clients
	script := `insert into users (username, email, password, profile) select 'n' || i, 'n' || i || '@example.com', md5(i::text), ` + profile("i") + ` from (select nextval('bench_next') i) x;
`
	return n * clients, r.history(ctx, db, script, n)
}

// writeBigInserts is W5b: 100 kB of text in each row, which does not compress.
func writeBigInserts(ctx context.Context, r *Rig, db string, o Options) (int, error) {
	n := o.count(5_000) / clients
	script := `insert into users (username, email, password, notes) select 'n' || i, 'n' || i || '@example.com', md5(i::text), (select string_agg(md5(i::text || k), '') from generate_series(1, 3200) k) from (select nextval('bench_next') i) x;
`
	return n * clients, r.history(ctx, db, script, n)
}

// Durations of the live workloads at full scale.
const (
	liveSpan    = 12 * time.Second
	latencySpan = 20 * time.Second
	idleSpan    = 20 * time.Second
	latencyRate = 500 // transactions per second of W7, unless -rate says otherwise
)
