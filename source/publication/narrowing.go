package publication

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/source/names"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A publication can be altered so that it leaves out deletes, rows or columns. What it leaves out is
// lost to the peers, and nothing in the stream tells.

// narrowing is what the publication leaves out, beyond what was so when it was looked at first, or when an operator
// ran a resync (names.Manner).
type narrowing struct {
	kinds string                      // kinds of change that are not published, in words; "" for none
	split bool                        // partitions are named instead of their root
	anew  map[wal.RelationName]string // tables with another row filter or column list, and these as text
	// unlogged are partitions whose rows leave no WAL, with their tables.
	unlogged map[wal.RelationName]wal.RelationName
}

const unloggedSQL = `with recursive tree as (
  select r.oid as root, r.oid from pg_catalog.pg_publication_tables p join pg_catalog.pg_namespace n on n.nspname = p.schemaname
  join pg_catalog.pg_class r on r.relnamespace = n.oid and r.relname = p.tablename and r.relkind = 'p' where p.pubname = $1
  union select tree.root, h.inhrelid from tree join pg_catalog.pg_inherits h on h.inhparent = tree.oid
)
select n.nspname::text, c.relname::text, rn.nspname::text, r.relname::text from tree
join pg_catalog.pg_class c on c.oid = tree.oid and c.relkind = 'r' and c.relpersistence = 'u' join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_class r on r.oid = tree.root join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace`

const mannerSQL = `select t.schemaname::text, t.tablename::text, coalesce(r.oid::text, ''),
  pg_catalog.btrim(pg_catalog.concat(pg_catalog.to_jsonb(r) ->> 'prqual', ' ', pg_catalog.to_jsonb(r) ->> 'prattrs'))
from pg_catalog.pg_publication p join pg_catalog.pg_publication_tables t on t.pubname = p.pubname join pg_catalog.pg_namespace n on n.nspname = t.schemaname
join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.tablename left join pg_catalog.pg_publication_rel r on r.prpubid = p.oid and r.prrelid = c.oid
where p.pubname = $1`

// lookAtNarrowing finds out what the publication leaves out. A table that is published whole, in a publication
// that was altered since it was looked at last, is copied: what was written meanwhile may not have been published. asked are tables
// that are copied already.
func (w *Watch) lookAtNarrowing(ctx context.Context, c *pgx.Conn, asked map[wal.RelationName]bool) error {
	now := narrowing{anew: map[wal.RelationName]string{}}
	var inserts, updates, deletes, viaRoot bool
	var publication string
	err := c.QueryRow(ctx, `select pubinsert, pubupdate, pubdelete, pubviaroot, pg_catalog.concat(oid, '.', xmin) from pg_catalog.pg_publication where pubname = $1`,
		w.cfg.Publication).Scan(&inserts, &updates, &deletes, &viaRoot, &publication)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // it is gone: the slot says so
	}
	if err != nil {
		return fmt.Errorf("read publication: %w", err)
	}
	now.kinds = kindsLeftOut(inserts, updates, deletes)
	if now.unlogged, err = unloggedPartitions(ctx, c, w.cfg.Publication); err != nil {
		return err
	}
	is, err := w.manners(ctx, c, publication, !viaRoot, now.unlogged)
	if err != nil {
		return err
	}
	was, err := names.Manners(ctx, c)
	if err != nil {
		return err
	}
	for _, m := range was {
		now.split = now.split || !viaRoot && !m.Leaves
	}
	store, again := now.compare(was, is)
	if err := w.noteAway(ctx, c, tablecopy.LeftByName(now.left(was, is))); err != nil {
		return err
	}
	if err := w.copyAltered(ctx, c, slices.DeleteFunc(again, func(n wal.RelationName) bool { return asked[n] })); err != nil {
		return err
	}
	if len(store) > 0 {
		if err := names.SetManners(ctx, c, store); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if before, text := w.narrow.text(w.cfg.Publication), now.text(w.cfg.Publication); text != "" && text != before {
		w.cfg.Log.Warn("the publication leaves changes out", "reason", text)
	}
	w.narrow = now
	return nil
}

// manners is how the selected tables are published.
func (w *Watch) manners(ctx context.Context, c *pgx.Conn, publication string, leaves bool, unlogged map[wal.RelationName]wal.RelationName) (map[wal.RelationName]names.Manner, error) {
	without := map[wal.RelationName][]string{}
	for n, root := range unlogged {
		without[root] = append(without[root], n.String())
	}
	rows, err := c.Query(ctx, mannerSQL, w.cfg.Publication)
	if err != nil {
		return nil, fmt.Errorf("read how tables are published: %w", err)
	}
	is := map[wal.RelationName]names.Manner{}
	var n wal.RelationName
	var entry, filter string
	if _, err := pgx.ForEachRow(rows, []any{&n.Schema, &n.Name, &entry, &filter}, func() error {
		if w.cfg.Selected(n) {
			slices.Sort(without[n])
			is[n] = names.Manner{At: strings.Join(append([]string{publication, entry}, without[n]...), " "), Filter: filter, Leaves: leaves}
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read how tables are published: %w", err)
	}
	return is, nil
}

// compare holds how tables are published against how they were, and notes those with a new filter. It returns
// what is to be stored, and the tables that are to be copied.
func (n *narrowing) compare(was, is map[wal.RelationName]names.Manner) (store map[wal.RelationName]names.Manner, again []wal.RelationName) {
	store = map[wal.RelationName]names.Manner{}
	roots := map[wal.RelationName]bool{} // tables with partitions that leave no WAL
	for _, root := range n.unlogged {
		roots[root] = true
	}
	for t, m := range is {
		before, known := was[t]
		filtered := known && m.Filter != "" && m.Filter != before.Filter
		if filtered {
			n.anew[t] = m.Filter
		}
		switch {
		case n.split, known && before == m:
		case !known:
			store[t] = m
		case filtered || n.kinds != "":
		case roots[t]: // it is copied when that is over, which is another At
			store[t] = names.Manner{At: m.At, Filter: before.Filter, Leaves: before.Leaves}
		default:
			store[t] = m
			again = append(again, t)
		}
	}
	return store, again
}

// left lists the tables of which changes are left out, or may have been since the last look.
func (n *narrowing) left(was, is map[wal.RelationName]names.Manner) (tables []wal.RelationName) {
	for t, m := range is {
		if before, known := was[t]; known && (before != m || n.kinds != "" || n.split) {
			tables = append(tables, t)
		}
	}
	return tables
}

// copyAltered asks for copies of tables that are published whole (again).
func (w *Watch) copyAltered(ctx context.Context, c *pgx.Conn, tables []wal.RelationName) error {
	if len(tables) == 0 {
		return nil
	}
	slices.SortFunc(tables, func(a, b wal.RelationName) int { return strings.Compare(a.String(), b.String()) })
	if !w.cfg.Copies {
		w.cfg.Log.Warn("the publication was altered, so changes of some tables may have been left out", "tables", len(tables), "first", tables[0].String(), "remedy", "run pgwaltz resync")
		return nil
	}
	w.cfg.Log.Warn("the publication was altered, so changes of some tables may have been left out; their rows are copied", "tables", len(tables), "first", tables[0].String(),
		"remedy", "rows that were deleted meanwhile are still in the other regions: pgwaltz keys names them")
	if _, err := c.Exec(ctx, tablecopy.RequestSQL(tables)); err != nil {
		return fmt.Errorf("ask for copies: %w", err)
	}
	return nil
}

// unloggedPartitions lists the partitions of published tables that are unlogged.
func unloggedPartitions(ctx context.Context, c *pgx.Conn, publication string) (map[wal.RelationName]wal.RelationName, error) {
	rows, err := c.Query(ctx, unloggedSQL, publication)
	if err != nil {
		return nil, fmt.Errorf("look for unlogged partitions: %w", err)
	}
	found := map[wal.RelationName]wal.RelationName{}
	var n, root wal.RelationName
	if _, err := pgx.ForEachRow(rows, []any{&n.Schema, &n.Name, &root.Schema, &root.Name}, func() error { found[n] = root; return nil }); err != nil {
		return nil, fmt.Errorf("look for unlogged partitions: %w", err)
	}
	return found, nil
}

// kindsLeftOut names the kinds of change that are not published.
func kindsLeftOut(inserts, updates, deletes bool) string {
	var out []string
	for _, k := range []struct {
		name string
		on   bool
	}{{"inserts", inserts}, {"updates", updates}, {"deletes", deletes}} {
		if !k.on {
			out = append(out, k.name)
		}
	}
	return strings.Join(out, " and ")
}

// text says what is left out and what to do; "" when nothing is.
func (n *narrowing) text(publication string) string {
	name := pg.Quote(publication)
	switch {
	case n.kinds != "":
		return "publication " + name + " does not publish " + n.kinds + ": alter publication " + name + " set (publish = 'insert, update, delete, truncate')"
	case n.split:
		return "publication " + name + " names partitions instead of their tables: alter publication " + name + " set (publish_via_partition_root = true)"
	case len(n.anew) > 0:
		tables := slices.SortedFunc(maps.Keys(n.anew), func(a, b wal.RelationName) int { return strings.Compare(a.String(), b.String()) })
		first := pg.QuoteTable(tables[0].Schema, tables[0].Name)
		return "publication " + name + " got a row filter or a column list for " + tables[0].String() + ", so changes are left out: alter publication " + name +
			" drop table " + first + ", then alter publication " + name + " add table " + first
	case len(n.unlogged) > 0:
		first := slices.MinFunc(slices.Collect(maps.Keys(n.unlogged)), func(a, b wal.RelationName) int { return strings.Compare(a.String(), b.String()) })
		return "partition " + first.String() + " is unlogged, so its changes are not in the WAL: alter table " + pg.QuoteTable(first.Schema, first.Name) + " set logged"
	}
	return ""
}

// Nameless notes a table of which rows could not be named by their key, so that changes are left out: a
// partition has another replica identity than its table, or a key cannot be computed from what the WAL holds.
func (w *Watch) Nameless(rel *wal.Relation, op wal.Op) {
	if w.leaveOut(rel.Ref(), "the key of their rows could not be told") {
		w.cfg.Log.Warn("a change is left out: the key of its row cannot be told", "relation", rel.Ref().String(), "kind", op.String(),
			"remedy", "give all partitions the replica identity of their table, FULL where the key is generated, and see that the type and the expression of the key take the values that they had; then run pgwaltz resync; pgwaltz keys names the rows that only one region has")
	}
}

// TooLarge notes a table of which a row could not be sent.
func (w *Watch) TooLarge(rel *wal.Relation, op wal.Op, size int) {
	w.leaveOut(rel.Ref(), "a row of theirs is too large to be sent")
	w.cfg.Log.Warn("a change is left out: its row is too large to be sent", "relation", rel.Ref().String(), "kind", op.String(), "bytes", size,
		"remedy", "split the value into several rows, or store it elsewhere; then run pgwaltz resync")
}

// Patience with what is missing to compute the keys of a table.
const (
	unablePatience = 10 * time.Second // so long everything waits for it
	unableForget   = time.Hour        // then it is waited for again
)

// Unable decides what becomes of changes whose keys cannot be computed because a right or a function is
// missing. At first everything waits, since it may be granted again in a moment. Then the changes of that table are
// left out, and its rows are asked for: they are copied when it can be read again.
func (w *Watch) Unable(ctx context.Context, rel *wal.Relation, cause error) (bool, error) {
	name := rel.Ref()
	w.mu.Lock()
	since, ok := w.unable[name]
	if !ok || time.Since(since) > unableForget {
		since = time.Now()
		w.unable[name] = since
	}
	w.mu.Unlock()
	if time.Since(since) < unablePatience {
		return false, nil
	}
	reason := w.cfg.Public(cause)
	if !ok || time.Since(since) < 2*unablePatience {
		w.cfg.Log.Warn("changes are left out: keys of their table cannot be computed", "relation", name.String(), "reason", reason,
			"remedy", "grant what is missing; the rows are copied then, and pgwaltz keys names those that were deleted meanwhile")
	}
	if !w.cfg.Copies {
		return true, nil // Nameless has said it
	}
	err := w.cfg.Do(ctx, func(ctx context.Context, c *pgx.Conn) error { return tablecopy.Await(ctx, c, name, reason) })
	return err == nil, err
}
