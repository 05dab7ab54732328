package conflict

import (
	"bytes"
	"slices"

	"github.com/pgwaltz/pgwaltz/wal"
)

// crowd is the rows that a transaction has put under one deferrable key, and that have not left it since. There may
// be any number of them until the transaction ends, beside the row that stood there before.
type crowd struct {
	rows []*putRow // in the order in which they came; those that have left stay until none is in front of them
	left int       // how many of rows have not left
	same map[[16]byte][]*putRow
}

// putRow is one of them.
type putRow struct {
	change wal.Change // the insert; of a Tangle with what changed it since
	image  wal.Tuple  // as it is now
	gone   bool
	front  []*step // changes of the row before it, which come in front of its insert (Untangle)
	steps  []*step // its insert, and what changed it since (Untangle)
}

// crowdLooked is how many rows are compared one by one; above it they are found by their digests.
const crowdLooked = 4

func (c *crowd) put(rel *wal.Relation, r *putRow) {
	c.rows = append(c.rows, r)
	c.left++
	switch {
	case c.same != nil:
		c.index(rel, r)
	case len(c.rows) > crowdLooked:
		c.same = map[[16]byte][]*putRow{}
		for _, one := range c.rows {
			if !one.gone {
				c.index(rel, one)
			}
		}
	}
}

func (c *crowd) index(rel *wal.Relation, r *putRow) {
	if content, ok := Content(rel, r.image); ok {
		c.same[Digest(content)] = append(c.same[Digest(content)], r)
	}
}

func (c *crowd) forget(rel *wal.Relation, r *putRow) {
	content, ok := Content(rel, r.image)
	if c.same == nil || !ok {
		return
	}
	d := Digest(content)
	if i := slices.Index(c.same[d], r); i >= 0 {
		c.same[d] = slices.Delete(c.same[d], i, i+1)
	}
	if len(c.same[d]) == 0 {
		delete(c.same, d)
	}
}

// first is the row that came first of those that are left; nil when none is.
func (c *crowd) first() *putRow {
	for len(c.rows) > 0 && c.rows[0].gone {
		c.rows = c.rows[1:]
	}
	if len(c.rows) == 0 {
		return nil
	}
	return c.rows[0]
}

// meant is the row that an update or a delete means, by the old image; nil is the one that stood there
// before. Of equal rows any will do. An old image that is not whole means the last one.
func (c *crowd) meant(ch *wal.Change) *putRow {
	if !ch.OldFull {
		for _, r := range slices.Backward(c.rows) {
			if !r.gone {
				return r
			}
		}
		return nil
	}
	content, ok := Content(ch.Relation, ch.Old)
	if !ok {
		return nil
	}
	if c.same != nil {
		if rows := c.same[Digest(content)]; len(rows) > 0 {
			return rows[len(rows)-1]
		}
		return nil
	}
	for _, r := range slices.Backward(c.rows) {
		if r.gone {
			continue
		}
		if image, ok := Content(ch.Relation, r.image); ok && bytes.Equal(image, content) {
			return r
		}
	}
	return nil
}

// changed says that a row has another image now.
func (c *crowd) changed(rel *wal.Relation, r *putRow, image wal.Tuple) {
	c.forget(rel, r)
	r.image = image
	if c.same != nil {
		c.index(rel, r)
	}
}

// leave takes a row away.
func (c *crowd) leave(rel *wal.Relation, r *putRow) {
	c.forget(rel, r)
	r.gone = true
	c.left--
}
