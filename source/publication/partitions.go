package publication

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/wal"
)

// partitionsSQL lists the partitions of published tables with identity FULL that have another
// one: those that were made after setup, because a partition does not take it over.
const partitionsSQL = `with recursive tree as (
  select r.oid from pg_catalog.pg_publication_tables p join pg_catalog.pg_namespace n on n.nspname = p.schemaname
  join pg_catalog.pg_class r on r.relnamespace = n.oid and r.relname = p.tablename and r.relkind = 'p' and r.relreplident = 'f' where p.pubname = $1
  union select h.inhrelid from tree join pg_catalog.pg_inherits h on h.inhparent = tree.oid
)
select distinct n.nspname::text, c.relname::text from tree join pg_catalog.pg_class c on c.oid = tree.oid and c.relkind = 'r' and c.relreplident <> 'f'
join pg_catalog.pg_namespace n on n.oid = c.relnamespace order by 1, 2`

// SettlePartitions gives partitions that were made after setup the identity of their table.
// Where it may not, or a lock is in the way, it says what to do; it is called again.
func (w *Watch) SettlePartitions(ctx context.Context, c *pgx.Conn) error {
	rows, err := c.Query(ctx, partitionsSQL, w.cfg.Publication)
	if err != nil {
		return fmt.Errorf("look for new partitions: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowToStructByPos[wal.RelationName])
	if err != nil {
		return fmt.Errorf("look for new partitions: %w", err)
	}
	for _, n := range names {
		sql := "alter table " + pg.QuoteTable(n.Schema, n.Name) + " replica identity full"
		if err := briefly(ctx, c, sql); err != nil {
			w.cfg.Log.Warn("a new partition has another replica identity than its table: what its updates overwrite is not known",
				"relation", n.String(), "reason", w.cfg.Public(err), "remedy", sql)
			continue
		}
		w.cfg.Log.Info("a new partition got the replica identity of its table", "relation", n.String())
	}
	return nil
}

// briefly runs a statement that waits for no lock longer than a moment.
func briefly(ctx context.Context, c *pgx.Conn, sql string) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := tx.Exec(ctx, "set local lock_timeout = '300ms'"); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, sql); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// lookAtAttached asks for copies of partitions that were attached with rows in them: nothing in the
// WAL says that they are the table's.
func (w *Watch) lookAtAttached(ctx context.Context, c *pgx.Conn) error {
	auto := w.cfg.Copies
	found, err := tablecopy.Attached(ctx, c, w.cfg.Publication, w.whole, w.wholeKnown, auto, func(n wal.RelationName) bool { return !w.cfg.Selected(n) })
	for _, n := range found {
		if auto {
			w.cfg.Log.Info("a partition with rows was attached; its rows are copied", "relation", n.String())
		} else {
			w.cfg.Log.Warn("a partition with rows was attached, which are not in the other regions", "relation", n.String(), "remedy", "run pgwaltz resync")
		}
	}
	return err
}
