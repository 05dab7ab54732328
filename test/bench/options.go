package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// Options are the choices of one run.
type Options struct {
	Scale         float64       // share of the full number of rows and seconds
	Shortest      time.Duration // of a load, whatever the scale
	Repetitions   int
	Workloads     []string // names; empty is all
	Contenders    []string // names in the order of the first repetition
	SharedBuffers string
	Timeout       time.Duration // of one drain
	Out           string        // JSON file
	Markdown      string        // file
	Plots         string        // folder for two SVG files
	Render        string        // JSON file to print as markdown instead of measuring
	Rate          int           // transactions per second of W7
	Budget        time.Duration // what does not fit into it is left out; 0 is no limit
	Keep          bool          // leave the folder with data and logs
	Install       bool          // install pglogical when it is missing and this is root
	Set           map[string]string
	Binary        string // of the contender pgwaltz; empty: built from this tree
	Before        string // of the contender before, which takes part when there is one
}

// contenderNames are all of them; "none" is the source without any replicator, in W1 only.
var contenderNames = []string{"native", "pglogical", "pgwaltz"}

// quickBudget is the time of -quick.
const quickBudget = 4*time.Minute + 30*time.Second

// quickWorkloads are those of -quick, what says most first: on a slow machine the last are left out.
var quickWorkloads = []string{"W1", "W8", "W7", "W7h", "W6", "W3", "W2", "W4", "W5i", "W5u", "W7a", "W7c", "W5b"}

// before is the contender of an earlier build.
const before = "before"

type settings map[string]string

func (s settings) String() string { return "" }

func (s settings) Set(text string) error {
	key, value, ok := strings.Cut(text, "=")
	if !ok {
		return errors.New("write it like publish.linger=3ms")
	}
	s[key] = value
	return nil
}

func parseOptions(args []string, stderr io.Writer) (Options, error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	o := Options{Set: settings{}, Shortest: 2 * time.Second}
	var only, contenders string
	var short, quick bool
	f.Float64Var(&o.Scale, "scale", 1, "`share` of the full number of rows and seconds")
	f.IntVar(&o.Repetitions, "repetitions", 3, "repetitions, interleaved; ratios are medians of them")
	f.StringVar(&only, "only", "", "comma-separated `workloads`: "+strings.Join(workloadNames(false), ",")+"; "+sweepName+" is "+strings.Join(workloadNames(true), ","))
	f.StringVar(&contenders, "contenders", strings.Join(contenderNames, ","), "comma-separated `names`")
	f.StringVar(&o.SharedBuffers, "shared-buffers", "1GB", "shared_buffers of both clusters")
	f.DurationVar(&o.Timeout, "timeout", 3*time.Minute, "limit of one drain")
	f.StringVar(&o.Out, "out", "", "JSON `file` to write")
	f.StringVar(&o.Markdown, "markdown", "", "markdown `file` to write")
	f.StringVar(&o.Plots, "plots", "", "`folder` to write throughput.svg and latency.svg into")
	f.StringVar(&o.Render, "render", "", "print the JSON `file` of an earlier run as markdown (and its plots, with -plots), and measure nothing")
	f.StringVar(&o.Binary, "pgwaltz", "", "`binary` to measure (default: build cmd/pgwaltz)")
	f.StringVar(&o.Before, "before", "", "another `binary` to measure beside it in the same run, as the contender "+before)
	f.IntVar(&o.Rate, "rate", latencyRate, fmt.Sprintf("`transactions` per second of W7, above %d", probeRate))
	f.BoolVar(&o.Keep, "keep", false, "keep the folder with data and logs")
	f.BoolVar(&o.Install, "install", true, "install pglogical with apt-get when it is missing (root only)")
	f.BoolVar(&short, "short", false, "tiny and once: is everything equal? its times mean nothing")
	f.BoolVar(&quick, "quick", false, fmt.Sprintf("a twentieth of everything but TPC-C, as many repetitions (up to three) as fit into %s", quickBudget))
	f.DurationVar(&o.Budget, "budget", 0, "leave out what does not fit into this `time`; 0 is no limit")
	f.Var(settings(o.Set), "set", "`key=value` of the configuration of both sidecars, repeatable")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	names := workloadNames(false)
	if quick {
		o.Scale, o.Budget, o.SharedBuffers = 0.05, cmp.Or(o.Budget, quickBudget), "256MB"
		names = slices.Clone(quickWorkloads)
	}
	if short {
		o.shorten()
		// TPC-C has one size, which takes minutes; of the latencies one is enough.
		names = slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, "W9") || strings.HasPrefix(n, "W7") && n != "W7" })
	}
	var err error
	if o.Workloads = names; only != "" {
		only = strings.ReplaceAll(only, sweepName, strings.Join(workloadNames(true), ","))
		if o.Workloads, err = pick("workload", only, slices.Concat(workloadNames(false), workloadNames(true))); err != nil {
			return o, err
		}
	}
	if o.Contenders, err = pick("contender", contenders, contenderNames); err != nil {
		return o, err
	}
	if o.Scale <= 0 || o.Repetitions < 1 || o.Rate <= probeRate {
		return o, fmt.Errorf("scale and repetitions must be above 0, the rate above %d", probeRate)
	}
	if o.Before != "" {
		o.Contenders = append(slices.Clone(o.Contenders), before)
	}
	return o, harness.UseProduct(o.Binary)
}

func (o *Options) shorten() {
	o.Scale, o.Repetitions, o.SharedBuffers, o.Timeout, o.Install = 0.002, 1, "64MB", time.Minute, false
	o.Shortest = time.Second
}

func pick(what, text string, known []string) ([]string, error) {
	if text == "" {
		return known, nil
	}
	var out []string
	for _, n := range strings.Split(text, ",") {
		n = strings.TrimSpace(n)
		if !slices.Contains(known, n) {
			return nil, fmt.Errorf("unknown %s %q: there are %s", what, n, strings.Join(known, ", "))
		}
		out = append(out, n)
	}
	return out, nil
}

// count scales a number of rows.
func (o Options) count(full int) int { return max(int(float64(full)*o.Scale), 40) }

// span scales a duration.
func (o Options) span(full time.Duration) time.Duration {
	return max(time.Duration(float64(full)*o.Scale), o.Shortest).Round(time.Second)
}
