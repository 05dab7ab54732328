package preflight

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/source/names"
	"github.com/pgwaltz/pgwaltz/source/publication"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Republish does for one table what setup does for a new one: its replica identity, the request for
// a copy, the publication. It is for a table that was dropped and made anew, which takes it out of
// the publication without a word. It waits for locks for a moment only. note is called within its transaction, at the end. Errors: publication.ErrNotSelected.
func Republish(ctx context.Context, conn *pgx.Conn, cfg *config.Config, name wal.RelationName, note func(pgx.Tx) error) error {
	tables, err := pg.LoadTables(ctx, conn)
	if err != nil {
		return err
	}
	for _, t := range Select(cfg, tables).Tables {
		if t.Ref() != name {
			continue
		}
		sqls := []string{"set local lock_timeout = '300ms'", "set local " + names.Quiet}
		if wantsFull(cfg, t) {
			sqls = append(sqls, "alter table "+t.SQL()+" replica identity full")
		}
		if cfg.Copy.Mode == config.CopyAuto {
			sqls = append(sqls, copySQL([]*pg.Table{t}))
		}
		sqls = append(sqls, "alter publication "+pg.Quote(cfg.Postgres.Publication)+" add table "+tableList([]*pg.Table{t}))
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			for _, sql := range sqls {
				if _, err := tx.Exec(ctx, sql); err != nil {
					return fmt.Errorf("publish table %s again: %w", name, err)
				}
			}
			return note(tx)
		})
	}
	return fmt.Errorf("publish table %s again: %w", name, publication.ErrNotSelected)
}
