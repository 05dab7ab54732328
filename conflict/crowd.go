package conflict

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/pgwaltz/pgwaltz/wal"
)

// crowd is the rows that a transaction has put under one key, and that have not left it since. Where the key is
// deferrable, or was not there meanwhile, there may be any number of them until the transaction ends, beside the row that stood there before.
type crowd struct {
	rel  wal.RelationName
	rows []*putRow // in the order in which they came; those that have left stay until none is in front of them
	left int       // how many of rows have not left
	same map[[16]byte][]*putRow
	// mixed: the table was described anew within the transaction.
	mixed bool
}

// putRow is one of them.
type putRow struct {
	rel    *wal.Relation
	image  wal.Tuple  // as it is now
	change wal.Change // Tangle: the insert, with what changed the row since
	gone   bool
	front  []*step // Untangle: changes of the row before it, which come in front of its insert
	steps  []*step // Untangle: its insert, and what changed it since
}

// crowdLooked is how many rows are compared one by one; above it they are found by their digests.
const crowdLooked = 4

func (c *crowd) put(r *putRow) {
	c.mixed = c.mixed || len(c.rows) > 0 && c.rows[0].rel != r.rel
	c.rows = append(c.rows, r)
	c.left++
	switch {
	case c.same != nil:
		c.index(r)
	case c.left > crowdLooked:
		c.same = map[[16]byte][]*putRow{}
		for _, one := range c.rows {
			if !one.gone {
				c.index(one)
			}
		}
	}
}

func (c *crowd) index(r *putRow) {
	d := looks(r.image)
	c.same[d] = append(c.same[d], r)
}

func (c *crowd) forget(r *putRow) {
	if c.same == nil {
		return
	}
	d := looks(r.image)
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
// before. Of equal rows any will do. An old image that is not whole means the last one. So does one that looks like no row, where the key is
// not deferrable and the table was described anew behind the only row that was put there: ALTER TABLE may have given that other values.
func (c *crowd) meant(ch *wal.Change) *putRow {
	if c.same != nil && ch.OldFull && !c.mixed && (c.left == 0 || c.first().rel == ch.Relation) {
		if rows := c.same[looks(ch.Old)]; len(rows) > 0 {
			return rows[len(rows)-1]
		}
		return nil
	}
	for _, r := range slices.Backward(c.rows) {
		if !r.gone && (!ch.OldFull || sameRow(r.rel, r.image, ch.Relation, ch.Old)) {
			return r
		}
	}
	if one := c.first(); c.left == 1 && !ch.Relation.Deferrable && one.rel != ch.Relation {
		return one
	}
	return nil
}

// changed says that a row has another image now.
func (c *crowd) changed(r *putRow, rel *wal.Relation, image wal.Tuple) {
	c.forget(r)
	c.mixed = c.mixed || r.rel != rel
	r.rel, r.image = rel, image
	if c.same != nil {
		c.index(r)
	}
}

// leave takes a row away.
func (c *crowd) leave(r *putRow) {
	c.forget(r)
	r.gone = true
	c.left--
}

// sameRow reports whether two images of one transaction are those of equal rows. Where the table was described anew in between, the
// columns that both descriptions have decide.
func sameRow(rel *wal.Relation, a wal.Tuple, now *wal.Relation, b wal.Tuple) bool {
	for i := range b {
		n := i
		if rel != now {
			n = rel.Column(now.Columns[i].Name)
			if n < 0 || rel.Columns[n].OID != now.Columns[i].OID || rel.Columns[n].TypeMod != now.Columns[i].TypeMod || passedOn(rel.Columns[n].ID, now.Columns[i].ID) {
				continue // its values may have been converted
			}
		}
		if n >= len(a) || !a[n].Absent() && !b[i].Absent() && (a[n].Kind != b[i].Kind || !bytes.Equal(a[n].Bytes, b[i].Bytes)) {
			return false
		}
	}
	return true
}

// looks is the digest of an image as it came.
func looks(t wal.Tuple) [16]byte {
	h := sha256.New()
	var head [9]byte
	for i := range t {
		head[0] = byte(t[i].Kind)
		binary.LittleEndian.PutUint64(head[1:], uint64(len(t[i].Bytes)))
		h.Write(head[:])
		h.Write(t[i].Bytes)
	}
	return [16]byte(h.Sum(nil)[:16])
}
