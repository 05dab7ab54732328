// Package quarantine keeps messages of a stream that were refused, in table
// pgwaltz.quarantine. Only this package writes that table.
package quarantine

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/source/subscribe"
)

// Schema creates the table; the schema pgwaltz must exist. It may be run again.
const Schema = `create table if not exists pgwaltz.quarantine (
  id         bigint generated always as identity primary key,
  origin     text,
  stream_seq bigint,
  reason     text,
  message    bytea,
  seen_at    timestamptz not null default now()
)`

// Keep stores a refused message, once.
func Keep(ctx context.Context, c *pgx.Conn, m subscribe.Refused) error {
	_, err := c.Exec(ctx, `insert into pgwaltz.quarantine (origin, stream_seq, reason, message)
select $1, $2, $3, $4 where not exists (select from pgwaltz.quarantine where origin = $1 and stream_seq = $2 and reason = $3 and message = $4)`,
		m.Origin, int64(m.StreamSeq), m.Reason, m.Data)
	if err != nil {
		return fmt.Errorf("keep refused message: %w", err)
	}
	return nil
}
