package main

import (
	"errors"
	"flag"
	"fmt"
	"regexp"
	"time"
)

// options are the choices of one run.
type options struct {
	seed     uint64
	duration time.Duration // of phase 1
	drain    time.Duration // how long both regions may take to come into step
	keep     string        // folder for what a failed run leaves; "" keeps nothing
	topology string
	regions  int
	rate     int // transactions per second and region that the writers try
	workers  int // per region
	keys     int // per table
	giant    int // rows of a giant transaction; 0 for none
	giants   time.Duration
	every    time.Duration // mean time between two faults
	maxRSS   int64         // MiB of one sidecar
	tables   *regexp.Regexp
	faults   *regexp.Regexp
	verbose  bool
	cost     int  // how often each fault is tried alone; 0 for chaos
	clock    bool // build a sidecar whose clock can be set off
}

func parseOptions(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("chaos", flag.ContinueOnError)
	fs.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()%1e6), "seed of faults and writers")
	fs.DurationVar(&o.duration, "duration", time.Hour, "how long to write and break")
	fs.DurationVar(&o.drain, "drain", 3*time.Minute, "how long the regions may take to come into step afterwards")
	fs.StringVar(&o.keep, "keep", "", "folder for logs and dumps of a failed run")
	fs.StringVar(&o.topology, "topology", "embedded", "embedded, external (one NATS server) or cluster (three)")
	fs.IntVar(&o.regions, "regions", 2, "how many regions: 2 or 3")
	fs.IntVar(&o.rate, "rate", 40, "transactions per second in each region")
	fs.IntVar(&o.workers, "workers", 4, "writers in each region")
	fs.IntVar(&o.keys, "keys", 12, "keys of each table")
	fs.IntVar(&o.giant, "giant", 20000, "rows of a giant transaction, 0 for none")
	fs.DurationVar(&o.giants, "giants", 25*time.Second, "mean time between two giant transactions of a region")
	fs.DurationVar(&o.every, "every", 2*time.Second, "mean time between two faults")
	fs.Int64Var(&o.maxRSS, "max-rss", 512, "most MiB of memory of one sidecar")
	fs.BoolVar(&o.clock, "clock", false, "set the clocks of sidecars off: builds the program anew with another package time, which takes a minute or two the first time")
	fs.IntVar(&o.cost, "cost", 0, "try every fault alone, so often, and print how long both regions need afterwards, instead of a run of chaos")
	tables := fs.String("tables", ".", "regular expression of the tables to write")
	faults := fs.String("faults", ".", "regular expression of the faults to draw from (see -list)")
	list := fs.Bool("list", false, "list tables and faults and end")
	fs.BoolVar(&o.verbose, "v", false, "print every fault as it comes")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if *list {
		for _, t := range tableKinds() {
			fmt.Printf("table  %-12s %s\n", t.name, t.why)
		}
		for _, f := range faultKinds() {
			fmt.Printf("fault  %-18s %s\n", f.name, f.why)
		}
		return o, flag.ErrHelp
	}
	var err1, err2 error
	o.tables, err1 = regexp.Compile(*tables)
	o.faults, err2 = regexp.Compile(*faults)
	if err := errors.Join(err1, err2); err != nil {
		return o, fmt.Errorf("read flags: %w", err)
	}
	if o.regions != 2 && o.regions != 3 {
		return o, errors.New("read flags: -regions is 2 or 3")
	}
	if o.rate < 1 || o.workers < 1 || o.keys < 1 || o.duration <= 0 {
		return o, errors.New("read flags: -rate, -workers, -keys and -duration must be positive")
	}
	return o, nil
}
