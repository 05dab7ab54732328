package apply

import (
	"context"
	"fmt"
	"strconv"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// The name of a table may have passed to another one before the self-merge reads a change: a copy has taken its place, or two have swapped
// their names. The rows under the name are not the change's then, and it is never put over them. In a table that was made behind the change, this
// region wrote them later: the change is recorded as what was there before, unless something above it is known of the key by now. In one that is as old, the change has nothing to
// say. Its own table, where that is still here, is copied under the name that it has.

// namesake is what is known of a table that has the name of another one of this region, which own changes are of.
type namesake struct {
	other bool    // neither is a partition of the other one
	made  wal.XID // the transaction that made it
}

// namesakeSQL looks whether $1 and $2 are in one tree of partitions, and which transaction has made $1.
const namesakeSQL = `with recursive up(start, oid) as (
  values ($1::int8::oid, $1::int8::oid), ($2::int8::oid, $2::int8::oid)
  union select up.start, h.inhparent from up join pg_catalog.pg_inherits h on h.inhrelid = up.oid
)
select not exists (select from up where start <> oid and oid in ($1::int8::oid, $2::int8::oid)),
  coalesce((select a.xmin::text from pg_catalog.pg_attribute a where a.attrelid = $1::int8::oid and a.attnum < 0 limit 1), '0')`

// passedOn reports whether another table than the one that an own run was written to has the name by now, and whether that one was
// made behind the run.
func (a *Applier) passedOn(ctx context.Context, t *target, tx *wal.Transaction) (passed, later bool, err error) {
	if !a.cfg.Self || len(t.rel.Columns) == 0 || !t.rel.Numbered() {
		return false, false, nil
	}
	was := wal.TableOf(t.rel.Columns[0].ID)
	if was == t.schema.oid {
		return false, false, nil
	}
	if t.namesake == nil {
		var n namesake
		var made string
		if err := a.conn.QueryRow(ctx, namesakeSQL, int64(t.schema.oid), int64(was)).Scan(&n.other, &made); err != nil {
			return false, false, fmt.Errorf("ask which table %s is: %w", t.rel, err)
		}
		xid, err := strconv.ParseUint(made, 10, 32)
		if err != nil {
			return false, false, fmt.Errorf("ask which table %s is: %w", t.rel, err)
		}
		n.made = wal.XID(xid)
		t.namesake = &n
	}
	return t.namesake.other, int32(uint32(t.namesake.made)-uint32(tx.XID)) >= 0, nil
}

// decideFormer decides about an own change of a table that has given its name to another one; later: that was made behind it.
func decideFormer(p conflict.Policy, op wal.Op, row, later bool, e conflict.Event, side conflict.Side) conflict.Verdict {
	switch {
	case !later, !row && op != wal.Delete, side.Known && p.CompareSides(e.Side(), side) < 0:
		return conflict.Keep
	}
	return conflict.Same
}
