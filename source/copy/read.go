package copy

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/adapter/rowkey"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// rows is what one reading gave.
type rows struct {
	tx    *wal.Transaction
	at    wal.LSN // insert position of the WAL before the reading
	count int     // read; some may be left out later
	more  bool    // there may be more behind them
	last  []string
}

// chunkBytes is the size of a chunk from which on nothing more is added to it: as much as a part of a giant transaction
// has. A chunk is one packet. It has to fit into the stream as a whole, and several of them into memory.
const chunkBytes = 2 << 20

// firstLimit is how many rows of a table are asked for at first, when nothing is known of their size.
const firstLimit = 512

// nextLimit is how many rows to ask for behind a reading that had asked for limit; most is the largest number. What is
// asked for and does not go into the chunk was sent by the server for nothing.
func (c *rows) nextLimit(limit, most int) int {
	if c.more && c.count < limit {
		return min(c.count+c.count/4+1, most)
	}
	return min(2*limit, most)
}

// read reads at most limit rows behind the key after, and fewer when they are large. Rows and what is kept beside them are of
// one snapshot: a tombstone that came after the row was read would make the row count as a
// later life.
func (p *plan) read(ctx context.Context, conn *pgx.Conn, index *tombstone.Index, after []string, limit int) (rows, error) {
	c := rows{tx: &wal.Transaction{}}
	var err error
	if c.at, err = p.begin(ctx, conn, c.tx); err != nil {
		return c, err
	}
	defer conn.Exec(context.WithoutCancel(ctx), "rollback")
	sql, args := p.sql, [][]byte{}
	if after != nil {
		sql = p.next
		for _, k := range after {
			args = append(args, []byte(k))
		}
	}
	args = append(args, strconv.AppendInt(nil, int64(limit), 10))
	rr := conn.PgConn().ExecParams(ctx, sql, args, nil, nil, nil)
	if err := p.same(rr.FieldDescriptions()); err != nil {
		rr.Close()
		return c, err
	}
	bytes := 0
	for rr.NextRow() {
		if bytes >= chunkBytes {
			c.more = true
			break // Close lets the others go, one by one
		}
		values, wrote := rr.Values(), wal.MinMicros
		if p.timed {
			n := len(values) - 1
			if t, err := strconv.ParseInt(string(values[n]), 10, 64); err == nil {
				wrote = wal.Micros(t)
			}
			values = values[:n]
		}
		row := tupleOf(values)
		st, err := conflict.StampOf(p.cols, p.rel, row, wrote)
		if err != nil {
			rr.Close()
			return c, err
		}
		c.tx.Changes = append(c.tx.Changes, wal.Change{Op: wal.Insert, Relation: p.rel, New: row, Stamp: st})
		bytes += c.tx.Changes[len(c.tx.Changes)-1].Size()
	}
	if _, err := rr.Close(); err != nil {
		return c, err
	}
	c.count = len(c.tx.Changes)
	c.more = c.more || c.count == limit
	if n := c.count; n > 0 {
		last := c.tx.Changes[n-1].New
		for _, k := range p.rel.PrimaryKey {
			c.last = append(c.last, string(last[k].Bytes))
		}
	}
	if p.rel.Asks() {
		changes := make([]*wal.Change, c.count)
		for i := range changes {
			changes[i] = &c.tx.Changes[i]
		}
		if err := rowkey.Fill(ctx, conn, p.key, p.rel, changes); err != nil {
			return c, err
		}
	}
	keys := make([]string, c.count)
	for i := range keys {
		keys[i] = string(c.tx.Changes[i].AppendKey(nil))
	}
	return c, p.besides(ctx, conn, index, c.tx, keys)
}

// same reports whether columns still are what they were called when the plan was made: two that have swapped their names
// since would be sent as each other, and so would the rows of two tables that have. After an error the table is looked at anew.
func (p *plan) same(fields []pgconn.FieldDescription) error {
	for i := range p.rel.Columns {
		if i < len(fields) && fields[i].TableOID != p.oid {
			return fmt.Errorf("copy %s: it is another table than when the copy began", p.rel)
		}
		if name := p.rel.Columns[i].Name; i < len(fields) && fields[i].TableAttributeNumber != uint16(p.nums[name]) {
			return fmt.Errorf("copy %s: column %s is another one than when the copy began", p.rel, name)
		}
	}
	return nil
}

// tupleOf copies a row out of the connection's buffer.
func tupleOf(v [][]byte) wal.Tuple {
	row := make(wal.Tuple, len(v))
	for i := range v {
		if v[i] == nil {
			row[i].Kind = wal.Null
			continue
		}
		row[i] = wal.Value{Kind: wal.Text, Bytes: append(make([]byte, 0, len(v[i])), v[i]...)}
	}
	return row
}

// besides adds to the stamps what is kept beside the table.
func (p *plan) besides(ctx context.Context, conn *pgx.Conn, index *tombstone.Index, tx *wal.Transaction, keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	if !index.Any(p.ledger) && !p.cols.Stampless() {
		return nil
	}
	found, err := tombstone.Read(ctx, conn, p.ledger, keys)
	if err != nil {
		return err
	}
	for i, k := range keys {
		e, ok := found[k]
		if !ok {
			continue
		}
		st := &tx.Changes[i].Stamp
		st.Generation = e.Next
		switch {
		case !p.cols.Stampless() || !e.Live:
		case e.Plain:
			st.UpdatedAt = max(st.UpdatedAt, e.At)
		default:
			st.UpdatedAt = e.At
		}
	}
	return nil
}
