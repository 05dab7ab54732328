package sidecar

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/replicator"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// copyTables is one run of the copy.
func (s *Sidecar) copyTables(ctx context.Context) error {
	return tablecopy.New(tablecopy.Config{
		Connect:   func(ctx context.Context) (*pgx.Conn, error) { return s.connect(ctx, "copy") },
		Do:        s.db.do,
		ChunkRows: s.cfg.Copy.ChunkRows,
		Stamps:    s.stampColumns,
		Index:     s.own.Index, Named: s.settleName, Tracked: s.tracked, Stream: copyStream{s}, Watch: &s.watch, Arrived: &s.arrived,
		Publication: s.cfg.Postgres.Publication, LeftOut: func(n wal.RelationName) bool { return s.cfg.Excluded(n.Schema, n.Name) },
		Merged: s.own.MergedPast, Region: s.cfg.Region,
		Jobs: s.noteCopies, Public: publicMessage, Log: s.log,
	}).Run(ctx)
}

// copyAgain asks for a copy of all published tables from the beginning.
func (s *Sidecar) copyAgain(ctx context.Context, c *pgx.Conn) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := tablecopy.Request(ctx, tx, s.cfg.Postgres.Publication, nil); err != nil {
		return err
	}
	defer s.asksForCopies()
	return tx.Commit(ctx)
}

// copiesSeen is after which time the status knows of a copy that was asked for: by then the copier
// has looked.
const copiesSeen = 3 * time.Second

// asksForCopies makes the status say at once that there is something to copy.
func (s *Sidecar) asksForCopies() { s.copyAsked.Store(time.Now().UnixNano()) }

// loadCopies begins a term with the copies that were asked for before it.
func (s *Sidecar) loadCopies(ctx context.Context, conn *pgx.Conn) error {
	if !s.cfg.Publishes() {
		return nil
	}
	jobs, err := tablecopy.Load(ctx, conn)
	if err != nil {
		return err
	}
	s.noteCopies(jobs)
	return nil
}

// noteCopies keeps what the status says of the copies.
func (s *Sidecar) noteCopies(jobs []tablecopy.Job) {
	all := make([]status.Copy, 0, len(jobs))
	for _, j := range jobs {
		state := string(j.State)
		switch {
		case j.State == tablecopy.Done && !j.Whole:
			state = "running" // all of it is in the stream, and not yet at the peers
		case j.Open() && j.Reason != "" && j.Reason != tablecopy.AwaitsLook:
			state = "failed"
		}
		all = append(all, status.Copy{Table: j.Table.String(), State: state, Rows: j.Rows, Applied: j.Applied, Reason: j.Reason})
	}
	s.mu.Lock()
	s.copy = all
	s.mu.Unlock()
}

// copyStream hands chunks to the outbound pipe that is open.
type copyStream struct{ s *Sidecar }

// Send waits while no pipe is open: it would find as many copies of the chunk as there were tries.
func (c copyStream) Send(ctx context.Context, chunk tablecopy.Chunk) (at tablecopy.Place, err error) {
	o := &c.s.out
	for {
		o.mu.Lock()
		ch, pipe, live := o.extra, o.pipe, o.live
		o.mu.Unlock()
		if ch != nil && pipe != nil && live {
			framed := make(chan wire.Header, 1)
			x := replicator.Extra{Kind: wire.Copy, Transactions: []*wal.Transaction{chunk.Rows}, After: chunk.After, Keep: chunk.Keep, Done: func(h wire.Header) { framed <- h }}
			select {
			case ch <- x:
			case <-ctx.Done():
				return at, context.Cause(ctx)
			}
			if at, ok, err := o.awaitFrame(ctx, pipe, framed); ok || err != nil {
				return at, err
			}
		}
		if err := pause.For(ctx, 200*time.Millisecond); err != nil {
			return at, err
		}
	}
}

// Applied is what every peer has acknowledged of the present incarnation.
func (c copyStream) Applied() tablecopy.Place {
	incarnation, frame := c.s.ackedFrame()
	if frame == 0 {
		return tablecopy.Place{}
	}
	return tablecopy.Place{Incarnation: incarnation, Frame: frame}
}

// Open implements tablecopy.Stream.
func (c copyStream) Open() bool {
	c.s.out.mu.Lock()
	defer c.s.out.mu.Unlock()
	return c.s.out.live
}

// Newest is the newest durable frame.
func (c copyStream) Newest() tablecopy.Place {
	o := &c.s.out
	o.mu.Lock()
	defer o.mu.Unlock()
	return tablecopy.Place{Incarnation: o.incarnation, Frame: o.frame.Load()}
}

// awaitFrame waits until the frame of a chunk that was handed to a pipe is durable; false when another pipe was
// opened before that was known: it may give the number of a frame that was lost to another one.
func (o *outboundState) awaitFrame(ctx context.Context, pipe *replicator.Outbound, framed <-chan wire.Header) (at tablecopy.Place, ok bool, err error) {
	var h *wire.Header
	for {
		select {
		case got := <-framed:
			h = &got
		case <-ctx.Done():
			return at, false, context.Cause(ctx)
		case <-time.After(2 * time.Millisecond):
		}
		o.mu.Lock()
		same, durable := o.pipe == pipe, h != nil && h.Incarnation == o.incarnation && o.frame.Load() >= h.Number
		o.mu.Unlock()
		switch {
		case !same:
			return at, false, nil
		case durable:
			return tablecopy.Place{Incarnation: h.Incarnation, Frame: h.Number}, true, nil
		}
	}
}
