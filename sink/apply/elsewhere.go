package apply

import (
	"context"
	"fmt"

	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Two tables may swap their names, and not in all regions at once. As long as only one region has done that, a change that
// names one of them belongs into the other one. Which table here a table of the origin stands for is known by its columns (counterpart.Map).
// So a change is set aside where it names a table here that stands for another table of the origin, while the one that its own stands for
// is here under another name. It waits by itself, under a name that no table has (parked.Apart): it must not meet what waits for the table that has
// the name by which it came. When its table is called here as it is there, it goes in (sidecar.rejoin).
//
// A table whose counterpart stands for nothing else is taken by its name: it was made anew, or a copy has taken its place. So is
// one of which nothing is known, and one whose counterpart is gone, or a partition by now.

// stateApart is the SQLSTATE of such changes.
const stateApart = parked.ApartState

// homeSQL returns the table $1 where it is one that may have changes of its own.
const homeSQL = `select coalesce((select pg_catalog.format('%I.%I', n.nspname, c.relname) from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = $1::int8::oid and c.relkind in ('r', 'p') and not c.relispartition), '')`

// elsewhere refuses changes that name a table here while they belong into another one.
func (a *Applier) elsewhere(ctx context.Context, rel *wal.Relation, s *tableSchema) error {
	if a.cfg.Self || len(rel.Columns) == 0 || !rel.Numbered() {
		return nil
	}
	home := a.cfg.Suspects.columns.Elsewhere(s.oid, wal.TableOf(rel.Columns[0].ID))
	if home == 0 {
		return nil
	}
	var name string
	if err := a.conn.QueryRow(ctx, homeSQL, int64(home)).Scan(&name); err != nil {
		return fmt.Errorf("look for the table that %s stands for: %w", rel, err)
	}
	if name == "" {
		return nil
	}
	return &schemaError{name: rel.Ref(), code: stateApart, home: home,
		what: "the table of this name is another one here than at the origin, whose table is " + name + " here: tables have swapped their names in one region only"}
}

// parkApart sets a group aside whose table is here under another name.
func (a *Applier) parkApart(ctx context.Context, g *batch.Group, se *schemaError, fx *effects) error {
	rel := *g.Rel
	name := parked.Apart(rel.Ref(), a.cfg.Origin, wal.TableOf(rel.Columns[0].ID))
	rel.Schema, rel.Name = name.Schema, name.Name
	apart := *g
	apart.Rel = &rel
	a.oids[name] = se.home
	return a.parkGroup(ctx, &apart, reason{se.code, se.Error()}, fx)
}

// setApart lets a change that waits under a name wait by itself: the table that has the name now is not its own.
func (r *Retrier) setApart(ctx context.Context, id int64, se *schemaError) error {
	changes, err := parked.Read(ctx, r.a.conn, []int64{id})
	if err != nil || len(changes) == 0 {
		return side(err)
	}
	rel := changes[0].Waiting.Relation
	name := parked.Apart(rel.Ref(), r.a.cfg.Origin, wal.TableOf(rel.Columns[0].ID))
	return side(parked.SetApart(ctx, r.a.conn, id, name, se.home, se.Error(), r.a.cfg.Parked))
}
