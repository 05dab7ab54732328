package sidecar

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Before 16 a walsender goes on naming tables by the schema that they were in when it first sent
// them: the renaming of a schema reaches it only in another session. So the names are looked at, and
// the slot is read by a new session when one has changed.

// schemaNames are the schemas as they were seen last, by OID. It belongs to the goroutine of upkeep.
type schemaNames map[int64]string

// lookAtSchemas opens the outbound pipe anew when a schema was renamed, and has the published tables
// in it copied: what was read meanwhile went out under the old name.
func (s *Sidecar) lookAtSchemas(ctx context.Context) error {
	return s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		if pg.ServerVersion(c.PgConn()) >= 160000 {
			return nil
		}
		rows, err := c.Query(ctx, `select oid::int8, nspname::text from pg_catalog.pg_namespace`)
		if err != nil {
			return fmt.Errorf("read names of schemas: %w", err)
		}
		now := schemaNames{}
		var oid int64
		var name string
		if _, err := pgx.ForEachRow(rows, []any{&oid, &name}, func() error { now[oid] = name; return nil }); err != nil {
			return fmt.Errorf("read names of schemas: %w", err)
		}
		var renamed []string
		for oid, name := range now {
			if was, ok := s.schemas[oid]; ok && was != name {
				renamed = append(renamed, name)
			}
		}
		if len(renamed) == 0 {
			s.schemas = now
			return nil
		}
		rows, err = c.Query(ctx, `select schemaname::text, tablename::text from pg_catalog.pg_publication_tables where pubname = $1 and schemaname = any($2)`, s.cfg.Postgres.Publication, renamed)
		if err != nil {
			return fmt.Errorf("read publication: %w", err)
		}
		tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[wal.RelationName])
		if err != nil {
			return fmt.Errorf("read publication: %w", err)
		}
		for _, n := range tables {
			if !s.cfg.Selected(n.Schema, n.Name) {
				continue
			}
			s.log.Info("the schema of a table was renamed; its rows are copied", "relation", n.String())
			if err := s.copyTable(ctx, c, n); err != nil {
				return err
			}
		}
		s.schemas = now
		s.out.mu.Lock()
		defer s.out.mu.Unlock()
		if len(tables) > 0 && s.out.reopen != nil {
			s.out.reopen(errAgain)
		}
		return nil
	})
}
