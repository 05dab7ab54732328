package sidecar

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/source/complete"
	"github.com/pgwaltz/pgwaltz/source/names"
	"github.com/pgwaltz/pgwaltz/wal"
)

// catalogTimeout bounds one look into the catalog for the decoder.
const catalogTimeout = 20 * time.Second

// completer asks in a session that nobody else uses: what the outbound pipe has to know must
// not wait behind the status.
func (s *Sidecar) completer() *complete.Completer {
	c := complete.New(s.catalog.do, func(rel *wal.Relation) (conflict.Policy, bool) {
		p := s.policy(rel.Ref())
		return p.Resolve, conflict.ColumnsOf(rel, p.Version, p.UpdatedAt).Stampless()
	})
	c.Ledger = s.own.Own
	return c
}

// number says what the columns of a relation are that the decoder has read of. An error ends the pipe, as one of describe.
func (s *Sidecar) number(rel *wal.Relation, table uint32, at wal.LSN) (again wal.LSN, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), catalogTimeout)
	defer cancel()
	err = s.catalog.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		again, err = names.Number(ctx, c, rel, table, at)
		return err
	})
	return again, err
}

// describe says what identifies the rows of a relation that the decoder has read of. An error
// ends the pipe, which is opened again and asks again.
func (s *Sidecar) describe(rel *wal.Relation) error {
	ctx, cancel := context.WithTimeout(context.Background(), catalogTimeout)
	defer cancel()
	if err := s.completer().Describe(ctx, rel); err != nil {
		return err
	}
	ours := rel.Identity == wal.IdentityFull && !rel.Partitioned && rel.PrimaryKey != nil
	met := rel.OID == 0 || s.met.of[rel.OID] == rel.Ref()
	var now names.Standing
	if rel.OID != 0 && !(ours && met) {
		err := s.catalog.do(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
			now, err = names.Stands(ctx, c, rel.Ref(), rel.OID)
			return err
		})
		if err != nil {
			return err
		}
	}
	if !met {
		if err := s.meetName(ctx, rel, now.Named); err != nil {
			return err
		}
	}
	if err := s.settleName(ctx, rel.OID, rel.Ref()); err != nil {
		return err
	}
	if ours || now.Whole {
		return nil
	}
	// It may be a partition that is new: the WAL names it before its first row.
	if err := s.catalog.do(ctx, s.members.SettlePartitions); err != nil {
		s.log.Warn("look for new partitions", "reason", publicMessage(err))
	}
	return nil
}
