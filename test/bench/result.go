package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Run is one contender in one workload of one repetition.
type Run struct {
	Workload   string             `json:"workload"`
	Contender  string             `json:"contender"`
	Repetition int                `json:"repetition"`
	Rows       int                `json:"rows,omitempty"`           // changed by the history, or sent by the load
	Seconds    float64            `json:"seconds,omitempty"`        // of the drain, or of the load
	StartUp    float64            `json:"start_up_seconds"`         // from the word to the walsender; in no rate
	TPS        float64            `json:"source_tps,omitempty"`     // live
	Lag        float64            `json:"lag_seconds,omitempty"`    // live: from the end of the load until it had arrived
	Latency    *Latencies         `json:"latency_ms,omitempty"`     // latency
	TPCC       *TPCC              `json:"tpcc,omitempty"`           // beside
	Both       *Both              `json:"both,omitempty"`           // mutual
	Account    *Account           `json:"account,omitempty"`        // beside, live, latency, idle, mutual
	CPU        map[string]float64 `json:"cpu_seconds,omitempty"`    // by class
	Foreign    float64            `json:"foreign_cpu_seconds"`      // used on this machine by nobody of the run, the load included
	PeakRSS    map[string]int64   `json:"peak_rss_bytes,omitempty"` // of the sidecars
	Error      string             `json:"error,omitempty"`
}

// Latencies are milliseconds from the commit at the source to the row at the target.
type Latencies struct {
	Probes int     `json:"probes"`
	Lost   int     `json:"lost,omitempty"` // probes that did not arrive
	P50    float64 `json:"p50"`
	P95    float64 `json:"p95"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`
}

// TPCC is what an application kept beside a replicator.
type TPCC struct {
	TpmC         float64  `json:"tpmc"`
	Transactions int      `json:"transactions"`    // of all five kinds
	Longest      float64  `json:"longest_seconds"` // transaction of the application
	Deadlocks    int      `json:"deadlocks"`       // that the application got
	Errors       int      `json:"errors"`
	First        string   `json:"first_error,omitempty"`
	Sides        [2]int64 `json:"side_table_bytes"` // of source and target
	Data         [2]int64 `json:"table_bytes"`
}

// figure is the one number by which runs are compared; 0 when there is none.
func (r Run) figure() float64 {
	switch {
	case r.Error != "":
		return 0
	case r.Latency != nil:
		return r.Latency.P50
	case r.TPS > 0:
		return r.TPS
	case r.Both != nil:
		return r.Both.sum()
	case r.TPCC != nil:
		return r.TPCC.TpmC
	case r.Seconds > 0:
		return float64(r.Rows) / r.Seconds
	}
	return 0
}

// Report is everything that a run of the program found out.
type Report struct {
	Commit      string            `json:"commit"`
	Started     time.Time         `json:"started"`
	Took        float64           `json:"took_seconds"`
	Machine     Machine           `json:"machine"`
	Load        [2]float64        `json:"load"` // of this machine, the average of a minute, before the run and after it
	Settings    map[string]string `json:"settings"`
	Sidecar     map[string]string `json:"sidecar_settings,omitempty"` // beside the defaults
	Scale       float64           `json:"scale"`
	Repetitions int               `json:"repetitions"`
	Rate        int               `json:"rate"` // transactions per second of W7
	Contenders  []string          `json:"contenders"`
	LeftOut     map[string]string `json:"left_out,omitempty"`
	Runs        []Run             `json:"runs"`
}

func readReport(path string) (*Report, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	var rep Report
	if err := json.Unmarshal(data, &rep); err != nil {
		return nil, fmt.Errorf("read report %s: %w", path, err)
	}
	return &rep, nil
}

// save writes what the options ask for.
func (rep *Report) save(o Options) error {
	if o.Out != "" {
		data, err := json.MarshalIndent(rep, "", "  ")
		if err != nil {
			return fmt.Errorf("write report: %w", err)
		}
		if err := writeFile(o.Out, append(data, '\n')); err != nil {
			return err
		}
	}
	if o.Plots != "" {
		if err := rep.plots(o.Plots); err != nil {
			return err
		}
	}
	if o.Markdown == "" {
		return nil
	}
	var b buffer
	rep.markdown(&b)
	return writeFile(o.Markdown, b.Bytes())
}

func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make folder of %s: %w", path, err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// failures joins what went wrong in single runs; the others count all the same.
func (rep *Report) failures() error {
	var errs []error
	for _, r := range rep.Runs {
		if r.Error != "" {
			errs = append(errs, fmt.Errorf("%s %s, repetition %d: %s", r.Workload, r.Contender, r.Repetition, r.Error))
		}
	}
	return errors.Join(errs...)
}

// of lists the good runs of one contender in one workload, by repetition.
func (rep *Report) of(workload, contender string) map[int]Run {
	out := map[int]Run{}
	for _, r := range rep.Runs {
		if r.Workload == workload && r.Contender == contender && r.Error == "" {
			out[r.Repetition] = r
		}
	}
	return out
}

// spread is a median with its extremes.
type spread struct {
	Median, Min, Max float64
	N                int
}

func spreadOf(v []float64) spread {
	if len(v) == 0 {
		return spread{}
	}
	slices.Sort(v)
	m := v[len(v)/2]
	if len(v)%2 == 0 {
		m = (v[len(v)/2-1] + m) / 2
	}
	return spread{Median: m, Min: v[0], Max: v[len(v)-1], N: len(v)}
}

// ratios compares two contenders within each repetition.
func (rep *Report) ratios(workload, a, b string) spread {
	var v []float64
	base := rep.of(workload, b)
	for n, r := range rep.of(workload, a) {
		if o, ok := base[n]; ok && o.figure() > 0 && r.figure() > 0 {
			v = append(v, r.figure()/o.figure())
		}
	}
	return spreadOf(v)
}

// figures collects one number per repetition.
func (rep *Report) figures(workload, contender string, of func(Run) float64) spread {
	var v []float64
	for _, r := range rep.of(workload, contender) {
		if x := of(r); x != 0 && !math.IsNaN(x) && !math.IsInf(x, 0) {
			v = append(v, x)
		}
	}
	return spreadOf(v)
}
