package sidecar

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Where tables have swapped their names in one region only, changes wait by themselves (parked.Apart). They go in when their table is called
// here as it is at the origin. What that calls it, its newest change says; where none has come since, it is asked.

// apart is what is remembered of such changes between looks. It belongs to the goroutine of upkeep.
type apart struct {
	asks map[originTable]bool             // at most formerMost tables that origins are asked about
	told map[originTable]wal.RelationName // what those that are there are called, by the last answer
}

// rejoined is the SQLSTATE under which they wait then: they are tried again as changes of columns that are called otherwise are, and the rows are copied behind them.
const rejoined = "PW006"

// rejoin lets changes go in whose tables are called alike by now. It returns the tables that any of them belong to; left says that others may be left for the next look.
func (s *Sidecar) rejoin(ctx context.Context, tx pgx.Tx) (tables []wal.RelationName, left bool, err error) {
	groups, err := parked.Groups(ctx, tx, formerMost)
	if err != nil {
		return nil, false, err
	}
	s.apart.asks = nil
	for i := range groups {
		g := &groups[i]
		came, table, ok := parked.ParseApart(g.Name)
		if !ok {
			continue
		}
		suspects := s.suspectsOf(g.Origin)
		home, loaded := suspects.Home(table)
		if !loaded && s.in[g.Origin] != nil {
			continue
		}
		at := originTable{g.Origin, table}
		told, asked := s.apart.told[at]
		seen, known := suspects.Called(table)
		name, here := g.Is, g.Table
		switch {
		case home == 0: // nothing is known of it any more: its name counts
			if asked {
				came = told
			}
			name = came
			if here, err = oidOf(ctx, tx, name); err != nil {
				return nil, false, err
			}
		case home != g.Table:
			// A change has come meanwhile that was taken by its name: the others are tried likewise.
			if name, err = nameOf(ctx, tx, home); err != nil {
				return nil, false, err
			}
			here = home
		case g.Is == (wal.RelationName{}):
			continue // its table is gone here
		case asked && told == g.Is || known && seen == g.Is:
		default:
			// What has its name here may stand for another table by now: then nothing keeps it from going by that.
			if name, here, err = s.freed(ctx, tx, at, told, seen); err != nil {
				return nil, false, err
			}
			if here == 0 {
				if s.apart.asks == nil {
					s.apart.asks = map[originTable]bool{}
				}
				s.apart.asks[at] = true
				continue
			}
		}
		if name == (wal.RelationName{}) {
			continue
		}
		more, l, err := parked.Rejoin(ctx, tx, g, name, here, rejoined, s.parked)
		if err != nil {
			return nil, false, err
		}
		if len(more) > 0 {
			s.log.Info("a table is called here as it is at the origin again: its changes that were set aside are tried", "origin", g.Origin, "relation", name.String())
		}
		tables, left = append(tables, more...), left || l
	}
	return tables, left, nil
}

// freed is the table here into which a change of a table of the origin would go by one of the names that it has there, 0 when it belongs into another one still.
func (s *Sidecar) freed(ctx context.Context, tx pgx.Tx, at originTable, called ...wal.RelationName) (name wal.RelationName, here uint32, err error) {
	for _, name := range called {
		if name == (wal.RelationName{}) {
			continue
		}
		if here, err = oidOf(ctx, tx, name); err != nil {
			return name, 0, err
		}
		if here != 0 && s.suspectsOf(at.origin).Elsewhere(here, at.table) == 0 {
			return name, here, nil
		}
	}
	return name, 0, nil
}

// nameOf is what a table is called; empty when it is gone.
func nameOf(ctx context.Context, tx pgx.Tx, table uint32) (n wal.RelationName, err error) {
	err = tx.QueryRow(ctx, `select coalesce(pg_catalog.max(n.nspname::text), ''), coalesce(pg_catalog.max(c.relname::text), '') from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = $1::int8::oid and c.relkind in ('r', 'p')`, int64(table)).Scan(&n.Schema, &n.Name)
	if err != nil {
		return n, fmt.Errorf("read the name of a table: %w", err)
	}
	return n, nil
}

// oidOf is the number of a table; 0 when there is none of that name.
func oidOf(ctx context.Context, tx pgx.Tx, n wal.RelationName) (uint32, error) {
	var oid int64
	err := tx.QueryRow(ctx, `select coalesce(pg_catalog.max(c.oid::int8), 0) from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p')`, n.Schema, n.Name).Scan(&oid)
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", n, err)
	}
	return uint32(oid), nil
}
