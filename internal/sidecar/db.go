package sidecar

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// db is one session with the local server, shared by everything that asks little: status,
// upkeep, positions. It connects when it is needed and again after a loss.
type db struct {
	connect func(ctx context.Context) (*pgx.Conn, error)
	mu      sync.Mutex
	conn    *pgx.Conn
	opened  uint64 // sessions so far
}

// do runs f on the session, alone. An error that ends the session closes it; the next call
// opens a new one. f must not keep the connection.
func (d *db) do(ctx context.Context, f func(ctx context.Context, c *pgx.Conn) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == nil || d.conn.IsClosed() {
		c, err := d.connect(ctx)
		if err != nil {
			return err
		}
		d.conn = c
		d.opened++
	}
	err := f(ctx, d.conn)
	if err != nil && (pg.Disconnected(err) || d.conn.IsClosed()) {
		d.drop()
	}
	return err
}

// within is do, and tells f which session it is given, by a number. As long as that stays the server was not
// restarted: what was committed is there, and its WAL goes on.
func (d *db) within(ctx context.Context, f func(ctx context.Context, c *pgx.Conn, session uint64) error) error {
	return d.do(ctx, func(ctx context.Context, c *pgx.Conn) error { return f(ctx, c, d.opened) })
}

// A write that the server refuses for a reason that passes is tried again this often, at first and later.
const (
	takenSoon = 200 * time.Millisecond
	takenLate = 5 * time.Second
)

// briefly bounds the waits for locks of a transaction on a session that others wait for.
const briefly = "set local lock_timeout = '1s'"

// untilTaken is do for what stands beside the flow of changes, which is not to end because one statement was refused: another
// session has the lock, or the database is read-only for a while. It tries again until the context ends; what f did in vain has to
// be undone by then. Any other error, a lost session among them, it returns.
func (d *db) untilTaken(ctx context.Context, log *slog.Logger, what string, f func(ctx context.Context, c *pgx.Conn) error) error {
	for wait := takenSoon; ; wait = min(2*wait, takenLate) {
		err := d.do(ctx, f)
		if err == nil || !pg.Passes(err) {
			return err
		}
		if wait == takenSoon {
			log.Warn("the server refuses a statement; it is tried again", "what", what, "reason", publicMessage(err))
		}
		if err := pause.For(ctx, wait); err != nil {
			return err
		}
	}
}

func (d *db) drop() {
	if d.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	d.conn.Close(ctx)
	d.conn = nil
}

func (d *db) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop()
}
