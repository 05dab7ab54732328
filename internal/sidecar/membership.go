package sidecar

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/source/names"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A table that is dropped leaves the publication without a word, and one that is made anew under its
// name, as tools do that rebuild tables, is not published: its changes are lost to the peers. So
// what is published is looked at now and then.

// memberPause is between two looks at the publication, unless one of its tables was altered: that is
// asked every second, since what is written to a table that was made anew is not seen until then.
const memberPause = 5 * time.Second

// alteredSQL is another text whenever a table of the publication was altered, dropped or renamed, or the publication was altered.
const alteredSQL = `select pg_catalog.concat_ws('.', pg_catalog.count(*), pg_catalog.sum(pg_catalog.hashint8(c.oid::int8 * 2147483647 + c.xmin::text::int8)),
  pg_catalog.sum(pg_catalog.hashint8(r.oid::int8)), pg_catalog.min(p.xmin::text))
from pg_catalog.pg_publication_rel r join pg_catalog.pg_publication p on p.oid = r.prpubid join pg_catalog.pg_class c on c.oid = r.prrelid where p.pubname = $1`

// membership remembers what was published.
type membership struct {
	mu     sync.Mutex
	known  map[wal.RelationName]uint32 // published tables, and their OIDs; nil before the first look
	stored map[wal.RelationName]uint32 // known and lost, as the database holds them
	lost   map[wal.RelationName]uint32 // selected tables that were published and are not now
	narrow narrowing
	// left is what was left out last; unsaved: the database does not say so yet; leftKnown: what it says is known.
	left               leftOut
	unsaved, leftKnown bool
	storing            sync.Mutex // held while that is stored
	// unable says since when keys of a table could not be computed.
	unable  map[wal.RelationName]time.Time
	altered string // what alteredSQL said last
	due     time.Time
}

// missing returns a table that is here and was published, and is not now.
func (m *membership) missing() (wal.RelationName, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var first wal.RelationName
	for n := range m.lost {
		if first.Name == "" || n.String() < first.String() {
			first = n
		}
	}
	return first, first.Name != ""
}

const membersSQL = `select p.schemaname::text, p.tablename::text, c.oid::int8 from pg_catalog.pg_publication_tables p
join pg_catalog.pg_namespace n on n.nspname = p.schemaname join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.tablename where p.pubname = $1`

// existingSQL finds a table; a partition of a published table is none, as it is published with that.
const existingSQL = `select coalesce((select c.oid::int8 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p') and not (c.relispartition and exists (
  select from pg_catalog.pg_publication_tables p join pg_catalog.pg_class r on r.oid = pg_catalog.pg_partition_root(c.oid) and r.relname = p.tablename
  join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace and rn.nspname = p.schemaname where p.pubname = $3))), 0)`

// lookAtMembers compares the publication with what it was. A table that was made anew is published
// again, and copied; where that may not be done, the status says what to do. One that somebody took
// out is only named; when it is back, its rows are copied.
func (s *Sidecar) lookAtMembers(ctx context.Context) error {
	m := &s.members
	return s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		if err := s.storeLeftOut(ctx, c); err != nil {
			return err
		}
		var altered string
		if err := c.QueryRow(ctx, alteredSQL, s.cfg.Postgres.Publication).Scan(&altered); err != nil {
			return fmt.Errorf("read publication: %w", err)
		}
		if altered == m.altered && time.Now().Before(m.due) {
			return nil
		}
		anew := altered != m.altered
		m.altered, m.due = "", time.Now().Add(memberPause)
		if m.known == nil {
			known, err := names.Published(ctx, c)
			if err != nil {
				return err
			}
			m.mu.Lock()
			m.known = known
			m.mu.Unlock()
		}
		rows, err := c.Query(ctx, membersSQL, s.cfg.Postgres.Publication)
		if err != nil {
			return fmt.Errorf("read publication: %w", err)
		}
		now := map[wal.RelationName]uint32{}
		var n wal.RelationName
		var oid int64
		if _, err := pgx.ForEachRow(rows, []any{&n.Schema, &n.Name, &oid}, func() error { now[n] = uint32(oid); return nil }); err != nil {
			return fmt.Errorf("read publication: %w", err)
		}
		gone := map[wal.RelationName]uint32{}
		m.mu.Lock()
		before := m.lost
		for n, oid := range m.known {
			if _, ok := now[n]; !ok && s.cfg.Selected(n.Schema, n.Name) {
				gone[n] = oid
			}
		}
		for n, oid := range before {
			gone[n] = oid
		}
		m.mu.Unlock()
		lost, asked := map[wal.RelationName]uint32{}, map[wal.RelationName]bool{}
		for n, was := range gone {
			still, err := s.settleMember(ctx, c, n, was, now)
			if err != nil {
				return err
			}
			if still {
				lost[n] = was
			}
			asked[n] = true
			if _, said := before[n]; still && !said {
				s.log.Warn("a table is not published any more", "relation", n.String(), "remedy", "run pgwaltz setup, or leave it out with tables.exclude")
			}
		}
		for _, n := range renamedTables(m.known, now) {
			if _, settled := gone[n]; settled || !s.cfg.Selected(n.Schema, n.Name) {
				continue
			}
			if _, replaced := m.known[n]; replaced {
				s.log.Warn("a name of a published table belongs to another table; its rows are copied", "relation", n.String(),
					"remedy", "rows of the former table that it lacks are still in the other regions: pgwaltz keys names them")
			} else {
				s.log.Info("a table was renamed; its rows are copied", "relation", n.String())
			}
			if err := s.copyTable(ctx, c, n); err != nil {
				return err
			}
			asked[n] = true
		}
		if err := s.lookAtNarrowing(ctx, c, asked); err != nil {
			return err
		}
		if err := s.lookAtAttached(ctx, c); err != nil {
			return err
		}
		// What is not here is remembered as it was: it may come again.
		// Where its table has another name now, it is known by that.
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
		if anew || !maps.Equal(known, m.stored) {
			if err := names.SetPublished(ctx, c, known); err != nil {
				return err
			}
			s.named = time.Time{}
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.stored = known
		m.known, m.lost = now, lost
		if len(lost) == 0 {
			m.altered = altered
		}
		return nil
	})
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

// settleMember deals with a table that was published under the OID was. It reports whether it is
// here and still not published.
func (s *Sidecar) settleMember(ctx context.Context, c *pgx.Conn, n wal.RelationName, was uint32, now map[wal.RelationName]uint32) (bool, error) {
	if _, ok := now[n]; ok {
		s.log.Info("a table is published again; its rows are copied", "relation", n.String())
		return false, s.copyTable(ctx, c, n)
	}
	var oid int64
	if err := c.QueryRow(ctx, existingSQL, n.Schema, n.Name, s.cfg.Postgres.Publication).Scan(&oid); err != nil {
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
	switch err := preflight.Republish(ctx, c, s.cfg, n, note); {
	case err == nil:
		s.log.Warn("a table was made anew; it is published again, and its rows are copied", "relation", n.String(),
			"remedy", "rows that were deleted from it meanwhile are still in the other regions: pgwaltz keys names them")
		now[n] = uint32(oid)
		s.members.leaveOut(n, why)
		return false, nil
	case errors.Is(err, preflight.ErrNotSelected):
		return false, nil
	case c.IsClosed():
		return false, err
	default:
		s.log.Debug("publish a table again", "relation", n.String(), "reason", publicMessage(err))
		return true, nil
	}
}

// copyTable asks for a copy of one table.
func (s *Sidecar) copyTable(ctx context.Context, c tablecopy.Execer, n wal.RelationName) error {
	if s.cfg.Copy.Mode != config.CopyAuto {
		return nil
	}
	if _, err := c.Exec(ctx, tablecopy.RequestSQL([]wal.RelationName{n})); err != nil {
		return fmt.Errorf("ask for a copy of %s: %w", n, err)
	}
	s.asksForCopies()
	return nil
}
