package sidecar

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// The initial copy, and every resync, reads a table in key order, some rows at a time, and
// sends them through the region's stream as packets of their own kind. The slot exists
// before the first row is read, so nothing falls between copy and stream; a packet goes out
// when the log is published up to where its rows were read. Rows are merged like any other
// change, so a copy may be repeated, interrupted and run in both directions at once.

// copyTables is one run of the copy: it waits for tables to copy, and copies them.
func (s *Sidecar) copyTables(ctx context.Context) error {
	settled := false
	for {
		jobs, err := s.pendingCopies(ctx)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			if !settled {
				if err := s.settle(ctx); err != nil {
					return err
				}
				settled = true
			}
			if err := s.copyTable(ctx, j); err != nil {
				return err
			}
		}
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

type copyJob struct {
	name    wal.RelationName
	lastKey *string
	rows    int64
}

func (s *Sidecar) pendingCopies(ctx context.Context) ([]copyJob, error) {
	var jobs []copyJob
	var all []status.Copy
	err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, `select schema_name, table_name, state, last_key, rows_done from pgwaltz.copy order by requested_at nulls first, schema_name, table_name`)
		if err != nil {
			return fmt.Errorf("read copy state: %w", err)
		}
		defer rows.Close()
		for rows.Next() {
			var j copyJob
			var state string
			if err := rows.Scan(&j.name.Schema, &j.name.Name, &state, &j.lastKey, &j.rows); err != nil {
				return fmt.Errorf("read copy state: %w", err)
			}
			all = append(all, status.Copy{Table: j.name.String(), State: state, Rows: j.rows})
			if state == "pending" || state == "running" {
				jobs = append(jobs, j)
			}
		}
		return rows.Err()
	})
	s.mu.Lock()
	s.copy = all
	s.mu.Unlock()
	return jobs, err
}

// settle waits until every transaction that might have committed in the log before the slot
// began, and yet be invisible to a new snapshot, is over.
func (s *Sidecar) settle(ctx context.Context) error {
	var limit string
	err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, `select pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text`).Scan(&limit)
	})
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	patience := time.Now().Add(20 * time.Second)
	for time.Now().Before(patience) {
		var ok bool
		err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
			return c.QueryRow(ctx, `select pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) >= $1::text::pg_catalog.xid8
  or not exists (select from pg_catalog.pg_stat_activity where wait_event = 'SyncRep')`, limit).Scan(&ok)
		})
		if err != nil {
			return fmt.Errorf("read snapshot: %w", err)
		}
		if ok {
			return nil
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// copyTable sends all rows of one table.
func (s *Sidecar) copyTable(ctx context.Context, j copyJob) error {
	conn, err := s.connect(ctx, "copy")
	if err != nil {
		return err
	}
	defer closeConn(conn)
	t, err := s.copyPlan(ctx, conn, j.name)
	if err != nil || t == nil {
		return s.copyDone(ctx, j, "off", err)
	}
	s.log.Info("copying", "relation", j.name.String(), "rows_done", j.rows)
	after := t.parseKey(j.lastKey)
	s.watch.start(j.name)
	defer s.watch.stop()
	for {
		chunk, err := t.read(ctx, s, conn, after, s.cfg.Copy.ChunkRows)
		if err != nil {
			return fmt.Errorf("copy %s: %w", j.name, err)
		}
		if chunk.rows > 0 {
			if err := s.sendCopy(ctx, chunk); err != nil {
				return fmt.Errorf("copy %s: %w", j.name, err)
			}
			j.rows += int64(chunk.rows)
			after = chunk.last
			text := t.formatKey(after)
			j.lastKey = &text
			if err := s.copyProgress(ctx, j); err != nil {
				return err
			}
		}
		s.watch.forget(chunk.at)
		if chunk.rows < s.cfg.Copy.ChunkRows {
			s.log.Info("copied", "relation", j.name.String(), "rows", j.rows)
			return s.copyDone(ctx, j, "done", nil)
		}
	}
}

// sendCopy hands one chunk to the pipe and waits until its frames are durable.
func (s *Sidecar) sendCopy(ctx context.Context, c copyChunk) error {
	o := &s.out
	for {
		o.mu.Lock()
		ch := o.extra
		o.mu.Unlock()
		if ch != nil {
			framed := make(chan wire.Header, 1)
			x := replicator.Extra{Kind: wire.Copy, Transactions: []*wal.Transaction{c.tx}, After: c.at, Keep: func(ch *wal.Change) bool { return s.watch.unchanged(ch, c.at) }, Done: func(h wire.Header) { framed <- h }}
			select {
			case ch <- x:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if ok, err := s.copyDurable(ctx, framed); ok || err != nil {
				return err
			}
			// The pipe was opened anew in between: the chunk is sent again, which is harmless.
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

func (s *Sidecar) copyDurable(ctx context.Context, framed <-chan wire.Header) (bool, error) {
	o := &s.out
	o.mu.Lock()
	pipe := o.pipe
	o.mu.Unlock()
	var h *wire.Header
	for {
		select {
		case got := <-framed:
			h = &got
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-time.After(2 * time.Millisecond):
		}
		o.mu.Lock()
		same, inc := o.pipe == pipe && pipe != nil, o.incarnation
		o.mu.Unlock()
		if h != nil && h.Incarnation == inc && o.frame.Load() >= h.Number {
			return true, nil
		}
		if !same {
			return false, nil
		}
	}
}

func (s *Sidecar) copyProgress(ctx context.Context, j copyJob) error {
	return s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, `update pgwaltz.copy set state = 'running', last_key = $3, rows_done = $4, started_at = coalesce(started_at, pg_catalog.now())
where schema_name = $1 and table_name = $2 and state in ('pending', 'running')`, j.name.Schema, j.name.Name, j.lastKey, j.rows)
		if err != nil {
			return fmt.Errorf("save copy state: %w", err)
		}
		return nil
	})
}

func (s *Sidecar) copyDone(ctx context.Context, j copyJob, state string, cause error) error {
	if cause != nil && !errors.Is(cause, errNoKey) {
		return cause
	}
	if cause != nil {
		s.log.Warn("table is not copied", "relation", j.name.String(), "reason", cause.Error())
		state = "off"
	}
	err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, `update pgwaltz.copy set state = $3, rows_done = $4, finished_at = pg_catalog.now() where schema_name = $1 and table_name = $2`,
			j.name.Schema, j.name.Name, state, j.rows)
		return err
	})
	if err != nil {
		return fmt.Errorf("save copy state: %w", err)
	}
	_, err = s.pendingCopies(ctx)
	return err
}

var errNoKey = errors.New("it has no primary key to read it by; copy it by other means")

// copyPlan is how one table is read.
type copyPlan struct {
	rel   *wal.Relation
	order []int // the primary key's columns
	cols  conflict.Columns
	sql   string // first page
	next  string // further pages; parameters: the key, then the limit
}

type copyChunk struct {
	tx   *wal.Transaction
	at   wal.LSN
	rows int // read; some may be left out later
	last []string
}

// copyPlan describes a published table; nil when it is not published.
func (s *Sidecar) copyPlan(ctx context.Context, conn *pgx.Conn, name wal.RelationName) (*copyPlan, error) {
	t, err := pg.LoadTable(ctx, conn, name.Schema, name.Name)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, nil
	}
	if len(t.PrimaryKey) == 0 {
		return nil, errNoKey
	}
	// Rows are named as the stream names them: by the identity's index where there is one,
	// else by the primary key. They are read in the order of the primary key in any case.
	p := &copyPlan{rel: &wal.Relation{Schema: name.Schema, Name: name.Name, Identity: wal.IdentityFull}}
	byIndex := t.Identity == wal.IdentityIndex && len(t.IdentityIndex) > 0
	if byIndex {
		p.rel.Identity = wal.IdentityIndex
	}
	var names []string
	for _, c := range t.Columns {
		if c.Generated != 0 {
			continue
		}
		p.rel.Columns = append(p.rel.Columns, wal.Column{Name: c.Name, OID: c.TypeOID, TypeMod: c.TypMod, Key: !byIndex || slices.Contains(t.IdentityIndex, c.Name)})
		names = append(names, pg.Quote(c.Name))
	}
	var keys, params []string
	for i, k := range t.PrimaryKey {
		p.order = append(p.order, p.rel.Column(k))
		keys = append(keys, pg.Quote(k))
		for _, c := range t.Columns {
			if c.Name == k {
				params = append(params, "$"+strconv.Itoa(i+1)+"::text::"+c.TypeName)
			}
		}
	}
	if !byIndex {
		p.rel.PrimaryKey = p.order
	}
	settings := s.cfg.Table(name.Schema, name.Name)
	p.cols = conflict.ColumnsOf(p.rel, settings.Version, settings.UpdatedAt)
	order := " order by " + strings.Join(keys, ", ") + " limit "
	base := "select " + strings.Join(names, ", ") + " from " + pg.QuoteTable(name.Schema, name.Name)
	p.sql = base + order + "$1::int"
	p.next = base + " where (" + strings.Join(keys, ", ") + ") > (" + strings.Join(params, ", ") + ")" + order + "$" + strconv.Itoa(len(keys)+1) + "::int"
	return p, nil
}

// read reads one chunk behind the key after.
func (p *copyPlan) read(ctx context.Context, s *Sidecar, conn *pgx.Conn, after []string, limit int) (copyChunk, error) {
	c := copyChunk{tx: &wal.Transaction{}}
	var at string
	if err := conn.QueryRow(ctx, `select pg_catalog.pg_current_wal_insert_lsn()::text`).Scan(&at); err != nil {
		return c, fmt.Errorf("read log position: %w", err)
	}
	var err error
	if c.at, err = wal.ParseLSN(at); err != nil {
		return c, err
	}
	sql, args := p.sql, [][]byte{}
	if after != nil {
		sql = p.next
		for _, k := range after {
			args = append(args, []byte(k))
		}
	}
	args = append(args, strconv.AppendInt(nil, int64(limit), 10))
	// Rows and what is kept beside them have to be of one snapshot: a grave that came after the
	// row was read would make the row count as a later life.
	if _, err := conn.Exec(ctx, "begin isolation level repeatable read, read only"); err != nil {
		return c, fmt.Errorf("begin: %w", err)
	}
	defer conn.Exec(context.WithoutCancel(ctx), "rollback")
	now := wal.MicrosOf(time.Now())
	c.tx.CommitTime, c.tx.CommitLSN, c.tx.EndLSN = now, c.at, c.at+1
	rr := conn.PgConn().ExecParams(ctx, sql, args, nil, nil, nil)
	var keys []string
	for rr.NextRow() {
		v := rr.Values()
		row := make(wal.Tuple, len(v))
		for i := range v {
			if v[i] == nil {
				row[i].Kind = wal.Null
				continue
			}
			row[i] = wal.Value{Kind: wal.Text, Bytes: append(make([]byte, 0, len(v[i])), v[i]...)}
		}
		st, err := conflict.StampOf(p.cols, p.rel, row, wal.MinMicros)
		if err != nil {
			rr.Close()
			return c, err
		}
		c.tx.Changes = append(c.tx.Changes, wal.Change{Op: wal.Insert, Relation: p.rel, New: row, Stamp: st})
		keys = append(keys, string(appendKeyText(nil, p.rel, row)))
	}
	if _, err := rr.Close(); err != nil {
		return c, err
	}
	c.rows = len(c.tx.Changes)
	if n := c.rows; n > 0 {
		last := c.tx.Changes[n-1].New
		for _, k := range p.order {
			c.last = append(c.last, string(last[k].Bytes))
		}
	}
	return c, p.besides(ctx, conn, s, c.tx, keys)
}

// besides adds to the stamps what is kept beside the table.
func (p *copyPlan) besides(ctx context.Context, conn *pgx.Conn, s *Sidecar, tx *wal.Transaction, keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	if s.index.Any(p.rel.Ref()) {
		graves, err := tombstone.Generations(ctx, conn, p.rel.Ref(), keys)
		if err != nil {
			return err
		}
		for i, k := range keys {
			if g, ok := graves[k]; ok {
				tx.Changes[i].Stamp.Generation = g + 1
			}
		}
	}
	if !p.cols.Stampless() {
		return nil
	}
	rows, err := conn.Query(ctx, `select key, updated_at from pgwaltz.row_stamp where relation = $1 and key = any($2)`, p.rel.String(), keys)
	if err != nil {
		return fmt.Errorf("read stamps: %w", err)
	}
	defer rows.Close()
	at := make(map[string]int64, len(keys))
	for rows.Next() {
		var k string
		var t int64
		if err := rows.Scan(&k, &t); err != nil {
			return fmt.Errorf("read stamps: %w", err)
		}
		at[k] = t
	}
	for i, k := range keys {
		if t, ok := at[k]; ok {
			tx.Changes[i].Stamp.UpdatedAt = wal.Micros(t)
		}
	}
	return rows.Err()
}

// The last key is kept as a PostgreSQL array of texts would be too clever for; it is a list
// of lengths and texts.
func (p *copyPlan) formatKey(key []string) string {
	var b strings.Builder
	for _, k := range key {
		fmt.Fprintf(&b, "%d:%s", len(k), k)
	}
	return b.String()
}

func (p *copyPlan) parseKey(s *string) []string {
	if s == nil {
		return nil
	}
	rest := *s
	var key []string
	for rest != "" {
		n, tail, ok := strings.Cut(rest, ":")
		size, err := strconv.Atoi(n)
		if !ok || err != nil || size < 0 || size > len(tail) {
			return nil // written by something else: begin anew
		}
		key = append(key, tail[:size])
		rest = tail[size:]
	}
	if len(key) != len(p.order) {
		return nil
	}
	return key
}
