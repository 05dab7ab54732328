package apply

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/wal"
)

// pipeline is a sequence of statements that goes out in one round trip.
type pipeline struct {
	batch pgconn.Batch
	n     int
	fence int // the statement that must touch exactly one row; -1 for none
	row   int // the statement, counted from 1, that says how many rows it wrote (queueRow); 0 for none
	// reads take the results of statements, by place; a fast statement's and all others' are dealt
	// with by run.
	reads map[int]func(*pgconn.ResultReader) error
}

// read says what takes the result of the statement queued last. It has to close it.
func (b *pipeline) read(f func(*pgconn.ResultReader) error) {
	if b.reads == nil {
		b.reads = map[int]func(*pgconn.ResultReader) error{}
	}
	b.reads[b.n-1] = f
}

// text queues a statement with parameters in text form; nil is NULL.
func (b *pipeline) text(sql string, args ...[]byte) {
	b.batch.ExecParams(sql, args, nil, nil, nil)
	b.n++
}

// exec queues a prepared statement with binary parameters. It is prepared at its first use
// in this session.
func (a *Applier) exec(ctx context.Context, b *pipeline, sql string, args [][]byte, results []int16) error {
	if a.gathering {
		a.together.gather(sql, args)
		a.used = 0
		return nil
	}
	name, err := a.prepare(ctx, sql)
	if err != nil {
		return err
	}
	b.batch.ExecPrepared(name, args, binaryFormats(len(args)), results)
	b.n++
	return nil
}

// execText queues a prepared statement with parameters in text form; nil is NULL.
func (a *Applier) execText(ctx context.Context, b *pipeline, sql string, args [][]byte) error {
	name, err := a.prepare(ctx, sql)
	if err != nil {
		return err
	}
	b.batch.ExecPrepared(name, args, nil, nil)
	b.n++
	return nil
}

// prepare prepares a statement at its first use in this session, and returns its name. It asks the server then, at once.
func (a *Applier) prepare(ctx context.Context, sql string) (string, error) {
	name, ok := a.prepared[sql]
	if !ok {
		name = "pgwaltz_" + strconv.Itoa(len(a.prepared))
		if _, err := a.conn.PgConn().Prepare(ctx, name, sql, nil); err != nil {
			return "", fmt.Errorf("prepare statement: %w", err)
		}
		a.prepared[sql] = name
	}
	return name, nil
}

func binaryFormats(n int) []int16 {
	formats := make([]int16, n)
	for i := range formats {
		formats[i] = 1
	}
	return formats
}

// forgetPlans drops all prepared statements of the session: they are prepared again under
// the tables' definitions as they are now.
func (a *Applier) forgetPlans(ctx context.Context) error {
	clear(a.prepared)
	if err := a.conn.DeallocateAll(ctx); err != nil {
		return fmt.Errorf("drop prepared statements: %w", err)
	}
	return nil
}

// run sends a pipeline. left is told which runs each of the fast statements left alone, done which
// it wrote.
func (a *Applier) run(ctx context.Context, b *pipeline, stmts []fastStmt, left func(fastStmt, []int) error, done func(fastStmt, int)) error {
	if b.n == 0 {
		return nil
	}
	a.cfg.Batches.moved(a.holder())
	a.at = 0
	mrr := a.conn.PgConn().ExecBatch(ctx, &b.batch)
	a.used = 0
	var first error
	note := func(err error) {
		if first == nil {
			first = err
		}
	}
	fast := make(map[int]*fastStmt, len(stmts))
	for k := range stmts {
		fast[stmts[k].at] = &stmts[k]
	}
	for n := 0; mrr.NextResult(); n++ {
		rr := mrr.ResultReader()
		if read := b.reads[n]; read != nil {
			note(read(rr))
			continue
		}
		st := fast[n]
		if st == nil {
			tag, err := rr.Close()
			note(err)
			if n == b.fence && err == nil {
				note(pgstore.Fenced(a.cp, tag.RowsAffected()))
			}
			continue
		}
		rest, put, err := a.collect(rr, *st, func(i int) { done(*st, i) })
		st.put = put
		note(err)
		if err == nil && len(rest) > 0 {
			note(left(*st, rest))
		}
	}
	note(mrr.Close())
	return first
}

// query runs one prepared statement and hands on its rows; v is valid only within f.
func (a *Applier) query(ctx context.Context, sql string, args [][]byte, results []int16, f func(v [][]byte)) error {
	b := pipeline{fence: -1}
	if err := a.exec(ctx, &b, sql, args, results); err != nil {
		return err
	}
	a.at = 0
	mrr := a.conn.PgConn().ExecBatch(ctx, &b.batch)
	a.used = 0
	var first error
	for mrr.NextResult() {
		rr := mrr.ResultReader()
		for rr.NextRow() {
			f(rr.Values())
		}
		if _, err := rr.Close(); err != nil && first == nil {
			first = err
		}
	}
	if err := mrr.Close(); err != nil && first == nil {
		first = err
	}
	return first
}

// clone keeps a value beyond the read buffer.
func clone(b []byte) wal.Value {
	if b == nil {
		return wal.Value{Kind: wal.Null}
	}
	return wal.Value{Kind: wal.Text, Bytes: append(make([]byte, 0, len(b)), b...)}
}
