package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// Share is what one process, or all of one kind, used while the application ran.
type Share struct {
	Who      string  `json:"who"`
	CPU      float64 `json:"cpu_seconds"`
	Switches float64 `json:"context_switches"`
}

// Account is what an application and the replicator beside it used.
type Account struct {
	Shares  []Share  `json:"shares"`
	WAL     [2]int64 `json:"wal_bytes"` // written by source and target
	Commits [2]int64 `json:"commits"`   // transactions of source and target, those of the measuring included
}

// ended stands for the sessions of a cluster that have ended: those of the application, mostly.
const ended = "ended sessions"

// ruler is this program and its sessions: what measuring takes.
const ruler = "ruler"

// replicator tells what a replicator used from the application, its sessions and the ruler.
func replicator(who string) bool {
	return !strings.HasSuffix(who, ended) && who != "application" && who != ruler
}

// reading is a state of all counters.
type reading struct {
	shares  map[string]Share
	wal     [2]int64
	commits [2]int64
}

// read takes the state of all counters, commits of one database at source and target. Processes are told apart by what they are for.
func (r *Rig) read(ctx context.Context, dbs [2]string, side map[string]*harness.Process) (reading, error) {
	out := reading{shares: map[string]Share{}}
	add := func(who string, cpu, switches float64) {
		s := out.shares[who]
		out.shares[who] = Share{who, s.CPU + cpu, s.Switches + switches}
	}
	for i, c := range []*harness.Cluster{r.Source, r.Target} {
		names, err := r.sessions(ctx, c, dbs[i], &out.wal[i], &out.commits[i])
		if err != nil {
			return out, err
		}
		post, err := postmaster(c)
		if err != nil {
			return out, err
		}
		for _, pid := range children(post) {
			switch who, ok := names[pid]; {
			case ok && who == "bench":
				add(ruler, cpuSeconds(pid), switches(pid))
			case ok:
				add(c.Name+" "+who, cpuSeconds(pid), switches(pid))
			}
		}
		add(c.Name+" "+ended, childSeconds(post), 0)
	}
	for who, p := range side {
		if p != nil {
			add("sidecar "+who, cpuSeconds(p.PID()), switches(p.PID()))
		}
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		return out, fmt.Errorf("read the CPU of ended processes: %w", err)
	}
	add("application", float64(u.Utime.Nano()+u.Stime.Nano())/1e9, float64(u.Nvcsw+u.Nivcsw))
	add(ruler, cpuSeconds(os.Getpid()), switches(os.Getpid()))
	return out, nil
}

// sessions names the processes of a cluster by what they are for.
func (r *Rig) sessions(ctx context.Context, c *harness.Cluster, db string, wal, commits *int64) (map[int]string, error) {
	conn, err := r.connect(ctx, c, "postgres")
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = conn.QueryRow(ctx, `select pg_current_wal_insert_lsn() - '0/0', (select sum(xact_commit)::bigint from pg_stat_database where datname = $1)`, db).Scan(wal, commits)
	if err != nil {
		return nil, fmt.Errorf("read counters of %s: %w", c.Name, err)
	}
	rows, err := conn.Query(ctx, `select pid, case when backend_type = 'client backend' then application_name
  when application_name <> '' then backend_type || ' ' || application_name else backend_type end
from pg_stat_activity where pid <> pg_backend_pid()`)
	if err != nil {
		return nil, fmt.Errorf("list sessions of %s: %w", c.Name, err)
	}
	out := map[int]string{}
	for rows.Next() {
		var pid int
		var who string
		if err := rows.Scan(&pid, &who); err != nil {
			return nil, fmt.Errorf("list sessions of %s: %w", c.Name, err)
		}
		out[pid] = who
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list sessions of %s: %w", c.Name, err)
	}
	return out, nil
}

// since is what was used between two readings, the largest first.
func (now reading) since(before reading) *Account {
	a := &Account{}
	for _, who := range slices.Sorted(maps.Keys(now.shares)) {
		n, b := now.shares[who], before.shares[who]
		if d := n.CPU - b.CPU; d > 0.005 {
			a.Shares = append(a.Shares, Share{who, d, max(n.Switches-b.Switches, 0)})
		}
	}
	slices.SortStableFunc(a.Shares, func(x, y Share) int {
		switch {
		case x.CPU > y.CPU:
			return -1
		case x.CPU < y.CPU:
			return 1
		}
		return 0
	})
	for i := range a.WAL {
		a.WAL[i], a.Commits[i] = now.wal[i]-before.wal[i], now.commits[i]-before.commits[i]
	}
	return a
}

// childSeconds is what the ended children of a process have used.
func childSeconds(pid int) float64 {
	f := stat(pid)
	if len(f) < 15 {
		return 0
	}
	user, _ := strconv.ParseFloat(f[13], 64)
	system, _ := strconv.ParseFloat(f[14], 64)
	return (user + system) * tick
}

// switches counts the context switches of all threads of a process.
func switches(pid int) float64 {
	sum := 0.0
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, t := range threads {
		data, _ := os.ReadFile(t)
		for line := range strings.Lines(string(data)) {
			if name, v, ok := strings.Cut(line, ":"); ok && strings.HasSuffix(name, "ctxt_switches") {
				n, _ := strconv.ParseFloat(strings.TrimSpace(v), 64)
				sum += n
			}
		}
	}
	return sum
}

// units is by what an account is divided: transactions of the application, rows, or seconds of rest.
func (r Run) units() float64 {
	switch {
	case r.TPCC != nil:
		return float64(r.TPCC.Transactions)
	case r.Both != nil:
		return float64(r.Both.Count[0] + r.Both.Count[1])
	case r.Rows > 0:
		return float64(r.Rows)
	}
	return r.Seconds
}

// accountTable shows the accounts by transaction, that of W0 by second.
func (rep *Report) accountTable() table {
	t := table{title: "CPU by transaction (W0: by second), microseconds: median (min-max), and context switches; sessions by name",
		head: []string{"workload", "contender", "transactions/s", "WAL bytes at source, target", "commits at source, target", "sum", "who"}}
	for _, w := range rep.measured() {
		for _, c := range rep.names() {
			per := func(of func(*Account) float64) spread {
				return rep.figures(w.Name, c, func(r Run) float64 {
					if r.Account == nil {
						return 0
					}
					return of(r.Account) / max(r.units(), 1)
				})
			}
			names := map[string]float64{}
			for _, r := range rep.of(w.Name, c) {
				if r.Account == nil {
					continue
				}
				for _, s := range r.Account.Shares {
					names[s.Who] = max(names[s.Who], s.CPU)
				}
			}
			if len(names) == 0 {
				continue
			}
			find := func(who string, of func(Share) float64) spread {
				return per(func(a *Account) float64 {
					for _, s := range a.Shares {
						if s.Who == who {
							return of(s)
						}
					}
					return 0
				})
			}
			var parts []string
			for _, who := range slices.SortedFunc(maps.Keys(names), func(a, b string) int {
				return cmp.Or(cmp.Compare(names[b], names[a]), cmp.Compare(a, b))
			}) {
				cpu, sw := find(who, func(s Share) float64 { return s.CPU * 1e6 }), find(who, func(s Share) float64 { return s.Switches })
				if cpu.Median >= 5 {
					parts = append(parts, fmt.Sprintf("%s %s, %.1f", who, cpu.text("%.0f"), sw.Median))
				}
			}
			total := func(of func(Share) float64) spread {
				return per(func(a *Account) float64 {
					sum := 0.0
					for _, s := range a.Shares {
						if replicator(s.Who) {
							sum += of(s)
						}
					}
					return sum
				})
			}
			rate := "-"
			if w.Kind != Idle {
				rate = rep.figures(w.Name, c, func(r Run) float64 { return r.units() / r.Seconds }).text("%.0f")
			}
			both := func(of func(*Account) [2]int64) string {
				one := func(i int) string { return per(func(a *Account) float64 { return float64(of(a)[i]) }).text("%.4g") }
				return one(0) + ", " + one(1)
			}
			t.add(w.Name, c, rate, both(func(a *Account) [2]int64 { return a.WAL }), both(func(a *Account) [2]int64 { return a.Commits }),
				fmt.Sprintf("%s, %.1f", total(func(s Share) float64 { return s.CPU * 1e6 }).text("%.0f"), total(func(s Share) float64 { return s.Switches }).Median), strings.Join(parts, "; "))
		}
	}
	return t
}
