package copy

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Behind a table's rows its tombstones are copied. A region that has lost some, in a restore,
// would otherwise give a key that it inserts again a stamp below what the others know of the
// key, and its row would be deleted there. A tombstone whose key cannot be told from its text
// (wal.Relation.ParseKey) stays at home.

// deadCursor begins the cursor of a copy that has reached the tombstones; the key text of the
// last one follows. No row's cursor begins so.
const deadCursor = "dead:"

// parseDead returns the key text behind which tombstones are still to be copied; false for a
// copy that has not come to them.
func parseDead(cursor *string) (after string, ok bool) {
	if cursor == nil {
		return "", false
	}
	return strings.CutPrefix(*cursor, deadCursor)
}

// readDead reads at most limit tombstones behind the key text after, fewer when the keys are large, without those that have
// a row: it is in a later life, and its own copy says so.
func (p *plan) readDead(ctx context.Context, conn *pgx.Conn, after string, limit int) (c rows, last string, err error) {
	c = rows{tx: &wal.Transaction{}}
	if c.at, err = p.begin(ctx, conn, c.tx); err != nil {
		return c, "", err
	}
	defer conn.Exec(context.WithoutCancel(ctx), "rollback")
	found, err := tombstone.Page(ctx, conn, p.ledger, after, limit)
	if err != nil {
		return c, "", err
	}
	if c.count, c.more = len(found), len(found) == limit; c.count == 0 {
		return c, after, nil
	}
	for i, size := 0, 0; i < len(found); i++ {
		if size >= chunkBytes {
			found, c.count, c.more = found[:i], i, true
			break
		}
		size += len(found[i].Key)
	}
	var keys []wal.Tuple
	var dead []tombstone.Entry
	for _, e := range found {
		if row, ok := p.rel.ParseKey(e.Key); ok {
			keys, dead = append(keys, row), append(dead, e)
		}
	}
	alive, err := p.alive(ctx, conn, keys)
	if err != nil {
		return c, "", err
	}
	for i, e := range dead {
		if alive[i] {
			continue
		}
		ch := wal.Change{Op: wal.Delete, Relation: p.rel, Old: keys[i], Stamp: e.Stamp}
		if p.rel.Asks() {
			ch.Keys = &wal.Keys{Old: []byte(e.Key)}
		}
		c.tx.Changes = append(c.tx.Changes, ch)
	}
	return c, found[len(found)-1].Key, nil
}

// alive tells which of the keys have a row.
func (p *plan) alive(ctx context.Context, conn *pgx.Conn, keys []wal.Tuple) (map[int]bool, error) {
	alive := map[int]bool{}
	if len(keys) == 0 {
		return alive, nil
	}
	args := make([]any, len(p.rel.PrimaryKey))
	for n, i := range p.rel.PrimaryKey {
		texts := make([]string, len(keys))
		for k, row := range keys {
			texts[k] = string(row[i].Bytes)
		}
		args[n] = texts
	}
	found, err := conn.Query(ctx, statement.Read(p.shape, nil), args...)
	if err != nil {
		return nil, fmt.Errorf("look for rows of tombstones: %w", err)
	}
	var at int
	_, err = pgx.ForEachRow(found, []any{&at}, func() error {
		alive[at-1] = true
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for rows of tombstones: %w", err)
	}
	return alive, nil
}

// begin opens the transaction of one reading, and dates what is read.
func (p *plan) begin(ctx context.Context, conn *pgx.Conn, tx *wal.Transaction) (wal.LSN, error) {
	var text string
	if err := conn.QueryRow(ctx, `select pg_catalog.pg_current_wal_insert_lsn()::text`).Scan(&text); err != nil {
		return 0, fmt.Errorf("read WAL position: %w", err)
	}
	at, err := wal.ParseLSN(text)
	if err != nil {
		return 0, err
	}
	if _, err := conn.Exec(ctx, "begin isolation level repeatable read, read only"); err != nil {
		return 0, fmt.Errorf("begin: %w", err)
	}
	tx.CommitTime, tx.CommitLSN, tx.EndLSN = wal.MicrosOf(time.Now()), at, at+1
	return at, nil
}
