package apply

import (
	"context"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// set applies transactions set-based. b holds what goes first.
//
// A table that has several groups gets them one after the other, in waves: what one group
// buries, the next one has to find.
func (a *Applier) set(ctx context.Context, b *pipeline, txs []keyedTx, fx *effects) error {
	if err := a.askKeys(ctx, txs); err != nil {
		return err
	}
	a.batch.Reset()
	for _, k := range txs {
		a.batch.Expect(k.tx)
	}
	for _, k := range txs {
		a.batch.AddPicked(k.tx, k.kind, k.places)
	}
	groups := a.batch.Groups
	a.childrenFirst(ctx, groups)
	all := groups
	for {
		n := waveLen(groups)
		w := &wave{a: a, b: b, groups: groups[:n], fx: fx, left: map[*batch.Group][]int{}, slow: map[*batch.Group][]int{}}
		if err := w.apply(ctx); err != nil {
			return err
		}
		if groups = groups[n:]; len(groups) == 0 {
			break
		}
		if err := a.spill(ctx, fx); err != nil {
			return err
		}
		b = &pipeline{fence: -1}
	}
	for _, g := range all {
		if err := a.checkDeferred(ctx, g, fx); err != nil {
			return err
		}
	}
	return failpoint.Hit("apply_after_dml")
}

// waveLen is how many groups, from the first, belong to different tables.
func waveLen(groups []*batch.Group) int {
	seen := make(map[wal.RelationName]bool, len(groups))
	for n, g := range groups {
		if seen[g.Rel.Ref()] {
			return n
		}
		seen[g.Rel.Ref()] = true
	}
	return len(groups)
}

// spill writes the side effects gathered so far, within the transaction, so that what follows
// in it finds them.
func (a *Applier) spill(ctx context.Context, fx *effects) error {
	if err := a.writeEffects(ctx, fx); err != nil {
		return err
	}
	fx.entries, fx.items = nil, nil
	fx.ended += int64(len(fx.unpark))
	fx.unpark = nil
	fx.audit, fx.tell, fx.size = nil, told{}, 0
	return nil
}

// spillBytes is how much of side effects is gathered in memory.
const spillBytes = 4 << 20

// spillLarge writes the side effects gathered so far when they are large.
func (a *Applier) spillLarge(ctx context.Context, fx *effects) error {
	if fx.size+fx.tell.size < spillBytes {
		return nil
	}
	return a.spill(ctx, fx)
}

// truncates notes truncates, which are never applied across regions. Behind one of this region its own rows that wait (PW005 is the usual
// reason) have nothing to say any more: they are gone. It runs in front of what else the group holds, which the batch has compared with the truncate.
func (a *Applier) truncates(ctx context.Context, g *batch.Group, fx *effects) error {
	if n := len(g.Truncs); n > 0 && a.cfg.Self {
		if !a.cfg.Parked.Used() {
			return nil
		}
		table := uint32(0)
		if len(g.Rel.Columns) > 0 && g.Rel.Numbered() {
			table = wal.TableOf(g.Rel.Columns[0].ID)
		}
		cut, err := parked.Cut(ctx, a.conn, a.cfg.Origin, g.Rel.Ref(), table, g.Truncs[n-1].CommitLSN)
		if err != nil {
			return side(err)
		}
		fx.ended += cut
		return nil
	}
	for _, tx := range g.Truncs {
		side := conflict.Side{Known: true, Stamp: wal.Stamp{UpdatedAt: tx.CommitTime}}
		a.conflict(fx, g.Rel, a.plainRecord(g.Rel, conflict.Truncate, "truncate", tx, side), wal.Entry{Known: true, Stamp: side.Stamp}, wal.Entry{})
	}
	return nil
}
