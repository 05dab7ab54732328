package cases

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// poller samples a query in the background, each time in one snapshot.
type poller struct {
	job     *job
	mu      sync.Mutex
	samples [][][]string // sample, row, column
}

var pollRE = regexp.MustCompile(`(?s)^(\w+)\s+([ABC])\s+every\s+(\S+)\s*:\s+(.*)$`)
var pollCheckRE = regexp.MustCompile(`(?s)^(\w+)\s+check\s*:\s*(.*)$`)

// poll reads `NAME B every 5ms: query`, then `NAME check: [columnN] all op value`,
// `NAME check: [columnN] nondecreasing`, `NAME check: prefix of A: query`. Errors while
// the server is away are not samples.
func (x *run) poll(ctx context.Context, arg string) error {
	if m := pollCheckRE.FindStringSubmatch(arg); m != nil {
		p := x.state.polls[m[1]]
		if p == nil {
			return fmt.Errorf("check poll %s: it was never started", m[1])
		}
		p.job.cancel()
		if err := p.job.wait(ctx); err != nil {
			return err
		}
		return x.checkPoll(ctx, p, strings.TrimSpace(m[2]))
	}
	m := pollRE.FindStringSubmatch(arg)
	if m == nil {
		return fmt.Errorf("read poll %q: want NAME SIDE every 5ms: query", shorten(arg))
	}
	every, err := time.ParseDuration(m[3])
	if err != nil {
		return fmt.Errorf("read interval: %w", err)
	}
	r, err := x.p.Region(m[2])
	if err != nil {
		return err
	}
	p := &poller{}
	x.state.polls[m[1]] = p
	p.job = x.goJob(ctx, func(ctx context.Context) error { return p.run(ctx, r, m[4], every) })
	return nil
}

func (p *poller) run(ctx context.Context, r *harness.Region, query string, every time.Duration) error {
	for ctx.Err() == nil {
		c, err := connect(ctx, r)
		if err != nil {
			_ = harness.Pause(ctx, every)
			continue
		}
		for ctx.Err() == nil {
			rows, err := c.Query(ctx, query)
			if err != nil {
				break
			}
			var sample [][]string
			for rows.Next() {
				var row []string
				for _, b := range rows.RawValues() {
					row = append(row, string(b))
				}
				sample = append(sample, row)
			}
			if rows.Err() != nil {
				if ctx.Err() == nil && strings.Contains(rows.Err().Error(), "SQLSTATE 42") {
					_ = c.Close(context.Background())
					return rows.Err()
				}
				break
			}
			p.mu.Lock()
			p.samples = append(p.samples, sample)
			p.mu.Unlock()
			if harness.Pause(ctx, every) != nil {
				break
			}
		}
		_ = c.Close(context.Background())
	}
	return nil
}

var columnRE = regexp.MustCompile(`^\[?column([0-9]+)\]?\s+(.*)$`)

func (x *run) checkPoll(ctx context.Context, p *poller, what string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.samples) == 0 {
		return fmt.Errorf("check poll: it has no sample")
	}
	x.note("poll: %d samples", len(p.samples))
	col := 0
	if m := columnRE.FindStringSubmatch(what); m != nil {
		n, _ := strconv.Atoi(m[1])
		col, what = n-1, m[2]
	}
	switch {
	case strings.HasPrefix(what, "prefix of "):
		side, q := cutSide(strings.TrimPrefix(what, "prefix of "))
		return x.checkPrefix(ctx, p, side, q)
	case what == "nondecreasing":
		last := ""
		return p.each(col, func(v string) error {
			if last != "" && compare(v, last) < 0 {
				return fmt.Errorf("sample fell from %s to %s", last, v)
			}
			last = v
			return nil
		})
	case strings.HasPrefix(what, "all "):
		c, err := parseCondition(strings.TrimPrefix(what, "all "))
		if err != nil {
			return err
		}
		return p.each(col, func(v string) error {
			if !c.holds(v) {
				return fmt.Errorf("a sample was %q, want %s", v, c)
			}
			return nil
		})
	case strings.HasPrefix(what, "in "):
		allowed := map[string]bool{}
		for _, v := range strings.Split(strings.TrimPrefix(what, "in "), ",") {
			allowed[strings.TrimSpace(v)] = true
		}
		return p.each(col, func(v string) error {
			if !allowed[v] {
				return fmt.Errorf("a sample was %q, allowed is %s", v, what[3:])
			}
			return nil
		})
	}
	return fmt.Errorf("read poll check %q", what)
}

func (p *poller) each(col int, fn func(string) error) error {
	for _, s := range p.samples {
		for _, row := range s {
			if col >= len(row) {
				return fmt.Errorf("check poll: no column %d", col+1)
			}
			if err := fn(row[col]); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkPrefix: each sampled row is (key, text); the text must be a prefix of the final
// text of that key.
func (x *run) checkPrefix(ctx context.Context, p *poller, side, q string) error {
	out, err := x.rows(ctx, side, q)
	if err != nil {
		return err
	}
	final := map[string]string{}
	for _, l := range strings.Split(out, " ; ") {
		k, v, _ := strings.Cut(l, "|")
		final[k] = v
	}
	for _, s := range p.samples {
		for _, row := range s {
			if len(row) < 2 {
				return fmt.Errorf("check poll: a prefix needs two columns")
			}
			if !strings.HasPrefix(final[row[0]], row[1]) {
				return fmt.Errorf("key %s: a sample is no prefix of the final list", row[0])
			}
		}
	}
	return nil
}
