package sidecar

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
	"github.com/pgwaltz/pgwaltz/internal/config"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/source/names"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A publication can be altered so that it leaves out deletes, rows or columns. What it leaves out is
// lost to the peers, and nothing in the stream tells.

// narrowing is what the publication leaves out.
type narrowing struct {
	looked bool
	kinds  string                      // kinds of change that are not published, in words; "" for none
	leaves bool                        // partitions are named instead of their root
	split  bool                        // that is so since this sidecar works
	tables map[wal.RelationName]string // tables with a row filter or a column list, and these as text
	anew   map[wal.RelationName]string // those of them that were altered while this sidecar works
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

const narrowSQL = `select n.nspname::text, c.relname::text, pg_catalog.concat(pg_catalog.to_jsonb(r) ->> 'prqual', ' ', pg_catalog.to_jsonb(r) ->> 'prattrs')
from pg_catalog.pg_publication_rel r join pg_catalog.pg_publication p on p.oid = r.prpubid
join pg_catalog.pg_class c on c.oid = r.prrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where p.pubname = $1 and (pg_catalog.to_jsonb(r) ->> 'prqual' is not null or pg_catalog.to_jsonb(r) ->> 'prattrs' is not null)`

// lookAtNarrowing finds out what the publication leaves out. When it publishes again what it left
// out while this sidecar works, the rows of these tables are copied; published are all tables that
// are published now.
func (s *Sidecar) lookAtNarrowing(ctx context.Context, c *pgx.Conn, published map[wal.RelationName]uint32) error {
	now := narrowing{looked: true, tables: map[wal.RelationName]string{}, anew: map[wal.RelationName]string{}}
	var inserts, updates, deletes, viaRoot bool
	err := c.QueryRow(ctx, `select pubinsert, pubupdate, pubdelete, pubviaroot from pg_catalog.pg_publication where pubname = $1`, s.cfg.Postgres.Publication).Scan(&inserts, &updates, &deletes, &viaRoot)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // it is gone: the slot says so
	}
	if err != nil {
		return fmt.Errorf("read publication: %w", err)
	}
	now.kinds, now.leaves = kindsLeftOut(inserts, updates, deletes), !viaRoot
	rows, err := c.Query(ctx, narrowSQL, s.cfg.Postgres.Publication)
	if err != nil {
		return fmt.Errorf("read filters of the publication: %w", err)
	}
	var n wal.RelationName
	var text string
	if _, err := pgx.ForEachRow(rows, []any{&n.Schema, &n.Name, &text}, func() error { now.tables[n] = text; return nil }); err != nil {
		return fmt.Errorf("read filters of the publication: %w", err)
	}
	if now.unlogged, err = unloggedPartitions(ctx, c, s.cfg.Postgres.Publication); err != nil {
		return err
	}
	m := &s.members
	m.mu.Lock()
	was := m.narrow
	m.mu.Unlock()
	var again []wal.RelationName
	now.split = now.leaves && (was.split || was.looked && !was.leaves)
	if was.looked {
		for n, text := range now.tables {
			if _, here := published[n]; here && s.cfg.Selected(n.Schema, n.Name) && was.tables[n] != text || was.anew[n] == text {
				now.anew[n] = text
			}
		}
		for n, root := range was.unlogged {
			if _, still := now.unlogged[n]; !still && !slices.Contains(again, root) {
				again = append(again, root)
			}
		}
		for n := range was.anew {
			if _, still := now.tables[n]; !still {
				again = append(again, n)
			}
		}
	}
	if was.kinds != "" && now.kinds == "" || was.split && !now.split {
		again = slices.Collect(maps.Keys(published))
	}
	for _, n := range again {
		if _, here := published[n]; !here || !s.cfg.Selected(n.Schema, n.Name) {
			continue
		}
		s.log.Info("a table is published whole again; its rows are copied", "relation", n.String())
		if err := s.copyTable(ctx, c, n); err != nil {
			return err
		}
	}
	if before, text := was.text(s.cfg.Postgres.Publication), now.text(s.cfg.Postgres.Publication); text != "" && text != before {
		s.log.Warn("the publication leaves changes out", "reason", text)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.narrow = now
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

// text says what is left out and what to do; "" when nothing is, beyond what was so at the start.
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

// narrowed says what the publication leaves out; "" for nothing.
func (m *membership) narrowed(publication string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if text := m.narrow.text(publication); text != "" || m.leftOut.Name == "" {
		return text
	}
	return "changes of " + m.leftOut.String() + " were left out, because " + m.why + ": " +
		"see the log, then run pgwaltz resync; pgwaltz keys names the rows that only one region has"
}

// forgive forgets what was left out: a resync has shown it.
func (m *membership) forgive() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leftOut, m.why, m.forgiven = wal.RelationName{}, "", true
}

// leaveOut notes that changes of a table were left out. It reports whether that is new.
func (m *membership) leaveOut(name wal.RelationName, why string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leftOut == name && m.why == why {
		return false
	}
	m.leftOut, m.why = name, why
	return true
}

// storeLeftOut keeps in the database what was left out, and takes it from there when a process begins: it
// stays so until a resync.
func (s *Sidecar) storeLeftOut(ctx context.Context, c *pgx.Conn) error {
	m := &s.members
	m.mu.Lock()
	is, why, stored, known := m.leftOut, m.why, m.leftOutStored, m.leftOutKnown
	m.mu.Unlock()
	now := is.String() + " " + why
	if !known {
		was, text, err := names.LeftOut(ctx, c)
		if err != nil {
			return err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.leftOut.Name == "" && m.why == "" && !m.forgiven {
			m.leftOut, m.why = was, text
		}
		m.leftOutKnown, m.leftOutStored = true, was.String()+" "+text
		return nil
	}
	if now == stored {
		return nil
	}
	if err := names.SetLeftOut(ctx, c, is, why); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leftOutStored = now
	return nil
}

// nameless notes a table of which rows could not be named by their key, so that changes are left out: a
// partition has another replica identity than its table, or a key cannot be computed from what the WAL holds.
func (s *Sidecar) nameless(rel *wal.Relation, op wal.Op) {
	if s.members.leaveOut(rel.Ref(), "the key of their rows could not be told") {
		s.log.Warn("a change is left out: the key of its row cannot be told", "relation", rel.Ref().String(), "kind", op.String(),
			"remedy", "give all partitions the replica identity of their table, FULL where the key is generated, and see that the type and the expression of the key take the values that they had; then run pgwaltz resync; pgwaltz keys names the rows that only one region has")
	}
}

// tooLarge notes a table of which a row could not be sent.
func (s *Sidecar) tooLarge(rel *wal.Relation, op wal.Op, size int) {
	s.members.leaveOut(rel.Ref(), "a row of theirs is too large to be sent")
	s.log.Warn("a change is left out: its row is too large to be sent", "relation", rel.Ref().String(), "kind", op.String(), "bytes", size,
		"remedy", "split the value into several rows, or store it elsewhere; then run pgwaltz resync")
}

// Patience with what is missing to compute the keys of a table.
const (
	unablePatience = 10 * time.Second // so long everything waits for it
	unableForget   = time.Hour        // then it is waited for again
)

// unable decides what becomes of changes whose keys cannot be computed because a right or a function is
// missing. At first everything waits, since it may be granted again in a moment. Then the changes of that table are
// left out, and its rows are asked for: they are copied when it can be read again.
func (s *Sidecar) unable(ctx context.Context, rel *wal.Relation, cause error) (bool, error) {
	m, name := &s.members, rel.Ref()
	m.mu.Lock()
	since, ok := m.unable[name]
	if !ok || time.Since(since) > unableForget {
		if m.unable == nil {
			m.unable = map[wal.RelationName]time.Time{}
		}
		since, m.unable[name] = time.Now(), time.Now()
	}
	m.mu.Unlock()
	if time.Since(since) < unablePatience {
		return false, nil
	}
	reason := publicMessage(cause)
	if !ok || time.Since(since) < 2*unablePatience {
		s.log.Warn("changes are left out: keys of their table cannot be computed", "relation", name.String(), "reason", reason,
			"remedy", "grant what is missing; the rows are copied then, and pgwaltz keys names those that were deleted meanwhile")
	}
	if s.cfg.Copy.Mode != config.CopyAuto {
		return true, nil // Nameless has said it
	}
	err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error { return tablecopy.Await(ctx, c, name, reason) })
	return err == nil, err
}
