package publication

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/source/names"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A table that is dropped leaves the publication without a word, and one that is made anew under its
// name, as tools do that rebuild tables, is not published: its changes are lost to the peers. So
// what is published is looked at now and then.

// memberPause is between two looks at the publication, unless one of its tables was altered: that is
// asked every time, since what is written to a table that was made anew is not seen until then.
const memberPause = 5 * time.Second

// alteredSQL is another text whenever a table of the publication was altered, dropped or renamed, or the publication was altered.
const alteredSQL = `select pg_catalog.concat_ws('.', pg_catalog.count(*), pg_catalog.sum(pg_catalog.hashint8(c.oid::int8 * 2147483647 + c.xmin::text::int8)),
  pg_catalog.sum(pg_catalog.hashint8(r.oid::int8)), pg_catalog.min(p.xmin::text))
from pg_catalog.pg_publication_rel r join pg_catalog.pg_publication p on p.oid = r.prpubid join pg_catalog.pg_class c on c.oid = r.prrelid where p.pubname = $1`

const membersSQL = `select p.schemaname::text, p.tablename::text, c.oid::int8 from pg_catalog.pg_publication_tables p
join pg_catalog.pg_namespace n on n.nspname = p.schemaname join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.tablename where p.pubname = $1`

// existingSQL finds a table; a partition of a published table is none, as it is published with that.
const existingSQL = `select coalesce((select c.oid::int8 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p') and not (c.relispartition and exists (
  select from pg_catalog.pg_publication_tables p join pg_catalog.pg_class r on r.oid = pg_catalog.pg_partition_root(c.oid) and r.relname = p.tablename
  join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace and rn.nspname = p.schemaname where p.pubname = $3))), 0)`

// Look compares the publication with what it was. A table that was made anew is published
// again, and copied; where that may not be done, Incomplete says what to do. One that somebody took
// out is only named; when it is back, its rows are copied. It is called every second or so, and looks when there is
// something to see, or after a while.
func (w *Watch) Look(ctx context.Context, c *pgx.Conn) error {
	if err := w.storeLeftOut(ctx, c); err != nil {
		return err
	}
	var altered string
	if err := c.QueryRow(ctx, alteredSQL, w.cfg.Publication).Scan(&altered); err != nil {
		return fmt.Errorf("read publication: %w", err)
	}
	if altered == w.altered && time.Now().Before(w.due) {
		return nil
	}
	anew := altered != w.altered
	w.altered, w.due = "", time.Now().Add(memberPause)
	if err := w.recall(ctx, c); err != nil {
		return err
	}
	begun, err := w.beginAway(ctx, c)
	if err != nil {
		return err
	}
	now, err := w.members(ctx, c)
	if err != nil {
		return err
	}
	gone := w.gone(now)
	asked := map[wal.RelationName]bool{} // those that are dealt with
	lost, err := w.settle(ctx, c, gone, now, asked)
	if err != nil {
		return err
	}
	if err := w.copyRenamed(ctx, c, gone, now, asked); err != nil {
		return err
	}
	if err := w.lookAtNarrowing(ctx, c, asked); err != nil {
		return err
	}
	if err := w.lookAtAttached(ctx, c); err != nil {
		return err
	}
	if err := w.remember(ctx, c, gone, lost, now, anew); err != nil {
		return err
	}
	if err := w.endAway(ctx, c, begun); err != nil {
		return err
	}
	if len(lost) == 0 {
		w.altered = altered
	}
	return nil
}

// recall reads what was published when a process begins.
func (w *Watch) recall(ctx context.Context, c *pgx.Conn) error {
	if w.known != nil {
		return nil
	}
	known, err := names.Published(ctx, c)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known = known
	return nil
}

// members are the tables that are published now, and their OIDs.
func (w *Watch) members(ctx context.Context, c *pgx.Conn) (map[wal.RelationName]uint32, error) {
	rows, err := c.Query(ctx, membersSQL, w.cfg.Publication)
	if err != nil {
		return nil, fmt.Errorf("read publication: %w", err)
	}
	now := map[wal.RelationName]uint32{}
	var n wal.RelationName
	var oid int64
	if _, err := pgx.ForEachRow(rows, []any{&n.Schema, &n.Name, &oid}, func() error { now[n] = uint32(oid); return nil }); err != nil {
		return nil, fmt.Errorf("read publication: %w", err)
	}
	return now, nil
}

// gone are the selected tables that were published and are not now, or were not at the last look.
func (w *Watch) gone(now map[wal.RelationName]uint32) map[wal.RelationName]uint32 {
	gone := maps.Clone(w.lost)
	if gone == nil {
		gone = map[wal.RelationName]uint32{}
	}
	for n, oid := range w.known {
		if _, ok := now[n]; !ok && w.cfg.Selected(n) && gone[n] == 0 {
			gone[n] = oid
		}
	}
	return gone
}

// settle deals with tables that are gone. It returns those that are here and still not published, and notes all as asked.
func (w *Watch) settle(ctx context.Context, c *pgx.Conn, gone, now map[wal.RelationName]uint32, asked map[wal.RelationName]bool) (map[wal.RelationName]uint32, error) {
	lost := map[wal.RelationName]uint32{}
	if err := w.noteAway(ctx, c, w.away(gone, now)); err != nil {
		return nil, err
	}
	for n, was := range gone {
		still, err := w.settleMember(ctx, c, n, was, now)
		if err != nil {
			return nil, err
		}
		if still {
			lost[n] = was
		}
		asked[n] = true
		if _, said := w.lost[n]; still && !said {
			w.cfg.Log.Warn("a table is not published any more", "relation", n.String(), "remedy", "run pgwaltz setup, or leave it out with tables.exclude")
		}
	}
	return lost, nil
}

// settleMember deals with a table that was published under the OID was. It reports whether it is
// here and still not published.
func (w *Watch) settleMember(ctx context.Context, c *pgx.Conn, n wal.RelationName, was uint32, now map[wal.RelationName]uint32) (bool, error) {
	if _, ok := now[n]; ok {
		w.cfg.Log.Info("a table is published again; its rows are copied", "relation", n.String())
		return false, w.copyTable(ctx, c, n)
	}
	var oid int64
	if err := c.QueryRow(ctx, existingSQL, n.Schema, n.Name, w.cfg.Publication).Scan(&oid); err != nil {
		return false, fmt.Errorf("look for table %s: %w", n, err)
	}
	switch uint32(oid) {
	case 0:
		return false, nil // it is gone
	case was:
		return true, nil // somebody took it out
	}
	const why = "the table was made anew and not published at once, so a delete of that moment is in no WAL"
	note := func(tx pgx.Tx) error { return names.SetLeftOut(ctx, tx, n, why) }
	switch err := w.cfg.Republish(ctx, c, n, note); {
	case err == nil:
		w.cfg.Log.Warn("a table was made anew; it is published again, and its rows are copied", "relation", n.String(),
			"remedy", "rows that were deleted from it meanwhile are still in the other regions: pgwaltz keys names them")
		now[n] = uint32(oid)
		w.leaveOut(n, why)
		return false, nil
	case errors.Is(err, ErrNotSelected):
		return false, nil
	case c.IsClosed():
		return false, err
	default:
		w.cfg.Log.Debug("publish a table again", "relation", n.String(), "reason", w.cfg.Public(err))
		return true, nil
	}
}

// copyRenamed asks for copies of tables whose names mean something else than before.
func (w *Watch) copyRenamed(ctx context.Context, c *pgx.Conn, gone, now map[wal.RelationName]uint32, asked map[wal.RelationName]bool) error {
	for _, n := range renamedTables(w.known, now) {
		if _, settled := gone[n]; settled || !w.cfg.Selected(n) {
			continue
		}
		if _, replaced := w.known[n]; replaced {
			w.cfg.Log.Warn("a name of a published table belongs to another table; its rows are copied", "relation", n.String(),
				"remedy", "rows of the former table that it lacks are still in the other regions: pgwaltz keys names them")
		} else {
			w.cfg.Log.Info("a table was renamed; its rows are copied", "relation", n.String())
		}
		if err := w.copyTable(ctx, c, n); err != nil {
			return err
		}
		asked[n] = true
	}
	return nil
}

// renamedTables are the tables that were known by another name, and those whose name another table
// had. What was under way when both regions renamed one comes by the name that it had, and waits beside
// it, or goes into the other one: so its rows are copied. What a new table held before it was published
// is in no stream.
func renamedTables(known, now map[wal.RelationName]uint32) []wal.RelationName {
	byOID := make(map[uint32]wal.RelationName, len(known))
	for n, oid := range known {
		byOID[oid] = n
	}
	var list []wal.RelationName
	for n, oid := range now {
		was, renamed := byOID[oid]
		before, replaced := known[n]
		if renamed && was != n || replaced && before != oid {
			list = append(list, n)
		}
	}
	return list
}

// remember stores what is published now. What is not here is remembered as it was, since it may come again, unless
// its table has another name now: then it is known by that. anew: the publication or one of its tables was altered.
func (w *Watch) remember(ctx context.Context, c *pgx.Conn, gone, lost, now map[wal.RelationName]uint32, anew bool) error {
	here := map[uint32]bool{}
	for _, oid := range now {
		here[oid] = true
	}
	for n, oid := range gone {
		if _, ok := now[n]; !ok && lost[n] == 0 && !here[oid] {
			now[n] = oid
		}
	}
	known := maps.Clone(now)
	maps.Copy(known, lost)
	if anew || !maps.Equal(known, w.stored) {
		if err := names.SetPublished(ctx, c, known); err != nil {
			return err
		}
		w.cfg.Renamed()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stored, w.known, w.lost = known, now, lost
	return nil
}
