package copy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// Stream is where chunks go: the outbound pipe.
type Stream interface {
	// Send puts a chunk into the region's stream and returns when it is durable there, with
	// the place of its last frame. It sends again by itself when the pipe is opened anew in
	// between, which is harmless.
	Send(ctx context.Context, c Chunk) (Place, error)
	// Applied is the place up to which every peer has durably applied the stream; the zero
	// Place while that is not known.
	Applied() Place
	// Newest is the newest durable frame of the stream.
	Newest() Place
	// Open reports whether the pipe takes chunks. While it does not, there may be a gap, and rows that were written in it
	// do not have their times yet (Unread).
	Open() bool
}

// Place is a frame of the region's stream.
type Place struct {
	Incarnation uint32
	Frame       uint64
}

// covers reports whether p is at or behind q in the same incarnation.
func (p Place) covers(q Place) bool { return p.Incarnation == q.Incarnation && p.Frame >= q.Frame }

// sent is a chunk in the stream that not every peer has yet: the state of the copy behind it.
type sent struct {
	at        Place
	cursor    *string
	rows      int64
	requested time.Time // names the copy, see Job
}

// Chunk is some rows of one table, as inserts of one transaction.
type Chunk struct {
	Rows *wal.Transaction
	// After is the position that the WAL must be published up to before the chunk may go out.
	After wal.LSN
	// Keep tells which of the rows still may go out when their turn has come.
	Keep func(*wal.Change) bool
}

// StampColumns names the columns of a table that hold its stamp.
type StampColumns struct{ Version, UpdatedAt string }

// Config is fixed for the life of a Copier.
type Config struct {
	// Connect opens the session that reads the tables.
	Connect func(ctx context.Context) (*pgx.Conn, error)
	// Do runs a short statement in a session that is shared.
	Do func(ctx context.Context, f func(context.Context, *pgx.Conn) error) error
	// ChunkRows is the largest number of rows of one chunk; large rows make smaller chunks.
	ChunkRows int
	Stamps    func(wal.RelationName) StampColumns
	Index     *tombstone.Index
	Named     Named
	Tracked   tombstone.Tracked
	Stream    Stream
	Watch     *Watch
	// Arrived knows the rows that peers have copied to here.
	Arrived *Arrived
	// Publication is the region's; LeftOut reports tables in it that are not to be sent.
	Publication string
	LeftOut     func(wal.RelationName) bool
	// Merged reports whether every own change below a position is merged. Without it no table is looked through for rows whose changes were
	// left out.
	Merged func(wal.LSN) bool
	Region string
	// Jobs is told what pgwaltz.copy says, whenever it was read.
	Jobs func([]Job)
	// Public is the text of an error without what it may quote of rows.
	Public func(error) string
	Log    *slog.Logger
}

// Copier copies the tables that pgwaltz.copy asks for. Run is its only goroutine.
type Copier struct {
	cfg     Config
	settled bool
	failed  map[wal.RelationName]time.Time // when a table that failed is due again
	under   map[wal.RelationName][]sent    // in the order of the chunks
	writers map[wal.RelationName][]string  // transactions that a table waits for; empty: none any more
	aways   map[wal.RelationName]*awayWait // tables that wait to be looked through
	conn    *pgx.Conn                      // reads the tables; nil while there is nothing to copy
	looked  time.Time
}

// New returns a Copier that has touched nothing.
func New(cfg Config) *Copier { return &Copier{cfg: cfg} }

// Run waits for tables to copy, and copies them, until the context ends or something breaks.
// It may be run again then.
func (c *Copier) Run(ctx context.Context) error {
	defer c.hangUp()
	c.settled, c.under, c.writers = false, map[wal.RelationName][]sent{}, map[wal.RelationName][]string{}
	c.aways = map[wal.RelationName]*awayWait{}
	c.failed = map[wal.RelationName]time.Time{}
	if err := c.findOut(ctx); err != nil {
		return err
	}
	if c.cfg.LeftOut != nil {
		if err := c.cfg.Do(ctx, c.settleExcluded); err != nil {
			return err
		}
	}
	for {
		if err := c.applied(ctx); err != nil {
			return err
		}
		jobs, err := c.look(ctx)
		if err != nil {
			return err
		}
		for i := range jobs {
			if !jobs[i].Open() || time.Now().Before(c.failed[jobs[i].Table]) || !c.cfg.Stream.Open() {
				continue
			}
			if err := c.settle(ctx); err != nil {
				return err
			}
			if ready, err := c.writersGone(ctx, &jobs[i]); err != nil {
				return err
			} else if !ready {
				continue
			}
			if ready, err := c.lookedThrough(ctx, &jobs[i]); err != nil {
				if err := c.fail(ctx, &jobs[i], err); err != nil {
					return err
				}
				continue
			} else if !ready {
				continue
			}
			delete(c.writers, jobs[i].Table)
			if err := c.table(ctx, &jobs[i]); errors.Is(err, errMoved) {
				c.cfg.Log.Info("a table is copied again: it was asked for anew, the stream has lost chunks, or its name belongs to another table", "relation", jobs[i].Table.String())
			} else if err != nil {
				if err := c.fail(ctx, &jobs[i], err); err != nil {
					return err
				}
			}
		}
		c.hangUp()
		if err := pause.For(ctx, time.Second); err != nil {
			return err
		}
	}
}

// failAgain is how long a table that could not be copied rests.
const failAgain = 30 * time.Second

// fail notes that one table cannot be copied, and lets the others go on. What ends the session or
// the pipe is no fault of the table and is returned.
func (c *Copier) fail(ctx context.Context, j *Job, cause error) error {
	if ctx.Err() != nil || pg.Disconnected(cause) {
		return fmt.Errorf("copy %s: %w", j.Table, cause)
	}
	c.cfg.Log.Warn("a table is not copied for now", "relation", j.Table.String(), "reason", c.cfg.Public(cause), "again_in", failAgain)
	c.failed[j.Table] = time.Now().Add(failAgain)
	if err := c.cfg.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return saveFailed(ctx, conn, j, c.cfg.Public(cause))
	}); err != nil {
		return err
	}
	_, err := c.look(ctx)
	return err
}

// settleExcluded holds what is asked for against the configuration.
func (c *Copier) settleExcluded(ctx context.Context, conn *pgx.Conn) error {
	return SettleExcluded(ctx, conn, c.cfg.Publication, c.cfg.LeftOut)
}

// look reads what is asked for. Parents come before children, so that these need not wait for
// them at the peer.
func (c *Copier) look(ctx context.Context) (jobs []Job, err error) {
	err = c.cfg.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if jobs, err = Load(ctx, conn); err != nil {
			return err
		}
		// Who asks for a copy of all tables does not know which are left out.
		if slices.ContainsFunc(jobs, func(j Job) bool { return j.Open() && c.cfg.LeftOut != nil && c.cfg.LeftOut(j.Table) }) {
			if err := c.settleExcluded(ctx, conn); err != nil {
				return err
			}
			if jobs, err = Load(ctx, conn); err != nil {
				return err
			}
		}
		open := 0
		for i := range jobs {
			if jobs[i].Open() {
				open++
			}
		}
		if open < 2 {
			return nil
		}
		parents, err := foreignKeys(ctx, conn)
		jobs = parentsFirst(jobs, parents)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.cfg.Arrived.open(jobs)
	c.cfg.Jobs(jobs)
	c.looked = time.Now()
	return jobs, nil
}

// settle waits until every transaction that might have committed in the WAL before the slot
// began, and yet be invisible to a new snapshot, is over.
func (c *Copier) settle(ctx context.Context) error {
	if c.settled {
		return nil
	}
	if err := awaitWriters(ctx, c.cfg.Do); err != nil {
		return err
	}
	c.settled = true
	return nil
}

// session is the one that reads tables, one after the other.
func (c *Copier) session(ctx context.Context) (*pgx.Conn, error) {
	if c.conn == nil || c.conn.IsClosed() {
		conn, err := c.cfg.Connect(ctx)
		if err != nil {
			return nil, err
		}
		c.conn = conn
	}
	return c.conn, nil
}

// hangUp ends the session that reads tables.
func (c *Copier) hangUp() {
	if c.conn != nil {
		closeConn(c.conn)
		c.conn = nil
	}
}

// table sends all rows of one table. An error ends the session: it may be within a transaction.
func (c *Copier) table(ctx context.Context, j *Job) (err error) {
	conn, err := c.session(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			c.hangUp()
		}
	}()
	p, err := newPlan(ctx, conn, j.Table, c.cfg.Stamps, c.cfg.Tracked)
	switch {
	case errors.Is(err, errNoKey):
		c.cfg.Log.Warn("table is not copied", "relation", j.Table.String(), "reason", err.Error())
		return c.end(ctx, j, Off, err.Error())
	case err == nil && p == nil:
		return c.end(ctx, j, Off, "there is no such table any more")
	}
	if err != nil {
		return err
	}
	if is, err := Published(ctx, conn, c.cfg.Publication, p.rel.Ref()); err != nil {
		return err
	} else if !is {
		return fmt.Errorf("copy %s: %w", p.rel, ErrNotPublished)
	}
	if err := p.settle(ctx, c.cfg.Index, c.cfg.Named); err != nil {
		return err
	}
	// Chunks of an earlier copy, or that the stream has lost, tell nothing any more; nor are they missed.
	delete(c.under, j.Table)
	if err := c.cfg.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return saveBegun(ctx, conn, j, p.oid) }); err != nil {
		return err
	}
	c.cfg.Log.Info("copying", "relation", j.Table.String(), "rows_done", j.Rows)
	c.cfg.Watch.start(p.rel.Ref())
	defer c.cfg.Watch.stop()
	back := 0
	if _, dead := parseDead(j.LastKey); !dead {
		if back, err = c.rows(ctx, conn, p, j); err != nil {
			return err
		}
	}
	if !p.part && c.cfg.Index.Any(p.ledger) {
		if err := c.dead(ctx, conn, p, j); err != nil {
			return err
		}
	}
	c.cfg.Log.Info("copied", "relation", j.Table.String(), "rows", j.Rows, "rows_that_came_from_peers", back)
	return c.end(ctx, j, Done, "")
}

// limit is the largest number of changes of one chunk.
func (c *Copier) limit(p *plan) int { return min(c.cfg.ChunkRows, wire.MaxRows(len(p.rel.Columns))) }

// rows sends the rows of a table from the cursor on, and returns how many are left out because
// they came from peers.
func (c *Copier) rows(ctx context.Context, conn *pgx.Conn, p *plan, j *Job) (back int, err error) {
	ahead := p.readAhead(ctx, conn, c.cfg, parseCursor(j.LastKey, len(p.rel.PrimaryKey)), c.limit(p))
	defer ahead.close() // before the session is used for anything else
	for {
		read, err := ahead.next(ctx)
		if err != nil {
			return back, err
		}
		n := len(read.tx.Changes)
		back += read.count - n
		if n > 0 {
			if err := c.send(ctx, j, read, int64(n), formatCursor(read.last)); err != nil {
				return back, err
			}
		}
		c.cfg.Watch.forget(read.at)
		if !read.more {
			return back, nil
		}
	}
}

// dead sends the tombstones of a table; they do not count as rows.
func (c *Copier) dead(ctx context.Context, conn *pgx.Conn, p *plan, j *Job) error {
	limit := c.limit(p)
	after, _ := parseDead(j.LastKey)
	for {
		read, last, err := p.readDead(ctx, conn, after, limit)
		if err != nil {
			return err
		}
		if after = last; len(read.tx.Changes) > 0 {
			if err := c.send(ctx, j, read, 0, deadCursor+last); err != nil {
				return err
			}
		}
		c.cfg.Watch.forget(read.at)
		if !read.more {
			return nil
		}
	}
}

// send puts what was read into the stream and notes how far the copy is.
func (c *Copier) send(ctx context.Context, j *Job, read rows, count int64, cursor string) error {
	chunk := Chunk{Rows: read.tx, After: read.at, Keep: func(ch *wal.Change) bool { return c.cfg.Watch.unchanged(ch, read.at) }}
	at, err := c.cfg.Stream.Send(ctx, chunk)
	if err != nil {
		return err
	}
	before := j.LastKey
	j.Rows, j.LastKey = j.Rows+count, &cursor
	if err := c.cfg.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return saveSent(ctx, conn, j, before, at) }); err != nil {
		return err
	}
	c.under[j.Table] = append(c.under[j.Table], sent{at, j.LastKey, j.Rows, j.Requested})
	return c.applied(ctx)
}

// applied notes which chunks every peer has by now.
func (c *Copier) applied(ctx context.Context) error {
	at := c.cfg.Stream.Applied()
	if at == (Place{}) {
		return nil
	}
	for t, open := range c.under {
		n := 0
		for n < len(open) && at.covers(open[n].at) {
			n++
		}
		if n == 0 {
			continue
		}
		last := open[n-1]
		if c.under[t] = open[n:]; len(open) == n {
			delete(c.under, t)
		}
		if err := c.cfg.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return saveApplied(ctx, conn, t, last) }); err != nil {
			return err
		}
	}
	return c.cfg.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return Finish(ctx, conn, at) })
}

func (c *Copier) end(ctx context.Context, j *Job, state State, reason string) error {
	if err := c.cfg.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return saveEnd(ctx, conn, j, state, reason, c.cfg.Stream.Newest())
	}); err != nil {
		return err
	}
	if time.Since(c.looked) < lookPause {
		return nil // of ten thousand tables not each one reads the state of all
	}
	_, err := c.look(ctx)
	return err
}

// lookPause is the shortest time between two looks at the state of all tables while some are copied.
const lookPause = time.Second

func closeConn(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c.Close(ctx)
}
