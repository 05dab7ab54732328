package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/tpcc"
)

// W8 is two regions that write at once: what both keep of their transactions, how long rows travel each way, and
// whether the rows are the same in the end.

const (
	bothSpan = 12 * time.Second
	shared   = 20 // rows that both regions write; the others have one region each
)

// Both is what two regions kept that wrote at once. Pairs are of the left region and the right one.
type Both struct {
	TPS       [2]float64    `json:"source_tps"`
	Count     [2]int        `json:"transactions"`
	Failed    [2]int        `json:"failed_transactions"` // that the application got a deadlock for
	Lag       [2]float64    `json:"lag_seconds"`         // of the way from there, from the end of the load until it had arrived
	Latency   [2]*Latencies `json:"latency_ms,omitempty"`
	Differ    int           `json:"rows_that_differ"` // at the end, the rows of one region only included
	Stopped   string        `json:"stopped,omitempty"`
	Conflicts int           `json:"conflicts,omitempty"` // in the audit logs of pgwaltz
}

// sum is the transactions per second of both regions; 0 when the replicator had stopped.
func (r *Both) sum() float64 {
	if r.Stopped != "" {
		return 0
	}
	return r.TPS[0] + r.TPS[1]
}

// bothScript is insert, update and (5 %) delete on rows of one side's own, each client its own, and 1 % on rows that
// both sides write. Deletes take rows that nobody updates.
func bothScript(base, side int) string {
	keep := base * 3 / 4
	return fmt.Sprintf(`\set r random(1, 1000)
\set i %[1]d + 1 + random(0, %[2]d) * 8 + :client_id * 2 + %[3]d
\set s random(1, %[1]d)
\if :r <= 495
insert into users (username, email, password) select 'n' || u, 'n' || u || '@example.com', md5(u) from (select gen_random_uuid()::text u) x;
\elif :r <= 940
update users set level = level + 1, active = not active where uuid = md5((:i)::text)::uuid;
\elif :r <= 990
delete from users where uuid = (select md5((%[4]d + 2 * nextval('bench_gone') + %[3]d)::text)::uuid);
\elif :r <= 998
update users set level = :r, password = '%[3]d ' || :i where uuid = md5((:s)::text)::uuid;
\elif :r <= 999
delete from users where uuid = md5((:s)::text)::uuid;
\else
insert into users (uuid, username, email, password) values (md5((:s)::text)::uuid, 'user' || :s, 'user' || :s || '@example.com', 'again %[3]d') on conflict do nothing;
\endif
`, shared, max((keep-shared)/8-2, 0), side, keep)
}

// regions are the clusters of W8, the left one first.
func (r *Rig) regions() [2]*harness.Cluster { return [2]*harness.Cluster{r.Source, r.Target} }

// both measures two regions that write at once, with one contender between them; "none" is nobody.
func (b *bench) both(ctx context.Context, w Workload, name string, run *Run) (err error) {
	b.jobs++
	b.base = w.Base(b.o)
	db := fmt.Sprintf("both%d", b.jobs)
	clean := context.WithoutCancel(ctx)
	for _, c := range b.regions() {
		if err := b.database(ctx, c, db, b.base); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.discard(clean, c, db)) }()
	}
	r, err := b.between(name, db)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close(clean)) }()
	if err := r.prepare(ctx); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	if err := r.start(ctx); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	run.Both, run.Seconds = &Both{}, b.o.span(bothSpan).Seconds()
	if name == "none" {
		return b.bothLoads(ctx, db, nil, run.Both)
	}
	// The first row each way: behind it everything is warm.
	if _, err := b.crossed(ctx, db, 1, r); err != nil {
		return err
	}
	from, err := b.read(ctx, [2]string{db, db}, r.processes())
	if err != nil {
		return err
	}
	if err := b.bothLoads(ctx, db, r, run.Both); err != nil {
		return err
	}
	if run.Both.Lag, err = b.crossed(ctx, db, 2, r); err != nil {
		if ctx.Err() != nil || ours(name) {
			return err
		}
		// That a rival gives up is a result.
		run.Both.Stopped = err.Error()
	}
	to, err := b.read(ctx, [2]string{db, db}, r.processes())
	if err != nil {
		return err
	}
	run.Account, run.Lag = to.since(from), max(run.Both.Lag[0], run.Both.Lag[1])
	run.PeakRSS = map[string]int64{}
	for side, p := range r.processes() {
		run.PeakRSS[side] = p.PeakRSS()
	}
	if ours(name) {
		if err := b.agreed(ctx, db, r); err != nil {
			return err
		}
		if run.Both.Conflicts, err = b.conflicts(ctx, db); err != nil {
			return err
		}
	}
	run.Both.Differ, err = b.differ(ctx, db)
	return err
}

// ours tells pgwaltz, in any build, from its rivals.
func ours(contender string) bool { return contender == "pgwaltz" || contender == before }

// between makes one contender for both directions.
func (b *bench) between(name, db string) (beside, error) {
	switch name {
	case "native":
		return &nativePair{rig: b.Rig, db: db}, nil
	case "pglogical":
		return &pglogicalPair{rig: b.Rig, db: db}, nil
	case "pgwaltz", before:
		if err := harness.UseProduct(b.binary(name)); err != nil {
			return nil, err
		}
		p, err := tpcc.NewPairOf([]any{"public.users", "public.mark"}, filepath.Join(b.Room.Dir, db), b.Source, b.Target, db, false, b.o.Set)
		if err != nil {
			return nil, err
		}
		return &pairBeside{rig: b.Rig, db: db, Pair: p}, nil
	}
	return nobody{}, nil
}

// bothLoads runs both loads, and a prober each way where there is somebody to carry the rows.
func (b *bench) bothLoads(ctx context.Context, db string, r beside, out *Both) error {
	span, all := b.o.span(bothSpan), b.regions()
	var jobs []func(context.Context) error
	for i, c := range all {
		jobs = append(jobs, func(ctx context.Context) error {
			l, err := b.pgbench(ctx, c, db, bothScript(b.base.Rows, i), span+time.Minute, nil, "-T", strconv.Itoa(int(span.Seconds())))
			out.TPS[i], out.Count[i], out.Failed[i] = l.TPS, l.Count, l.Failed
			return err
		})
		if r == nil {
			continue
		}
		src, err := b.connect(ctx, c, db)
		if err != nil {
			return err
		}
		defer src.Close(context.WithoutCancel(ctx))
		dst, err := b.connect(ctx, all[1-i], db)
		if err != nil {
			return err
		}
		defer dst.Close(context.WithoutCancel(ctx))
		p := &prober{src: src, dst: dst, first: int64(i+1) * probeIDs, alive: r.alive}
		jobs = append(jobs, func(ctx context.Context) (err error) {
			out.Latency[i], err = p.run(ctx, span, 0, b.o.Timeout)
			return err
		})
	}
	return together(ctx, jobs...)
}

// together runs jobs at once, ends all at the first failure, and returns when none is left.
func together(ctx context.Context, jobs ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan error, len(jobs))
	for _, job := range jobs {
		go func() { results <- job(ctx) }() // one result each, all of them awaited below
	}
	var first error
	for range jobs {
		if err := <-results; err != nil && first == nil {
			first = err
			cancel()
		}
	}
	return first
}

// crossed writes a row behind everything in both regions, waits until each is in the other one, and returns the seconds
// that took from each side.
func (b *bench) crossed(ctx context.Context, db string, n int, r beside) (took [2]float64, err error) {
	var jobs []func(context.Context) error
	all := b.regions()
	for i, c := range all {
		id := 2*n + i
		jobs = append(jobs, func(ctx context.Context) error {
			begin := time.Now()
			if err := b.exec(ctx, c, db, fmt.Sprintf(`insert into mark (id) values (%d)`, id)); err != nil {
				return err
			}
			dst, err := b.connect(ctx, all[1-i], db)
			if err != nil {
				return err
			}
			defer dst.Close(context.WithoutCancel(ctx))
			err = harness.Poll(ctx, b.o.Timeout, 5*time.Millisecond, func(ctx context.Context) (bool, string, error) {
				var there bool
				if err := dst.QueryRow(ctx, `select exists (select from mark where id = $1)`, id).Scan(&there); err != nil {
					return false, "", err
				}
				return there, "everything of " + c.Name + " to arrive", r.alive()
			})
			took[i] = time.Since(begin).Seconds()
			return err
		})
	}
	return took, together(ctx, jobs...)
}

// agreed waits until both regions hold the same rows: what each wrote may still be put right by what came.
func (b *bench) agreed(ctx context.Context, db string, r beside) error {
	return harness.Poll(ctx, b.o.Timeout, 200*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		var got [2]string
		for i, c := range b.regions() {
			err := b.query(ctx, c, db, func(conn *pgx.Conn) (err error) { got[i], err = b.hash(ctx, conn); return err })
			if err != nil {
				return false, "", err
			}
		}
		return got[0] == got[1], fmt.Sprintf("equal rows: left %s, right %s", got[0], got[1]), r.alive()
	})
}

// query opens a session for one look.
func (r *Rig) query(ctx context.Context, c *harness.Cluster, db string, look func(*pgx.Conn) error) error {
	conn, err := r.connect(ctx, c, db)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return look(conn)
}

const rowsQuery = `select 'users ' || uuid, md5(u::text) from users u union all select 'mark ' || id, md5(m::text) from mark m`

// differ counts the rows that are not the same in both regions.
func (b *bench) differ(ctx context.Context, db string) (int, error) {
	var rows [2]map[string]string
	for i, c := range b.regions() {
		rows[i] = map[string]string{}
		err := b.query(ctx, c, db, func(conn *pgx.Conn) error {
			found, err := conn.Query(ctx, rowsQuery)
			if err != nil {
				return err
			}
			var key, hash string
			_, err = pgx.ForEachRow(found, []any{&key, &hash}, func() error { rows[i][strings.Clone(key)] = hash; return nil })
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("read rows of %s: %w", c.Name, err)
		}
	}
	return differences(rows[0], rows[1]), nil
}

// differences counts the keys that have another value in the other map, or none.
func differences(a, b map[string]string) int {
	n := 0
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			n++
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			n++
		}
	}
	return n
}

// conflicts counts the rows of both audit logs.
func (b *bench) conflicts(ctx context.Context, db string) (int, error) {
	sum := 0
	for _, c := range b.regions() {
		err := b.query(ctx, c, db, func(conn *pgx.Conn) error {
			var n int
			err := conn.QueryRow(ctx, `select count(*) from pgwaltz.conflict`).Scan(&n)
			sum += n
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("count conflicts: %w", err)
		}
	}
	return sum, nil
}
