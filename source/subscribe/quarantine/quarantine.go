// Package quarantine keeps messages of a stream that were refused, in table
// pgwaltz.quarantine. It is bounded: by a number of rows, by bytes, and by age. Which tables an origin may not write
// stands in pgwaltz.left_out. Only this package writes these tables.
package quarantine

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// Schema creates the table; the schema pgwaltz must exist. It may be run again. A row is one
// message, or, without stream_seq, the changes of one table that may not be written here.
const Schema = `create table if not exists pgwaltz.quarantine (
  id           bigint generated always as identity primary key,
  origin       text,
  stream_seq   bigint,
  reason       text,
  message      bytea,
  bytes        bigint,
  sha256       bytea,
  changes      bigint,
  seen_at      timestamptz not null default now(),
  last_seen_at timestamptz
)`

// Bounds of the table. What is above them goes, the oldest first.
const (
	maxRows  = 1000
	maxBytes = 64 << 20
	// trimEvery is after how many messages the bounds are looked at.
	trimEvery = 50
)

// Store writes the table for one region. It is not for several goroutines at once.
type Store struct {
	// Redact: rows of some columns must not be kept, so of a message only its header is.
	Redact bool
	// Selection names what the region's configuration selects: another one for each configuration that selects otherwise.
	Selection string
	kept      int
}

// Keep stores a refused message, once.
func (s *Store) Keep(ctx context.Context, c *pgx.Conn, m subscribe.Refused) error {
	message, sum := m.Data, sha256.Sum256(m.Data)
	if s.Redact {
		message = wire.HeaderOf(m.Data)
	}
	_, err := c.Exec(ctx, `insert into pgwaltz.quarantine (origin, stream_seq, reason, message, bytes, sha256)
select $1, $2, $3, $4, $5, $6 where not exists (select from pgwaltz.quarantine where origin = $1 and stream_seq = $2 and reason = $3 and sha256 = $6)`,
		m.Origin, int64(m.StreamSeq), m.Reason, message, int64(len(m.Data)), sum[:])
	if err != nil {
		return fmt.Errorf("keep refused message: %w", err)
	}
	return s.trim(ctx, c)
}

// Note counts changes of a table that the origin may not write here. Their rows are not kept. Which table it is, is known for
// longer than the count (LeftOut).
func (s *Store) Note(ctx context.Context, c *pgx.Conn, origin string, table wal.RelationName, seq, changes uint64) error {
	if err := noteLeftOut(ctx, c, origin, table, s.Selection); err != nil {
		return err
	}
	reason := fmt.Sprintf("table %s is not selected by this region's configuration", table)
	tag, err := c.Exec(ctx, `update pgwaltz.quarantine set changes = changes + $3, last_seen_at = pg_catalog.now()
where id = (select max(id) from pgwaltz.quarantine where origin = $1 and reason = $2 and changes is not null)`, origin, reason, int64(changes))
	if err == nil && tag.RowsAffected() == 0 {
		_, err = c.Exec(ctx, `insert into pgwaltz.quarantine (origin, stream_seq, reason, changes, last_seen_at) values ($1, $2, $3, $4, pg_catalog.now())`,
			origin, int64(seq), reason, int64(changes))
	}
	if err != nil {
		return fmt.Errorf("note refused changes: %w", err)
	}
	return s.trim(ctx, c)
}

// trim keeps the table within its bounds.
func (s *Store) trim(ctx context.Context, c *pgx.Conn) error {
	if s.kept++; s.kept%trimEvery != 1 {
		return nil
	}
	_, err := c.Exec(ctx, `delete from pgwaltz.quarantine q using (
  select id, row_number() over newest as n, sum(coalesce(octet_length(message), 0)) over newest as total
  from pgwaltz.quarantine window newest as (order by id desc)) x
where q.id = x.id and (x.n > $1 or x.total > $2)`, int64(maxRows), int64(maxBytes))
	if err != nil {
		return fmt.Errorf("trim quarantine: %w", err)
	}
	return nil
}

// Prune deletes what is older than retention; zero keeps everything.
func Prune(ctx context.Context, c *pgx.Conn, retention time.Duration) error {
	if retention <= 0 {
		return nil
	}
	_, err := c.Exec(ctx, `delete from pgwaltz.quarantine where coalesce(last_seen_at, seen_at) < pg_catalog.now() - $1::interval`, retention)
	if err != nil {
		return fmt.Errorf("prune quarantine: %w", err)
	}
	return nil
}
