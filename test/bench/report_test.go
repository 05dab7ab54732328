package main

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

// sample is a report of three repetitions with everything in it.
func sample() *Report {
	rep := &Report{
		Commit: "0123456789ab", Started: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC), Took: 99, Load: [2]float64{0.5, 3.25}, Scale: 1, Repetitions: 3, Rate: 500,
		Machine:    Machine{Cores: 2, CPU: "a processor", MemoryMB: 8000, Kernel: "6", Go: "go1", PostgreSQL: "15.18 (a package)", Filesystem: "ext4"},
		Settings:   map[string]string{"shared_buffers": "'1GB'"},
		Contenders: []string{"native", "pglogical", "pgwaltz"}, LeftOut: map[string]string{"native in W8": "origin = none needs PostgreSQL 16"},
	}
	account := func(us float64, units int) *Account {
		return &Account{
			Shares: []Share{
				{"sidecar publish", us * float64(units) / 2e6, 100}, {"dst apply", us * float64(units) / 2e6, 50}, {"application", 1, 1}, {"ruler", 0.05, 9}, {"src " + ended, 2, 0},
			},
			WAL: [2]int64{1000, 2000}, Commits: [2]int64{10, 20},
		}
	}
	for n := 1; n <= 3; n++ {
		f := float64(n)
		for i, c := range rep.Contenders {
			k := float64(i + 1)
			rep.Runs = append(rep.Runs,
				Run{Workload: "W1", Contender: c, Repetition: n, TPS: 1000 + 100*f - 50*k, Seconds: 12, Rows: 12000, Lag: 0.01 * f, CPU: map[string]float64{ClassApply: f}, Foreign: 3, Account: account(400*k, 12000)},
				Run{Workload: "W6", Contender: c, Repetition: n, Rows: 50000, Seconds: 1 + f/10 + k/10, CPU: map[string]float64{ClassWalsender: f, ClassApply: 2 * f}, PeakRSS: map[string]int64{"publish": 50 << 20, "apply": int64(n) * 10 << 20}},
				Run{Workload: "W7", Contender: c, Repetition: n, Rows: 10000, Seconds: 20, Latency: &Latencies{Probes: 500, P50: 0.3 * k * f, P95: k * f, P99: 2 * k * f, Max: 9 * k}, Account: account(300*k, 10000)},
				Run{Workload: "W7h", Contender: c, Repetition: n, Rows: 10000, Seconds: 20, Latency: &Latencies{Probes: 500, P50: 3 * k * f, P95: 10 * k * f, P99: 20 * k * f, Max: 90 * k}, Account: account(350*k, 10000)})
		}
		rep.Runs = append(rep.Runs,
			Run{Workload: "R100", Contender: "native", Repetition: n, Rows: 1000, Seconds: f, CPU: map[string]float64{ClassApply: f / 100}},
			Run{Workload: "P2", Contender: "pgwaltz", Repetition: n, Rows: 1000, Seconds: f, CPU: map[string]float64{ClassApply: f / 100}},
			Run{Workload: "W8", Contender: "none", Repetition: n, Seconds: 12, Both: &Both{TPS: [2]float64{1000, 1000 + f}, Count: [2]int{12000, 12000}}},
			Run{Workload: "W8", Contender: "pgwaltz", Repetition: n, Seconds: 12, Lag: 0.2, Account: account(900, 20000), Both: &Both{
				TPS: [2]float64{800, 800 + f}, Count: [2]int{10000, 10000}, Failed: [2]int{0, 1}, Lag: [2]float64{0.1, 0.2 * f}, Conflicts: 40 + n,
				Latency: [2]*Latencies{{Probes: 300, P50: 4, P99: 20}, {Probes: 300, P50: 5 + f, P99: 25}},
			}},
			Run{Workload: "W8", Contender: "pglogical", Repetition: n, Seconds: 12, Lag: 0.2, Account: account(500, 20000), Both: &Both{
				TPS: [2]float64{900, 900 + f}, Count: [2]int{11000, 11000}, Lag: [2]float64{0.1, 0.1}, Differ: 10 * n, Stopped: map[int]string{3: "everything did not arrive"}[n],
				Latency: [2]*Latencies{{Probes: 300, P50: 1, P99: 2}, nil},
			}})
	}
	rep.Runs = append(rep.Runs, Run{Workload: "W6", Contender: "pgwaltz", Repetition: 4, Error: "rows differ"})
	return rep
}

// TestRendering holds tables and plots against testdata, which -update writes.
func TestRendering(t *testing.T) {
	t.Parallel()
	rep := sample()
	var text buffer
	rep.markdown(&text)
	for name, got := range map[string]string{"report.md": text.String(), "throughput.svg": rep.throughputPlot(), "latency.svg": rep.latencyPlot()} {
		file := filepath.Join("testdata", name)
		if *update {
			if err := writeFile(file, []byte(got)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s is another one now; when that is meant: go test ./test/bench -run TestRendering -update\n%s", name, got)
		}
	}
}

// TestPlotsOfAnEmptyReport: a run that was interrupted at once is saved all the same.
func TestPlotsOfAnEmptyReport(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := (&Report{Contenders: []string{"native"}}).save(Options{Plots: dir}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"throughput.svg", "latency.svg"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAStoppedRivalHasNoRatio: what an application keeps beside a replicator that does nothing any more says nothing.
func TestAStoppedRivalHasNoRatio(t *testing.T) {
	t.Parallel()
	if got := sample().ratios("W8", "pgwaltz", "pglogical").N; got != 2 {
		t.Errorf("%d ratios, want 2", got)
	}
}
