package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
)

// SlotHolder is a session that holds a slot and confirms nothing. Safe for concurrent use.
type SlotHolder struct {
	end    context.CancelFunc
	frozen atomic.Bool
	done   chan struct{} // closed when the session is closed
}

// HoldSlot opens a session that reads a slot and throws away what comes, so that nobody else can
// use it. It answers the server with positions of zero, which confirm nothing. (pg_recvlogical
// would not do: it confirms what it has written when the server asks for a sign of life,
// which is after half of wal_sender_timeout.) The caller ends it with Kill.
func (k *Cluster) HoldSlot(ctx context.Context, database, slot, publication string) (*SlotHolder, error) {
	c, err := pgconn.Connect(ctx, k.DSN(database)+" replication=database application_name=slotholder")
	if err != nil {
		return nil, fmt.Errorf("hold slot %s: %w", slot, err)
	}
	err = pglogrepl.StartReplication(ctx, c, slot, 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names '" + publication + "'"},
	})
	if err != nil {
		c.Close(ctx)
		return nil, fmt.Errorf("hold slot %s: %w", slot, err)
	}
	run, end := context.WithCancel(context.WithoutCancel(ctx))
	h := &SlotHolder{end: end, done: make(chan struct{})}
	go h.hold(run, c)
	return h, nil
}

// hold reads until the context or the connection ends.
func (h *SlotHolder) hold(ctx context.Context, c *pgconn.PgConn) {
	defer close(h.done)
	defer c.Close(context.Background())
	for ctx.Err() == nil {
		if h.frozen.Load() {
			<-ctx.Done()
			return
		}
		wait, cancel := context.WithTimeout(ctx, time.Second)
		_, err := c.ReceiveMessage(wait)
		late := wait.Err() != nil
		cancel()
		if err != nil && (!late || !pgconn.Timeout(err)) {
			return
		}
		if late {
			if err := pglogrepl.SendStandbyStatusUpdate(ctx, c, pglogrepl.StandbyStatusUpdate{}); err != nil {
				return
			}
		}
	}
}

// Freeze makes the session neither read nor answer any more, from the next second on.
func (h *SlotHolder) Freeze() { h.frozen.Store(true) }

// Kill ends the session and waits until it is closed.
func (h *SlotHolder) Kill() {
	h.end()
	<-h.done
}

// PrependHBA puts a line in front of pg_hba.conf; the caller reloads the server.
func (k *Cluster) PrependHBA(line string) error {
	path := filepath.Join(k.DataDir, "pg_hba.conf")
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read pg_hba.conf: %w", err)
	}
	if err := os.WriteFile(path, append([]byte(line+"\n"), old...), 0o600); err != nil {
		return fmt.Errorf("write pg_hba.conf: %w", err)
	}
	return nil
}
