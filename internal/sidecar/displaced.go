package sidecar

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A table may give its name to another one while changes of it are set aside: tools that rebuild tables put a copy in its place, a plain
// table becomes a partition of a new one, two swap their names. Where the origin has done the same, the changes belong to the table, by
// whatever name; where it has not, to the name. So the origin is asked what its table is called now. As long as that is not known, or
// its table is gone, they wait (PW004). So they do when the table that has the name here stands for another one of the origin: two have swapped their names
// here, and likely will there.

// displacedMost is how many changes one look covers.
const displacedMost = 500

// displaced is what is remembered of such changes between looks. It belongs to the goroutine of upkeep.
type displaced struct {
	cursor int64                            // the last id that was looked at
	asks   map[originTable]bool             // at most formerMost tables that origins are asked about
	told   map[originTable]wal.RelationName // what those that are there are called, by the last answer
}

// originTable is a table of another region, by its number there.
type originTable struct {
	origin string
	table  uint32
}

// settleDisplaced settles what can be told of changes whose table has given its name away. It returns the tables that any of them
// have followed.
func (s *Sidecar) settleDisplaced(ctx context.Context, tx pgx.Tx) ([]wal.RelationName, error) {
	d := &s.moved
	list, err := parked.Displaced(ctx, tx, s.cfg.Region, d.cursor, displacedMost)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		if d.cursor == 0 {
			*d = displaced{}
		}
		if d.cursor = 0; len(d.asks) == formerMost {
			d.asks = nil // others
		}
		return nil, nil
	}
	d.cursor = list[len(list)-1].ID
	ids := make([]int64, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	namesakes, err := parked.Namesakes(ctx, tx, ids)
	if err != nil {
		return nil, err
	}
	var follow, stay []int64
	for _, c := range list {
		rel := c.Waiting.Relation
		if len(rel.Columns) == 0 || !rel.Numbered() {
			continue
		}
		at := originTable{c.Origin, wal.TableOf(rel.Columns[0].ID)}
		switch name, ok := d.told[at]; {
		case ok && name == rel.Ref() && s.suspectsOf(c.Origin).StandsForOther(namesakes[c.ID], at.table):
		case ok && name == rel.Ref():
			stay = append(stay, c.ID)
		case ok:
			follow = append(follow, c.ID)
		case len(d.asks) < formerMost:
			if d.asks == nil {
				d.asks = map[originTable]bool{}
			}
			d.asks[at] = true
		}
	}
	if len(stay) > 0 {
		if err := parked.Stay(ctx, tx, stay); err != nil {
			return nil, err
		}
	}
	if len(follow) == 0 {
		return nil, nil
	}
	return parked.FollowOnly(ctx, tx, follow, s.parked)
}
