package main

import (
	"io"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// TestShort runs every workload with every contender that is there, on few rows: it proves
// that they can be measured and end with equal rows. Its times are not looked at.
func TestShort(t *testing.T) {
	_, err := harness.FindBinaries()
	pgtest.Found(t, err)
	o, err := parseOptions([]string{"-short"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(harness.RemoveTemplates)
	t.Cleanup(harness.RemoveProduct)
	rep, err := measure(t.Context(), o, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	if err := rep.failures(); err != nil {
		t.Error(err)
	}
	for _, name := range o.Workloads {
		for _, c := range rep.Contenders {
			if name == "W10" && c == "pglogical" {
				continue // it has no part in the first copy
			}
			if _, out := rep.LeftOut[c+" in "+name]; out {
				continue
			}
			if len(rep.of(name, c)) != 1 {
				t.Errorf("%s of %s was not measured", name, c)
			}
		}
	}
}

func TestRatiosStayWithinARepetition(t *testing.T) {
	t.Parallel()
	rep := &Report{}
	for n, seconds := range map[int][2]float64{1: {1, 2}, 2: {2, 4}, 3: {4, 4}} {
		rep.Runs = append(rep.Runs,
			Run{Workload: "W6", Contender: "pgwaltz", Repetition: n, Rows: 100, Seconds: seconds[0]},
			Run{Workload: "W6", Contender: "native", Repetition: n, Rows: 100, Seconds: seconds[1]})
	}
	// A failed run counts for nothing, nor does a repetition without its counterpart.
	rep.Runs = append(rep.Runs, Run{Workload: "W6", Contender: "pgwaltz", Repetition: 4, Rows: 100, Seconds: 1},
		Run{Workload: "W6", Contender: "native", Repetition: 4, Rows: 100, Seconds: 9, Error: "rows differ"})
	if got, want := rep.ratios("W6", "pgwaltz", "native"), (spread{Median: 2, Min: 1, Max: 2, N: 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestClassOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		source bool
		title  string
		want   string
	}{
		{true, "postgres: walsender postgres job1 [local] START_REPLICATION\x00", ClassWalsender},
		{true, "postgres: postgres job1 [local] idle", ClassSourceOther},
		{false, "postgres: logical replication worker for subscription 16500 ", ClassApply},
		{false, "postgres: pglogical apply 16385:123", ClassApply},
		{false, "postgres: postgres job1_pgwaltz [local] INSERT", ClassApply},
		{false, "postgres: walwriter ", ClassTargetWriter},
		{false, "postgres: checkpointer ", ClassTargetOther},
		{false, "bash", ""},
	} {
		if got := classOf(c.source, c.title); got != c.want {
			t.Errorf("%q: got %q, want %q", c.title, got, c.want)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args  string
		first string // workload
		n     int
		scale float64
	}{
		{"", "W0", 21, 1},
		{"-quick", "W1", 13, 0.05},
		{"-only sweep,W8", "R1", 15, 1},
		{"-only P3", "P3", 1, 1},
		{"-short", "W0", 12, 0.002},
	} {
		o, err := parseOptions(strings.Fields(c.args), io.Discard)
		if err != nil {
			t.Errorf("%q: %v", c.args, err)
			continue
		}
		if o.Workloads[0] != c.first || len(o.Workloads) != c.n || o.Scale != c.scale {
			t.Errorf("%q: scale %g, %d workloads: %v", c.args, o.Scale, len(o.Workloads), o.Workloads)
		}
		if (o.Budget > 0) != (c.args == "-quick") {
			t.Errorf("%q: a budget of %s", c.args, o.Budget)
		}
	}
	for _, name := range quickWorkloads {
		if workload(name).Base == nil {
			t.Errorf("%s of -quick is no workload", name)
		}
	}
	for _, args := range []string{"-only W99", "-rate 25", "-scale 0"} {
		if _, err := parseOptions(strings.Fields(args), io.Discard); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
