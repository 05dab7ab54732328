package sidecar

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/wal"
)

// holdable tells which names a table can have in this database: its encoding may lack characters
// of the origin's, and a peer may send bytes that are no text. No table of such a name is here, nor can
// any note of it be stored. It belongs to the goroutine of one inbound pipe.
type holdable struct {
	db  *db
	not map[wal.RelationName]bool
}

// maxNotHoldable bounds what is remembered.
const maxNotHoldable = 4096

// can asks the server about names that are not ASCII, until it answers. It is called once for each
// relation.
func (h *holdable) can(ctx context.Context, n wal.RelationName) bool {
	if ascii(n.Schema) && ascii(n.Name) {
		return true
	}
	for {
		err := h.ask(ctx, []string{n.Schema, n.Name})
		var pe *pgconn.PgError
		if errors.As(err, &pe) && (pe.Code == "22021" || pe.Code == "22P05") {
			if h.not == nil || len(h.not) >= maxNotHoldable {
				h.not = map[wal.RelationName]bool{}
			}
			h.not[n] = true
			return false
		}
		if err == nil || pause.For(ctx, 200*time.Millisecond) != nil {
			return true
		}
	}
}

func (h *holdable) ask(ctx context.Context, names []string) error {
	return h.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		var n int
		return c.QueryRow(ctx, "select pg_catalog.cardinality($1::text[])", pgx.QueryExecModeExec, names).Scan(&n)
	})
}

// printable writes names that the database cannot hold as ASCII, with escapes.
func (h *holdable) printable(counts map[wal.RelationName]uint64) map[wal.RelationName]uint64 {
	out := make(map[wal.RelationName]uint64, len(counts))
	for n, count := range counts {
		if h.not[n] {
			n = wal.RelationName{Schema: escaped(n.Schema), Name: escaped(n.Name)}
		}
		out[n] += count
	}
	return out
}

func escaped(name string) string {
	if ascii(name) {
		return name
	}
	q := strconv.QuoteToASCII(name)
	return q[1 : len(q)-1]
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
