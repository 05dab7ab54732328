package sidecar

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Before 16 a walsender goes on naming tables by the schema that they were in when it first sent
// them: the renaming of a schema reaches it only in another session. So the names are looked at, and
// the slot is read by a new session when one has changed.

// schemaNames are the schemas as they were seen last, by OID. It belongs to the goroutine of upkeep.
type schemaNames map[int64]string

// movedSchemas are the present names of schemas that were renamed, by their old ones.
type movedSchemas map[string]string

func (m movedSchemas) note(was, is string) {
	for old, name := range m {
		if name == was {
			m[old] = is
		}
	}
	m[was] = is
}

// lookAtSchemas opens the outbound pipe anew when a schema was renamed, and has the published tables
// in it copied: what was read meanwhile went out under the old name. What has come and waits under the
// old name follows.
func (s *Sidecar) lookAtSchemas(ctx context.Context) error {
	return s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
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
				s.moved.note(was, name)
			}
		}
		for _, name := range now {
			delete(s.moved, name) // it is the name of one that is here
		}
		if err := s.followSchemas(ctx, c); err != nil {
			return err
		}
		if len(renamed) == 0 || pg.ServerVersion(c.PgConn()) >= 160000 {
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

// followSchemas lets parked changes follow the schemas that were renamed while this process runs.
// Tombstones and stored stamps keep the old name, so what goes in by the new one may meet less than it
// would have: behind it, the rows are copied, and the regions settle what differs.
func (s *Sidecar) followSchemas(ctx context.Context, c *pgx.Conn) error {
	if s.parked.Waits() {
		for was, is := range s.moved {
			tables, err := parked.FollowSchema(ctx, c, was, is, s.parked)
			if err != nil {
				return err
			}
			for _, n := range tables {
				s.followed[n] = struct{}{}
			}
		}
	}
	for n := range s.followed {
		if waits, err := parked.Absent(ctx, c, n); err != nil {
			return err
		} else if waits {
			continue
		}
		if s.cfg.Selected(n.Schema, n.Name) {
			s.log.Info("changes by the old name of a schema are in; the rows of their table are copied", "relation", n.String())
			if err := s.copyTable(ctx, c, n); err != nil {
				return err
			}
		}
		delete(s.followed, n)
	}
	return nil
}
