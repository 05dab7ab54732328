package cases

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// loader writes in the background. Each transaction has a number n of its own, unique
// over all sides; it is tried again until it commits, so at the end every number that was
// begun is acknowledged.
type loader struct {
	alternatives []string
	jobs         []*job
	stop         chan struct{} // closed to let the workers finish what they hold
	once         sync.Once
	next         atomic.Int64
	mu           sync.Mutex
	acked        map[string][]int64 // by side
	rejected     int
}

var loadRE = regexp.MustCompile(`(?s)^(\w+)\s+([ABC](?:,[ABC])*|both)\s*:\s*(.*?)\s*:\s+(.*)$`)

// load reads
//
//	NAME A|B|C|A,C|both: 200/s for 10s workers=4 seed=7: sql
//	NAME A: 500 times: sql
//	NAME stop | NAME wait | NAME acked A: query
//
// Placeholders in the SQL: :n, :side, :w, :rand(a,b). Alternatives, one of which is drawn
// for each transaction, are separated by a line /or/.
func (x *run) load(ctx context.Context, arg string) error {
	f := strings.Fields(arg)
	if len(f) >= 2 {
		if l := x.state.loads[f[0]]; l != nil {
			switch {
			case f[1] == "stop":
				l.once.Do(func() { close(l.stop) })
				return l.finish(ctx, x)
			case f[1] == "wait":
				return l.finish(ctx, x)
			case f[1] == "acked":
				return x.checkAcked(ctx, l, strings.TrimSpace(strings.TrimPrefix(strings.TrimPrefix(arg, f[0]), " acked")))
			}
		}
	}
	m := loadRE.FindStringSubmatch(arg)
	if m == nil {
		return fmt.Errorf("read load %q: want NAME SIDE: RATE/s for DURATION: sql", shorten(arg))
	}
	o, err := parseLoad(m[3])
	if err != nil {
		return err
	}
	if x.state.loads[m[1]] != nil {
		return fmt.Errorf("start load %s: the name is taken", m[1])
	}
	rs, err := x.regions(m[2])
	if err != nil {
		return err
	}
	l := &loader{stop: make(chan struct{}), acked: map[string][]int64{}}
	l.alternatives = regexp.MustCompile(`\s*/or/\s*`).Split(m[4], -1)
	x.state.loads[m[1]] = l
	for _, r := range rs {
		pace := make(chan struct{}) // unbuffered: a late worker does not catch up in a burst
		l.jobs = append(l.jobs, x.goJob(ctx, func(ctx context.Context) error { return l.pacer(ctx, o, pace) }))
		for w := range o.workers {
			l.jobs = append(l.jobs, x.goJob(ctx, func(ctx context.Context) error { return l.work(ctx, r, w, o.seed, pace) }))
		}
	}
	return nil
}

type loadOptions struct {
	rate    float64
	total   time.Duration
	times   int
	workers int
	seed    uint64
}

func parseLoad(text string) (loadOptions, error) {
	o := loadOptions{workers: 4, seed: 1}
	f := strings.Fields(text)
	for i := 0; i < len(f); i++ {
		var err error
		switch {
		case strings.HasSuffix(f[i], "/s"):
			o.rate, err = strconv.ParseFloat(strings.TrimSuffix(f[i], "/s"), 64)
		case f[i] == "tx":
		case f[i] == "times" && i > 0:
			o.times, err = strconv.Atoi(f[i-1])
		case i+1 < len(f) && f[i+1] == "times":
		case f[i] == "for" && i+1 < len(f):
			i++
			o.total, err = time.ParseDuration(f[i])
		case strings.HasPrefix(f[i], "workers="):
			o.workers, err = strconv.Atoi(f[i][8:])
		case strings.HasPrefix(f[i], "seed="):
			o.seed, err = strconv.ParseUint(f[i][5:], 10, 64)
		default:
			err = fmt.Errorf("unknown word %q", f[i])
		}
		if err != nil {
			return o, fmt.Errorf("read load options: %w", err)
		}
	}
	if o.rate == 0 && o.times == 0 {
		return o, errors.New("read load options: neither a rate nor a number of times")
	}
	return o, nil
}

// pacer hands out permissions to write one transaction.
func (l *loader) pacer(ctx context.Context, o loadOptions, pace chan struct{}) error {
	defer close(pace)
	var tick <-chan time.Time
	if o.rate > 0 {
		t := time.NewTicker(time.Duration(float64(time.Second) / o.rate))
		defer t.Stop()
		tick = t.C
	}
	var end <-chan time.Time
	if o.total > 0 {
		t := time.NewTimer(o.total)
		defer t.Stop()
		end = t.C
	}
	for i := 0; o.times == 0 || i < o.times; i++ {
		if tick != nil {
			select {
			case <-tick:
			case <-end:
				return nil
			case <-l.stop:
				return nil
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case pace <- struct{}{}:
		case <-end:
			return nil
		case <-l.stop:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

func (l *loader) work(ctx context.Context, r *harness.Region, worker int, seed uint64, pace <-chan struct{}) error {
	rnd := rand.New(rand.NewPCG(seed, uint64(worker)*2+uint64(r.Side[0])))
	var c *pgx.Conn
	defer func() {
		if c != nil {
			_ = c.Close(context.Background())
		}
	}()
	for range pace {
		n := l.next.Add(1)
		sql := fill(l.alternatives[rnd.IntN(len(l.alternatives))], n, r, worker, rnd)
		for retry := false; ; retry = true {
			if ctx.Err() != nil {
				return nil // cut off: the number stays without acknowledgement
			}
			var err error
			if c == nil || c.IsClosed() {
				if c, err = connect(ctx, r); err != nil {
					c = nil
					_ = harness.Pause(ctx, 100*time.Millisecond)
					continue
				}
			}
			_, err = c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
			if err == nil {
				l.ack(r.Side, n)
				break
			}
			var pe *pgconn.PgError
			if errors.As(err, &pe) && pe.Code == "23505" {
				// After an unknown outcome it says that the first attempt did commit.
				if retry {
					l.ack(r.Side, n)
				} else {
					l.reject()
				}
				break
			}
			if errors.As(err, &pe) && permanent(pe.Code) {
				return fmt.Errorf("load on %s: %w", r.Side, err)
			}
			_ = harness.Pause(ctx, 50*time.Millisecond)
		}
	}
	return nil
}

func connect(ctx context.Context, r *harness.Region) (*pgx.Conn, error) {
	conf, err := pgx.ParseConfig(r.Cluster.DSN(r.Database) + " application_name=load connect_timeout=3")
	if err != nil {
		return nil, err
	}
	conf.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	return pgx.ConnectConfig(ctx, conf)
}

// permanent errors are mistakes of the case: syntax and missing tables.
func permanent(code string) bool {
	return strings.HasPrefix(code, "42") || strings.HasPrefix(code, "22")
}

func (l *loader) ack(side string, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[side] = append(l.acked[side], n)
}

func (l *loader) reject() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rejected++
}

var randRE = regexp.MustCompile(`:rand\((-?\d+),\s*(-?\d+)\)`)
var wordRE = regexp.MustCompile(`:(n|side|w)\b`)

func fill(sql string, n int64, r *harness.Region, worker int, rnd *rand.Rand) string {
	sql = randRE.ReplaceAllStringFunc(sql, func(m string) string {
		f := randRE.FindStringSubmatch(m)
		from, _ := strconv.Atoi(f[1])
		to, _ := strconv.Atoi(f[2])
		return strconv.Itoa(from + rnd.IntN(max(1, to-from+1)))
	})
	return wordRE.ReplaceAllStringFunc(sql, func(m string) string {
		switch m {
		case ":n":
			return strconv.FormatInt(n, 10)
		case ":w":
			return strconv.Itoa(worker)
		default:
			return "'" + r.Name + "'"
		}
	})
}

func (l *loader) finish(ctx context.Context, x *run) error {
	for _, j := range l.jobs {
		if err := j.wait(ctx); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	x.note("load: %d acknowledged on A, %d on B, %d on C, %d refused", len(l.acked["A"]), len(l.acked["B"]), len(l.acked["C"]), l.rejected)
	return nil
}

// checkAcked: every acknowledged number is among the first column of the query.
func (x *run) checkAcked(ctx context.Context, l *loader, arg string) error {
	side, q := cutSide(arg)
	r, err := x.p.Region(side)
	if err != nil {
		return err
	}
	c, err := r.Cluster.Connect(ctx, r.Database)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	rows, err := c.Query(ctx, "select x::bigint from ("+q+") as t(x)")
	if err != nil {
		return err
	}
	have := map[int64]bool{}
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&n}, func() error { have[n] = true; return nil }); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	missing, first := 0, int64(0)
	for _, list := range l.acked {
		for _, n := range list {
			if !have[n] {
				missing++
				first = n
			}
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d acknowledged transactions are missing on %s, for example %d", missing, side, first)
	}
	return nil
}
