package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/wal"
)

// The oracle of the second decoding: a change has the stamp and the base that it was given
// first, at every later decoding, from every position that was confirmed, with the tables as
// they are by then, and with nothing known but the tables.

// changeAt names an own change: its transaction, and its place in it.
type changeAt struct {
	commit wal.LSN
	index  int
}

// given is what a change was stamped at its first decoding.
type given struct {
	op    wal.Op
	key   rowKey
	stamp wal.Stamp
	base  wal.Base
}

func (g given) String() string {
	base := "unknown"
	if g.base.Known {
		base = conflict.StampText(g.base.Stamp)
	}
	return fmt.Sprintf("%s of t%d %s %s over %s", g.op, g.key.table, g.key.key, conflict.StampText(g.stamp), base)
}

// stamping is one decoding of the WAL: a stamper, and how far it is in a transaction.
type stamping struct {
	s       *sidecar
	stamper *replicator.Stamper
	index   int
}

// stamp stamps a transaction or a part, and holds it against the first decoding. It returns
// what is wrong, "" for nothing.
func (g *stamping) stamp(tx *wal.Transaction, first bool) string {
	d := g.s.r.db
	if err := g.stamper.Stamp(context.Background(), tx); errors.Is(err, errCatalog) {
		g.s.failed()
	} else if err != nil {
		return err.Error()
	}
	if tx.Part == 0 {
		g.index = 0
	}
	for i := range tx.Changes {
		c := &tx.Changes[i]
		at := changeAt{tx.CommitLSN, g.index}
		g.index++
		now := given{c.Op, g.s.keyOf(c), c.Stamp, c.Base}
		was, ok := d.given[at]
		switch {
		case !ok && first:
			d.given[at] = now
			if bad := d.risen(now); bad != "" {
				return bad
			}
		case ok && now != was:
			return fmt.Sprintf("stamped otherwise: change %d of the transaction at %s in %s was %s, is %s", at.index, at.commit, g.s.r.name, was, now)
		}
	}
	return ""
}

// risen holds an own change against that of its key before it: generations do not fall, and a row that
// is inserted where an own one lived is in a later one. (Within a generation a row may come below an
// earlier own one, if another region's row was put over that before it was known.)
func (d *database) risen(now given) string {
	was := d.stamped[now.key]
	d.stamped[now.key] = now
	least := was.stamp.Generation
	if now.op == wal.Insert && was.op != 0 && (was.op == wal.Delete || least > 0) {
		least++
	}
	if now.stamp.Generation >= least || d.w.cfg.Restore {
		return ""
	}
	return fmt.Sprintf("generations fall: in %s %s comes behind %s", d.r.name, now, was)
}

// probe decodes the WAL again from a position, as a process does that knows the tables only.
// It changes nothing.
func (s *sidecar) probe(why string, from wal.LSN) {
	w, d := s.w, s.r.db
	if !w.cfg.Strict {
		return
	}
	x := s.newLocal(tombstone.Limits{}).Index
	d.beginClock(x, from)
	g := stamping{s: s, stamper: replicator.NewStamper(s.policy, items{s, x, false})}
	r := newReader(d, false, func() bool { return false })
	n, _ := slices.BinarySearchFunc(d.wal[:d.flushed], from+1, func(tx *walTx, at wal.LSN) int {
		return int(tx.end) - int(at)
	})
	for _, tx := range d.wal[n:d.flushed] {
		if s.out == nil || tx.end > s.out.framer.Decoded() {
			return // not decoded for the first time yet
		}
		r.read(tx, func(out *wal.Transaction) {
			if bad := g.stamp(out, false); bad != "" {
				w.fail("%s, at a decoding from %s (%s)", bad, from, why)
			}
		})
	}
}
