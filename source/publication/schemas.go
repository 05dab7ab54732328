package publication

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

// schemaNames are the schemas as they were seen last, by OID.
type schemaNames map[int64]string

// LookAtSchemas has the published tables copied whose schema was renamed: what was read meanwhile went
// out under the old name. It reports whether the session that reads the slot is to be opened anew. It is called from the goroutine of Look.
func (w *Watch) LookAtSchemas(ctx context.Context, c *pgx.Conn) (stale bool, err error) {
	now, err := readSchemas(ctx, c)
	if err != nil {
		return false, err
	}
	var renamed []string
	for oid, name := range now {
		if was, ok := w.schemas[oid]; ok && was != name {
			renamed = append(renamed, name)
		}
	}
	if len(renamed) > 0 {
		w.cfg.Renamed()
	}
	if len(renamed) == 0 || pg.ServerVersion(c.PgConn()) >= 160000 {
		w.schemas = now
		return false, nil
	}
	rows, err := c.Query(ctx, `select schemaname::text, tablename::text from pg_catalog.pg_publication_tables where pubname = $1 and schemaname = any($2)`, w.cfg.Publication, renamed)
	if err != nil {
		return false, fmt.Errorf("read publication: %w", err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[wal.RelationName])
	if err != nil {
		return false, fmt.Errorf("read publication: %w", err)
	}
	for _, n := range tables {
		if !w.cfg.Selected(n) {
			continue
		}
		w.cfg.Log.Info("the schema of a table was renamed; its rows are copied", "relation", n.String())
		if err := w.copyTable(ctx, c, n); err != nil {
			return false, err
		}
	}
	w.schemas = now
	return len(tables) > 0, nil
}

func readSchemas(ctx context.Context, c *pgx.Conn) (schemaNames, error) {
	rows, err := c.Query(ctx, `select oid::int8, nspname::text from pg_catalog.pg_namespace`)
	if err != nil {
		return nil, fmt.Errorf("read names of schemas: %w", err)
	}
	now := schemaNames{}
	var oid int64
	var name string
	if _, err := pgx.ForEachRow(rows, []any{&oid, &name}, func() error { now[oid] = name; return nil }); err != nil {
		return nil, fmt.Errorf("read names of schemas: %w", err)
	}
	return now, nil
}
