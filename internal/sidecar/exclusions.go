package sidecar

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint/streamstore"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/internal/config"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/wal"
)

// exclusions is which tables are left out of the stream where. It is fixed for a run of the outbound pipe.
type exclusions struct {
	streamstore.Exclusions
	before [][]config.Pattern // of Before
}

// unheard is how long a process waits for what peers have of a stream that is lost here, before it is published by another list of
// tables. A peer that was out of reach for longer, and has read what nobody else has, finds another history there: a gap.
const unheard = 15 * time.Second

// turnExclusions begins a run: what is left out behind what was published before is what the configuration says, and up to there what it
// said then. Where the stream is lost, what the self-merge and the peers have of it tells how far it went.
func (s *Sidecar) turnExclusions(ctx context.Context, c *pgx.Conn, sit checkpoint.Situation, oldest wal.LSN) error {
	s.exclusions = exclusions{}
	stored, known, err := streamstore.LoadExclusions(ctx, c, s.cfg.Region)
	if err != nil {
		return err
	}
	now := s.excluded()
	if !known {
		stored = streamstore.Exclusions{Now: now}
	}
	if lost := !sit.Tail.Found || !sit.Tail.Epoch.SameWAL(s.epoch); lost && len(sit.Acks) < sit.Peers && !slices.Equal(stored.Now, now) && time.Since(s.started) < unheard {
		return fmt.Errorf("the stream is lost, and tables.exclude is another one than before: it waits %s for the peers to say how far they have read it", unheard)
	}
	if !sit.Stored.Epoch.SameWAL(s.epoch) {
		stored.Before = nil // of another WAL, whose positions say nothing here
	}
	former := stored.Now
	next, changed := stored.Turn(now, sit.Published(), oldest)
	if changed || !known {
		if err := s.saveExclusions(ctx, c, next, former); err != nil {
			return err
		}
	} else if err := s.noteExcluded(ctx, c, former); err != nil {
		return err
	}
	s.exclusions.Exclusions = next
	for _, f := range next.Before {
		patterns, err := parsePatterns(f.Exclude)
		if err != nil {
			return err
		}
		s.exclusions.before = append(s.exclusions.before, patterns)
	}
	return nil
}

// saveExclusions stores it, and with it which tables are to be copied: what is left out from now on comes by no other way.
func (s *Sidecar) saveExclusions(ctx context.Context, c *pgx.Conn, e streamstore.Exclusions, former []string) error {
	return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "set local synchronous_commit = local"); err != nil {
			return fmt.Errorf("save which tables are left out: %w", err)
		}
		if err := streamstore.SaveExclusions(ctx, tx, s.cfg.Region, e); err != nil {
			return err
		}
		excluded := func(n wal.RelationName) bool { return s.cfg.Excluded(n.Schema, n.Name) }
		if err := s.noteExcluded(ctx, tx, former); err != nil {
			return err
		}
		// Everything below the horizon was published by the former list.
		h, known, err := tombstone.LoadHorizon(ctx, tx)
		if err != nil {
			return err
		}
		if err := tablecopy.AbsentExcluded(ctx, tx, s.cfg.Postgres.Publication, excluded, h, known); err != nil {
			return err
		}
		return tablecopy.SettleExcluded(ctx, tx, s.cfg.Postgres.Publication, excluded)
	})
}

// noteExcluded notes that changes of tables are left out by a list that was there before. Of most it is noted already, and stays. Of those that came since, were restored from
// a dump, or were left out by a program that noted nothing, it is not known since when.
func (s *Sidecar) noteExcluded(ctx context.Context, c tablecopy.Session, list []string) error {
	if len(list) == 0 {
		return nil
	}
	patterns, err := parsePatterns(list)
	if err != nil {
		return err
	}
	out := func(n wal.RelationName) bool { return config.MatchAny(patterns, n.Schema, n.Name) }
	return tablecopy.AbsentExcluded(ctx, c, s.cfg.Postgres.Publication, out, tombstone.Horizon{}, false)
}

func parsePatterns(list []string) (patterns []config.Pattern, err error) {
	for _, text := range list {
		p, err := config.ParsePattern(text)
		if err != nil {
			return nil, fmt.Errorf("read which tables were left out: %w", err)
		}
		patterns = append(patterns, p)
	}
	return patterns, nil
}

// excluded are the patterns of the configuration.
func (s *Sidecar) excluded() []string {
	out := make([]string, len(s.cfg.Tables.Exclude))
	for i, p := range s.cfg.Tables.Exclude {
		out[i] = p.String()
	}
	return out
}

// leavesOut reports whether changes of a table that were committed at a position are left out of the stream.
func (s *Sidecar) leavesOut(n wal.RelationName, commit wal.LSN) bool {
	if i, former := s.exclusions.At(commit); former {
		return config.MatchAny(s.exclusions.before[i], n.Schema, n.Name)
	}
	return s.cfg.Excluded(n.Schema, n.Name)
}
