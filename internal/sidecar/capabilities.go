package sidecar

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/node"
)

// capabilities is what the runtime role may do on this server.
type capabilities struct {
	replica bool // may set session_replication_role
	origin  bool // may use replication origins
	token   []byte
	life    string // of the database, see node.Life
	// deadlock is the server's deadlock_timeout.
	deadlock time.Duration
}

func (s *Sidecar) findCapabilities(ctx context.Context, conn *pgx.Conn) error {
	p, err := pg.LoadRole(ctx, conn, "")
	if err != nil {
		return err
	}
	s.caps.replica = p.SetReplicationRole && s.cfg.Apply.Privileges != config.PrivilegesRestorer
	s.caps.origin = p.Origins && s.originsExist(ctx, conn)
	var deadlock int64 // milliseconds
	if err := conn.QueryRow(ctx, `select setting::int8 from pg_catalog.pg_settings where name = 'deadlock_timeout'`).Scan(&deadlock); err != nil {
		return fmt.Errorf("read deadlock_timeout: %w", err)
	}
	s.caps.deadlock = time.Duration(deadlock) * time.Millisecond
	s.caps.token, err = node.Token(ctx, conn, s.cfg.Region)
	s.caps.life = node.Life(s.caps.token)
	return err
}

// originsExist reports whether setup made the replication origins of all peers.
func (s *Sidecar) originsExist(ctx context.Context, conn *pgx.Conn) bool {
	var names []string
	for _, p := range s.cfg.PeerNames() {
		names = append(names, config.OriginName(s.cfg.Cluster, p))
	}
	var n int
	err := conn.QueryRow(ctx, `select count(*) from pg_catalog.pg_replication_origin where roname = any($1)`, names).Scan(&n)
	return err == nil && n == len(names) && n > 0
}
