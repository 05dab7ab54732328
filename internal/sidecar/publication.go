package sidecar

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/source/publication"
	"github.com/pgwaltz/pgwaltz/wal"
)

// watchPublication makes what watches over the publication.
func (s *Sidecar) watchPublication() *publication.Watch {
	return publication.New(publication.Config{
		Publication: s.cfg.Postgres.Publication,
		Selected:    func(n wal.RelationName) bool { return s.cfg.Selected(n.Schema, n.Name) },
		Copies:      s.cfg.Copy.Mode == config.CopyAuto,
		Do:          s.db.do,
		Republish: func(ctx context.Context, c *pgx.Conn, n wal.RelationName, note func(pgx.Tx) error) error {
			return preflight.Republish(ctx, c, s.cfg, n, note)
		},
		Renamed: func() { s.named = time.Time{} },
		Asked:   s.asksForCopies,
		Public:  publicMessage,
		Log:     s.log,
	})
}
