package pgsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgwaltz/pgwaltz/adapter/guard"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/decoder"
	"github.com/pgwaltz/pgwaltz/source/poll"
	"github.com/pgwaltz/pgwaltz/source/slot"
	"github.com/pgwaltz/pgwaltz/wal"
)

// errUntold: the WAL does not tell which rows were written.
var errUntold = errors.New("the key of a change is not in the WAL")

// errDone ends the reading of a slot.
var errDone = errors.New("the slot was read to its end")

// pingEvery is how often the server is asked how far it has decoded.
const pingEvery = 100 * time.Millisecond

// streaming is one reading of the slot. The slot tells which rows were written or deleted; what they are is read from the source, all in one
// snapshot for each chunk. So a chunk may come again, after a crash or when the position was not confirmed, and finds its rows as they are.
type streaming struct {
	*pass
	byOID map[uint32]*poll.Keys
	of    map[uint32]*table
	xids  []wal.XID
	size  int // of changes since the last chunk
	safe  atomic.Uint64
}

// stream applies what the slot tells, up to the end that the WAL has now, and confirms it.
func (p *pass) stream(ctx context.Context) error {
	s := &streaming{pass: p, byOID: map[uint32]*poll.Keys{}, of: map[uint32]*table{}}
	for _, t := range p.tables {
		s.byOID[t.OID], s.of[t.OID] = t.Keys(), t
	}
	began, err := poll.Now(ctx, p.source)
	if err != nil {
		return err
	}
	// A transaction of our own: whatever the snapshot shows is in the WAL before it, and it ends up on the disk.
	var text string
	if err := p.source.QueryRow(ctx, `select pg_catalog.pg_logical_emit_message(true, 'pgsync', '')::text`).Scan(&text); err != nil {
		return fmt.Errorf("find the end of the source's WAL: %w", err)
	}
	end, err := wal.ParseLSN(text)
	if err != nil {
		return fmt.Errorf("find the end of the source's WAL: %w", err)
	}
	s.safe.Store(uint64(p.slot.ConfirmedFlushLSN))
	reader := slot.New(slot.Config{
		Connect: func(ctx context.Context, frontend func(io.Reader, io.Writer) *pgproto3.Frontend) (*pgconn.PgConn, error) {
			return pg.ConnectReplication(ctx, p.job.Source.Reveal(), pg.Options{Region: "pgsync", Role: "slot", Frontend: frontend, Dial: pg.DialQuiet})
		},
		Name: p.slot.Name, Publications: []string{p.slot.Name},
		// Whoever wrote a row, another replication too, it is a row of the source.
		Decoder: decoder.Config{AllOrigins: true, MarkerPrefix: "pgsync never"},
		Confirm: func() wal.LSN { return wal.LSN(s.safe.Load()) }, Confirmed: p.slot.ConfirmedFlushLSN,
	})
	reading, stop := context.WithCancelCause(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- guard.Run("reading the slot", func() error { return reader.Run(reading, p.slot.ConfirmedFlushLSN) })
	}()
	err = s.take(ctx, reader, end, began)
	stop(errDone)
	if rerr := <-ended; err == nil && !errors.Is(rerr, errDone) {
		err = rerr
	}
	return err
}

// take applies chunks until the end was decoded.
func (s *streaming) take(ctx context.Context, reader *slot.Reader, end wal.LSN, began poll.Snapshot) error {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ping.C:
			reader.Ping()
		case item, ok := <-reader.Items():
			if !ok {
				return nil // Run says why
			}
			if err := s.gather(item.Transactions); err != nil {
				return err
			}
			reader.Taken(item)
			last := item.Decoded >= end
			if !last && s.size < s.job.BatchSize {
				continue
			}
			if err := s.chunk(ctx); err != nil {
				return err
			}
			if item.Decoded == 0 {
				continue // a transaction is open: what comes again of it does no harm
			}
			if err := s.done(ctx, item.Decoded, last, began); err != nil {
				return err
			}
			if last {
				return nil
			}
		}
	}
}

// gather takes note of which rows were written.
func (s *streaming) gather(list []*wal.Transaction) error {
	for _, tx := range list {
		ours := false
		for i := range tx.Changes {
			ch := &tx.Changes[i]
			keys := s.byOID[ch.Relation.OID]
			if keys == nil {
				continue
			}
			if err := keys.Add(ch); err != nil {
				return fmt.Errorf("%w: %w", errUntold, err)
			}
			ours = true
			s.size++
		}
		if ours && (len(s.xids) == 0 || s.xids[len(s.xids)-1] != tx.XID) {
			s.xids = append(s.xids, tx.XID)
		}
	}
	return nil
}

// chunk reads the rows of the gathered keys and applies them: rows in one transaction, parents first, then deletes in one for each table,
// children first, because the deletion of a parent would take them along.
func (s *streaming) chunk(ctx context.Context) error {
	if s.size == 0 {
		return nil
	}
	if err := s.snapshot(ctx); err != nil {
		return err
	}
	defer s.source.Exec(context.WithoutCancel(ctx), "rollback")
	at, err := poll.Now(ctx, s.source)
	if err != nil {
		return err
	}
	var changes []wal.Change
	gone := map[*table][][]string{}
	for _, t := range s.tables {
		keys := s.byOID[t.OID]
		rows, missing, err := keys.Read(ctx, s.source)
		if err != nil {
			return err
		}
		more, err := t.Changes(ctx, s.destination, rows, at.Time())
		if err != nil {
			return err
		}
		changes, t.read = append(changes, more...), t.read+int64(len(rows))
		if t.delete && !t.remade {
			gone[t] = missing
		}
	}
	if _, err := s.source.Exec(ctx, "rollback"); err != nil {
		return fmt.Errorf("read the source: %w", err)
	}
	if err := s.sink.apply(ctx, changes, at.Time()); err != nil {
		return err
	}
	for _, t := range slices.Backward(s.tables) {
		deletes, err := t.Gone(ctx, s.destination, gone[t], at.Time())
		if err != nil {
			return err
		}
		if err := s.sink.apply(ctx, deletes, at.Time()); err != nil {
			return err
		}
		t.deleted += int64(len(deletes))
	}
	for _, t := range slices.Backward(s.tables) {
		if s.byOID[t.OID].Truncated && t.delete && !t.remade {
			if err := s.vanished(ctx, t); err != nil {
				return err
			}
		}
		s.byOID[t.OID].Clear()
	}
	s.size, s.xids = 0, nil
	return nil
}

// snapshot begins a transaction in the source that shows what all gathered transactions have written.
func (s *streaming) snapshot(ctx context.Context) error {
	for began, n, said := time.Now(), 1, false; ; n++ {
		if _, err := s.source.Exec(ctx, "begin isolation level repeatable read read only"); err != nil {
			return fmt.Errorf("read the source: %w", err)
		}
		shown, err := poll.Shown(ctx, s.source, s.xids)
		if err == nil && shown {
			return nil
		}
		if _, rerr := s.source.Exec(context.WithoutCancel(ctx), "rollback"); err == nil && rerr != nil {
			err = fmt.Errorf("read the source: %w", rerr)
		}
		if err != nil {
			return err
		}
		if !said && time.Since(began) > 10*time.Second {
			s.log.Warn("the source does not show yet what it has committed: it waits for a synchronous standby")
			said = true
		}
		if err := pause.For(ctx, time.Duration(min(n, 50))*10*time.Millisecond); err != nil {
			return err
		}
	}
}

// done saves how far the slot is applied, and lets it be confirmed.
func (s *streaming) done(ctx context.Context, to wal.LSN, last bool, began poll.Snapshot) error {
	var states []*poll.State
	for _, t := range s.tables {
		next := *t.state
		next.SlotLSN = to
		if last {
			next.Seen, next.Rows = began, next.Rows+t.read
		}
		t.state = &next
		states = append(states, &next)
	}
	if err := poll.Save(ctx, s.destination, states...); err != nil {
		return err
	}
	s.safe.Store(uint64(to))
	return nil
}
