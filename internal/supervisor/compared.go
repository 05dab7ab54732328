package supervisor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/fallback/native"
	"github.com/pgwaltz/pgwaltz/internal/status"
)

const (
	switchedLately = 10 * time.Minute // a switch that is older was compared by the process before this one
	compareFor     = time.Minute      // in all
	compareAgain   = 10 * time.Second // until the tables are equal
)

// compareOnce begins to compare both sides when the region replicates for the first time behind a switch, and logs what it has found. The owner
// waits for s.side in the end.
func (s *Supervisor) compareOnce(ctx context.Context, row *fallback.Row) {
	if s.compared || row == nil || time.Since(row.Since) > switchedLately || !s.cfg.Applies() || s.Status().State != status.Replicating {
		return
	}
	s.compared = true
	for _, p := range s.cfg.Peers {
		if p.DSN.IsZero() {
			continue
		}
		s.side.Go(func() { s.compare(ctx, p) }) // ends with ctx, or when compareFor is over
	}
}

func (s *Supervisor) compare(ctx context.Context, p config.Peer) {
	ctx, cancel := context.WithTimeoutCause(ctx, compareFor, fmt.Errorf("not within %s", compareFor))
	defer cancel()
	log := s.log.With("peer", p.Region)
	options := pg.Options{Region: s.cfg.Region, Role: "compare"}
	var list []fallback.Compared
	here, err := pg.Connect(ctx, s.cfg.Postgres.Fresh().Reveal(), options)
	if err == nil {
		defer here.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
		var there *pgx.Conn
		if there, err = native.DialPeer(ctx, s.cfg, p, true, options); err == nil {
			defer there.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
			list, err = fallback.CompareUntil(ctx, here, there, s.cfg.Postgres.Publication, time.Now().Add(compareAgain))
		}
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		log.Warn("both sides were not compared behind the switch: pgwaltz mode compare", "reason", err.Error())
		return
	}
	var differ []string
	for _, c := range list {
		if !c.Same {
			differ = append(differ, fmt.Sprintf("%s (%d rows here, %d there)", c.Table, c.Here, c.There))
		}
	}
	if len(differ) > 0 {
		log.Warn("tables differ behind the switch: what was written meanwhile is under way still, or something is missing: pgwaltz mode compare", "tables", strings.Join(differ, ", "))
		return
	}
	log.Info("both sides are equal behind the switch", "tables", len(list))
}
