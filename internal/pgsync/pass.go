package pgsync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/source/poll"
	"github.com/pgwaltz/pgwaltz/wal"
)

// pass is one run of one job. What it has done when it ends early is kept; doing a part of it again is harmless.
type pass struct {
	job  *Job
	once bool
	log  *slog.Logger

	source, destination *pgx.Conn
	from, to            pg.System
	id                  string   // of the source's database and its history
	role                *pg.Role // the destination's
	sink                *sink
	tables              []*table // parents first
	slot                *pg.Slot // that is read if all tables stream; nil: there is none to be had
	streams             bool
}

// table is one table of a run.
type table struct {
	*poll.Table
	state   *poll.State
	delete  bool
	fresh   bool // this run copies it as a whole
	remade  bool // it is another table than when it was copied
	read    int64
	deleted int64

	replaced  int64 // rows of the destination that have lost a unique value
	mayDelete *bool // the role may; nil: not asked yet
}

func newPass(j *Job, once bool, log *slog.Logger) *pass { return &pass{job: j, once: once, log: log} }

// run does the job once.
func (p *pass) run(ctx context.Context) error {
	began := time.Now()
	defer p.close()
	if err := p.open(ctx); err != nil {
		return err
	}
	refused, err := p.describe(ctx)
	if err != nil {
		return err
	}
	if err := p.openSink(ctx); err != nil {
		return err
	}
	if err := p.plan(ctx); err != nil {
		return err
	}
	if err := p.choose(ctx); err != nil {
		return err
	}
	if err := p.copy(ctx); err != nil {
		return err
	}
	if p.streams {
		err = p.stream(ctx)
	}
	if errors.Is(err, errUntold) {
		p.log.Warn("the WAL does not tell what changed; it is looked for in the tables", "reason", oneLine(err))
		p.streams, err = false, dropSlot(ctx, p.source, p.slot.Name)
	}
	if err == nil && !p.streams {
		err = p.follow(ctx)
	}
	if err != nil {
		return err
	}
	if err := p.deletes(ctx); err != nil {
		return err
	}
	if err := p.settle(ctx); err != nil {
		return err
	}
	if err := p.sink.again(ctx); err != nil {
		return err
	}
	return p.report(ctx, began, refused)
}

// open connects and takes the job.
func (p *pass) open(ctx context.Context) (err error) {
	connect := func(end string, dsn string) (*pgx.Conn, error) {
		conn, err := pg.Connect(ctx, dsn, pg.Options{Region: "pgsync", Role: end})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", end, err)
		}
		return conn, nil
	}
	if p.destination, err = connect("destination", p.job.Destination.Reveal()); err != nil {
		return err
	}
	var got bool
	if err := p.destination.QueryRow(ctx, `select pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended($1, 0))`, "pgwaltz pgsync "+p.job.Name).Scan(&got); err != nil {
		return fmt.Errorf("take the job: %w", err)
	}
	if !got {
		return errBusy
	}
	if p.source, err = connect("source", p.job.Source.Reveal()); err != nil {
		return err
	}
	if p.from, err = pg.LoadSystem(ctx, p.source); err != nil {
		return err
	}
	if p.to, err = pg.LoadSystem(ctx, p.destination); err != nil {
		return err
	}
	from, to := p.from, p.to
	if from.SystemID == to.SystemID && from.Database == to.Database {
		return &ConfigError{"job " + p.job.Name, fmt.Sprintf("source and destination are the same database %q", to.Database), "correct source.dsn or destination.dsn"}
	}
	p.id = fmt.Sprintf("%d/%d/%s", from.SystemID, from.Timeline, from.Database)
	if p.role, err = pg.LoadRole(ctx, p.destination, ""); err != nil {
		return err
	}
	if err := noRegion(ctx, p.destination); err != nil {
		return err
	}
	return prepareSchema(ctx, p.destination, p.role)
}

// openSink connects what writes into the destination.
func (p *pass) openSink(ctx context.Context) (err error) {
	origin, err := prepareOrigin(ctx, p.destination, p.role, originOf(p.job.Name))
	if err != nil {
		return err
	}
	epoch := wal.Epoch{SystemID: p.from.SystemID, Timeline: 1, Slot: "poll"}
	p.sink, err = openSink(ctx, p.job.Destination.Reveal(), originOf(p.job.Name), origin, epoch, p.role, p.destination, p.log)
	return err
}

func (p *pass) close() {
	if p.sink != nil {
		p.sink.close()
	}
	for _, c := range []*pgx.Conn{p.source, p.destination} {
		if c != nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			c.Close(ctx)
			cancel()
		}
	}
}

// describe compares the tables of both sides. One that does not fit is named, and the others go on.
func (p *pass) describe(ctx context.Context) (refused []string, err error) {
	remote := map[*poll.Table]Table{}
	var list []*poll.Table
	for _, t := range p.job.Tables {
		d, err := poll.Describe(ctx, p.source, p.destination, t.Wish)
		if err == nil {
			err = prepareTable(ctx, p.destination, p.role, t)
		}
		if why, try := ofTable(err); why != "" {
			args := []any{"table", t.Name.String(), "reason", why}
			if try != "" {
				args = append(args, "try", try)
			}
			p.log.Error("a table is not copied", args...)
			refused = append(refused, t.Name.String())
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, n := range d.Notes {
			p.log.Warn("a table differs", "table", t.Name.String(), "what", n)
		}
		list, remote[d] = append(list, d), t
	}
	if list, err = poll.ParentsFirst(ctx, p.destination, list); err != nil {
		return nil, err
	}
	for _, d := range list {
		p.tables = append(p.tables, &table{Table: d, delete: remote[d].Delete})
	}
	return refused, nil
}

// ofTable says of an error that is about one table alone what it is, and what to try; "" of others.
func ofTable(err error) (why, try string) {
	if mismatch := (*poll.MismatchError)(nil); errors.As(err, &mismatch) {
		return mismatch.What, mismatch.Remedy
	}
	if grant := (*grantError)(nil); errors.As(err, &grant) {
		return grant.what, grant.hint
	}
	return "", ""
}

// follow applies what changed since the run before, read in one snapshot of all tables, batch by batch.
func (p *pass) follow(ctx context.Context) error {
	if _, err := p.source.Exec(ctx, "begin isolation level repeatable read read only"); err != nil {
		return fmt.Errorf("read the source: %w", err)
	}
	defer p.source.Exec(context.WithoutCancel(ctx), "rollback")
	at, err := poll.Now(ctx, p.source)
	if err != nil {
		return err
	}
	var done []*poll.State
	for _, t := range p.tables {
		if t.fresh {
			continue
		}
		byTime, now := t.ByTime(t.state, time.Now()), time.Now()
		err := t.Changed(ctx, p.source, t.state, byTime, p.job.BatchSize, func(rows []wal.Tuple) error {
			changes, err := t.Changes(ctx, p.destination, rows, at.Time())
			if err != nil {
				return err
			}
			t.read += int64(len(rows))
			return p.sink.apply(ctx, changes, at.Time())
		})
		if err != nil {
			return err
		}
		next := *t.state
		if next.Seen.At = at.At; !byTime {
			// By the time column nothing is proved of older stamps: the sweep goes back to the sweep before.
			next.Seen.XMin, next.Swept = at.XMin, now
		}
		next.Rows += t.read
		t.state = &next
		done = append(done, &next)
	}
	return poll.Save(ctx, p.destination, done...)
}

// deletes removes what the source does not have, children first. A slot has told of it already, but not of rows that
// were written into the destination alone: for these it is done once in a while then.
func (p *pass) deletes(ctx context.Context) error {
	var done []*poll.State
	for _, t := range slices.Backward(p.tables) {
		now := time.Now()
		if !t.delete || t.remade || p.streams && now.Sub(t.state.Swept) < poll.SweepEvery {
			continue
		}
		if err := p.vanished(ctx, t); err != nil {
			return err
		}
		if p.streams {
			t.state.Swept = now
			done = append(done, t.state)
		}
	}
	return poll.Save(ctx, p.destination, done...)
}

// vanished removes those rows of a table that the source does not have.
func (p *pass) vanished(ctx context.Context, t *table) error {
	pages := t.Pages(p.job.BatchSize)
	for after := []string(nil); ; {
		at, err := poll.Now(ctx, p.source)
		if err != nil {
			return err
		}
		changes, last, err := pages.Vanished(ctx, p.source, p.destination, after, at.Time())
		if err != nil || last == nil {
			return err
		}
		if err := p.sink.apply(ctx, changes, at.Time()); err != nil {
			return err
		}
		t.deleted += int64(len(changes))
		after = last
	}
}

// report says in one line for each table what the run has done, and returns an error if a table was left out.
func (p *pass) report(ctx context.Context, began time.Time, refused []string) error {
	for _, t := range p.tables {
		how := "changed"
		switch {
		case t.fresh:
			how = "whole"
		case p.streams:
			how = "streamed"
		}
		if t.fresh || t.read > 0 || t.deleted > 0 {
			p.log.Info("table copied", "table", t.Rel.String(), "how", how, "rows", t.read, "deleted", t.deleted)
		}
		if t.replaced > 0 {
			p.log.Info("rows of the destination lost a unique value and were deleted; they are in pgwaltz.conflict", "table", t.Rel.String(), "rows", t.replaced)
		}
	}
	counts, err := parked.Counts(ctx, p.destination)
	if err != nil {
		return err
	}
	waiting := counts[originOf(p.job.Name)]
	var conflicts uint64
	for _, n := range p.sink.tally.ByType {
		conflicts += n
	}
	p.log.Info("run done", "tables", len(p.tables), "conflicts", conflicts, "parked", waiting, "seconds", fmt.Sprintf("%.3f", time.Since(began).Seconds()))
	if len(refused) > 0 {
		return fmt.Errorf("not copied: %s", strings.Join(refused, ", "))
	}
	return nil
}
