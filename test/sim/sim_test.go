package sim

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgwaltz/pgwaltz/conflict"
)

// play runs one configuration in a bubble of its own.
func play(t *testing.T, cfg Config, print func(string)) (why string, hash uint64, stats Stats) {
	synctest.Test(t, func(*testing.T) { why, hash, stats = Run(cfg, print) })
	return why, hash, stats
}

func number(t *testing.T, name string, normal uint64) uint64 {
	s := os.Getenv(name)
	if s == "" {
		return normal
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s is not a number", name)
	}
	return n
}

func repeat(seed uint64) string {
	return fmt.Sprintf("PGWALTZ_SIM_SEED=%d go test -count=1 -run 'TestSim$' -v ./test/sim", seed)
}

// TestSim plays many seeds, on all cores.
func TestSim(t *testing.T) {
	if os.Getenv("PGWALTZ_SIM_SEED") != "" {
		seed := number(t, "PGWALTZ_SIM_SEED", 0)
		cfg := Draw(seed)
		t.Logf("%+v", cfg)
		why, hash, stats := play(t, cfg, func(l string) { t.Log(l) })
		t.Logf("trace %016x %+v", hash, stats)
		if why != "" {
			t.Error(why)
		}
		return
	}
	first, n := number(t, "PGWALTZ_SIM_FROM", 1), number(t, "PGWALTZ_SIM_SEEDS", shortSeeds)
	began := time.Now()
	var next, bad atomic.Uint64
	var all [64]Stats
	t.Run("seeds", func(t *testing.T) {
		for worker := range min(runtime.GOMAXPROCS(0), len(all)) {
			t.Run(strconv.Itoa(worker), func(t *testing.T) {
				t.Parallel()
				for {
					i := next.Add(1) - 1
					if i >= n || bad.Load() > 20 {
						return
					}
					why, _, stats := play(t, Draw(first+i), nil)
					all[worker].add(stats)
					if why != "" {
						bad.Add(1)
						t.Errorf("seed %d: %s\nrepeat it: %s", first+i, why, repeat(first+i))
					}
				}
			})
		}
	})
	var sum Stats
	for i := range all {
		sum.add(all[i])
	}
	took := time.Since(began)
	t.Logf("%d seeds in %s, %.0f a second: %+v", n, took.Round(time.Millisecond), float64(n)/took.Seconds(), sum)
}

// TestSimKnownSeeds plays what once went wrong:
//
//	168     beyond the limits of the index an own delete took away the row that was inserted behind it
//	254     an own row was inserted where an older delete had taken one away, into the generation of that
//	956     the self-merge put an own change over a later one that it did not know of, because their stamps were equal
//	2542    an older delete came before the row's own change was known; that was left out then, because its row was gone
//	3172    as 2542, with three regions and a restore
//	4036    an own row that the self-merge had put back was taken for one of the application
//	4192    parts of another history were taken for parts without order, and the origin was asked for them again for ever
//	4387    as 2542, where the self-merge of an earlier delete had taken the row
//	5073    after `resync` the self-merge took the frames of the history before, because the restored database had no checkpoint of its own stream
//	7985    a region that had just started answered for a row in the first life of its key; its own delete was not known yet
//	9195    an insert and a delete of another region waited together, and the retry forgot that there had been an insert
//	10097   a change waited whose origin was restored and did not know of it any more; whoever showed it told nobody
//	10861   a restored server went on in a stream that had lost its end, and gave the numbers of lost frames to others
//	24541   a change whose row was gone was left out, and with it the time that a later one was lifted above
//	30069   what a region sent by itself was taken for its answer, though its own insert was not merged yet
//	34811   the clock of the WAL was stored for a position that this session had not decoded yet
//	40248   a change whose large value was lost waited for ever: its origin answered with a delete of the same stamp
//	42441   a region told another one of a parked change, whole, and gave it up for the other one's answer
//	46523   the run ended before a restored region had shown again what its peers had applied (the model)
//	50925   an item of an own change was left out that said which row was written last, and its base was another one at the second decoding
//	54187   a restored region forgot that it was one when its WAL had grown beyond what its peer had applied
//	55725   as 50925
//	60862   an earlier row released a change of the same stamp that lacked the value which would have decided
//	60901   a copy of an own row took away the note that it was written here (the model)
//	69218   the self-merge took frames of the history before, below a damaged end of the stream (the model)
//	74450   a change that waited, and was copied meanwhile, stayed above a later one of its origin
//	81736   an own change that waited gave way to another one, which gave way to a lower one of its origin
//	95798   as 42441, where the origin had lost what it asked for
//	110910  a later row of the same stamp was dropped, because an earlier one of its origin waited
//	111201  an earlier row of its origin, which had waited, went in over a later one that does not rise
//	111497  an inserted row that its origin had lost waited for ever
//	115299  as 111201, where the one that waited lacked a large value
//	115667  a restore lost what a stamp rests on (the model)
//	120589  a repair that waited was given up for an older change of the region that had sent it
//	122251  one by one, the self-merge did not know that a later change of the same transaction wrote the row
//	143481  what lay before a giant transaction with nothing to merge was not said to be merged, and its stamps waited for that
//	148706  a repair of what waited took away what that had overwritten, and with it a record
//	200203  the stream and the memory of it were lost in one, and a promoted server began at incarnation 1 again
//	201530  beyond the limit of the index, an own change took the note of its key for its own
//	410551  an own change ended the waiting of one that was made over it and did not rise, and its region was not told
//	441572  an own change that waited, and that another region was told of, gave way to a lower own one that had been published before
//	521312  a row of a later life was put over another one than it was written over, which had the same stamp, and nobody recorded that
//	9900586 a session ended within a transaction of which some was stamped, and a tombstone got a position in front of it
func TestSimKnownSeeds(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{168, 254, 956, 2542, 3172, 4036, 4192, 4387, 5073, 7985, 9195, 10097, 10861, 24541, 30069, 34811, 40248, 42441, 46523, 50925, 54187, 55725, 60862, 60901, 69218, 74450, 81736, 95798, 110910, 111201, 111497, 115299, 115667, 120589, 122251, 143481, 148706, 200203, 201530, 410551, 441572, 521312, 9900586} {
		cfg := Draw(seed)
		cfg.AtOnce, cfg.Far = seed == 521312, false // as they were found
		if why, _, _ := play(t, cfg, nil); why != "" {
			t.Errorf("seed %d: %s\nrepeat it: %s", seed, why, repeat(seed))
		}
	}
}

// ties is a configuration in which rows of one key often have one stamp: versions that stay, times of the transaction,
// and identity DEFAULT, where the origin does not know that they are equal.
func ties(seed uint64) Config {
	cfg, r := Draw(seed), rand.New(rand.NewPCG(seed, 1))
	cfg.Faults += r.IntN(12)
	cfg.Ops += r.IntN(40)
	for i := range cfg.Tables {
		t := &cfg.Tables[i]
		t.Keys, t.Order, t.Version, t.Time = 1+r.IntN(2), conflict.TimeFirst, true, true
		t.Stale, t.Bump = r.IntN(2) == 0, r.IntN(3) > 0
	}
	cfg.Blind, cfg.Deletes, cfg.Refuse = true, true, false
	return cfg
}

// waits is a configuration in which such rows are refused now and then.
func waits(seed uint64) Config {
	cfg, r := Draw(seed), rand.New(rand.NewPCG(seed, 2))
	cfg.Ops += r.IntN(40)
	for i := range cfg.Tables {
		t := &cfg.Tables[i]
		t.Keys, t.Version, t.Full, t.Stale, t.Bump = 1+r.IntN(2), true, false, r.IntN(2) == 0, r.IntN(3) > 0
		t.Time = r.IntN(2) == 0
	}
	cfg.Deletes, cfg.Refuse = true, true
	return cfg
}

// TestSimTies plays rows of one stamp. 263: a region answered with a change that it had completed from its own row, and
// then gave the change up, because the one that had asked did not hold it yet.
func TestSimTies(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{263, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10} {
		if why, _, _ := play(t, ties(seed), nil); why != "" {
			t.Errorf("seed %d: %s", seed, why)
		}
	}
}

// TestSimWaits plays rows of one stamp that wait. 5738: a region answered with a change that waited there, and gave it up for a
// lower one of its origin.
func TestSimWaits(t *testing.T) {
	t.Parallel()
	first := number(t, "PGWALTZ_SIM_FROM", 0)
	seeds := []uint64{5738}
	for n := range 1 + number(t, "PGWALTZ_SIM_SEEDS", 200)/10 {
		seeds = append(seeds, first+n)
	}
	for _, seed := range seeds {
		if why, _, _ := play(t, waits(seed), nil); why != "" {
			t.Errorf("seed %d: %s", seed, why)
		}
	}
}

// lazy is a configuration whose streams acknowledge before what they hold is on disk, and lose that now and then.
func lazy(seed uint64) Config {
	cfg := Draw(seed)
	cfg.Lazy = true
	return cfg
}

// TestSimPowerCuts plays these.
func TestSimPowerCuts(t *testing.T) {
	t.Parallel()
	var sum Stats
	first := number(t, "PGWALTZ_SIM_FROM", 0)
	for n := range 1 + number(t, "PGWALTZ_SIM_SEEDS", 200)/4 {
		why, _, stats := play(t, lazy(first+n), nil)
		if why != "" {
			t.Errorf("seed %d: %s", first+n, why)
		}
		sum.add(stats)
	}
	if sum.PowerCuts == 0 || sum.Lost == 0 {
		t.Errorf("nothing was lost: %+v", sum)
	}
	if s := os.Getenv("PGWALTZ_SIM_POWER"); s != "" {
		cfg := lazy(number(t, "PGWALTZ_SIM_POWER", 0))
		t.Logf("%+v", cfg)
		why, _, stats := play(t, cfg, func(l string) { t.Log(l) })
		t.Logf("%s %+v", why, stats)
	}
}

// odd is a configuration of three regions, mostly, in which much is refused, stamps fall, identities differ, and servers are restored.
func odd(seed uint64) Config {
	cfg, r := Draw(seed), rand.New(rand.NewPCG(seed, 3))
	cfg.Ops += r.IntN(50)
	cfg.Faults += r.IntN(6)
	cfg.Refuse, cfg.Unique = true, r.IntN(2) == 0
	cfg.Restore = r.IntN(3) == 0
	cfg.Deletes = cfg.Deletes || r.IntN(2) == 0
	cfg.KeyChange = cfg.KeyChange || r.IntN(3) == 0
	cfg.Copies = cfg.Copies || r.IntN(3) == 0
	if r.IntN(3) > 0 {
		cfg.Regions = 3
	}
	for i := range cfg.Tables {
		t := &cfg.Tables[i]
		t.Mixed = r.IntN(2) == 0
		t.Toast = t.Toast || r.IntN(3) == 0
		t.Stale = t.Stale || r.IntN(2) == 0
		if r.IntN(2) == 0 {
			t.Keys = 1 + r.IntN(2)
		}
		if cfg.Unique {
			t.Keys = max(t.Keys, 2)
		}
	}
	return cfg
}

// TestSimOdd plays these.
func TestSimOdd(t *testing.T) {
	t.Parallel()
	first := number(t, "PGWALTZ_SIM_FROM", 0)
	for n := range 1 + number(t, "PGWALTZ_SIM_SEEDS", 200)/10 {
		if why, _, _ := play(t, odd(first+n), nil); why != "" {
			t.Errorf("seed %d: %s", first+n, why)
		}
	}
	if s := os.Getenv("PGWALTZ_SIM_ODD"); s != "" {
		cfg := odd(number(t, "PGWALTZ_SIM_ODD", 0))
		t.Logf("%+v", cfg)
		why, _, stats := play(t, cfg, func(l string) { t.Log(l) })
		t.Logf("%s %+v", why, stats)
	}
}
