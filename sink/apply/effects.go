package apply

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// effects is what an apply transaction writes beside the rows: graves, stamps kept beside
// the tables, audit rows. It goes out in one pipeline with the commit.
type effects struct {
	graves []grave
	stamps []stampRow
	audit  []audit.Record
	told   []audit.Record // written already, to be counted after the commit
	tell   told           // for the other regions
	size   int            // of the audit records, about
	unbury []grave        // graves of rows that live in generation 0 again
	unpark []int64
	parked int64 // changes set aside
	rows   uint64
}

type grave struct {
	rel  wal.RelationName
	key  string
	s    wal.Stamp
	live bool
	lsn  wal.LSN // own changes: the commit that made it; 0: the position of the apply
}

type stampRow struct {
	rel wal.RelationName
	key string
	s   wal.Stamp
	lsn wal.LSN
}

// add merges what a nested attempt gathered.
func (fx *effects) add(o effects) {
	fx.graves = append(fx.graves, o.graves...)
	fx.stamps = append(fx.stamps, o.stamps...)
	fx.audit = append(fx.audit, o.audit...)
	fx.told = append(fx.told, o.told...)
	fx.tell.add(o.tell)
	fx.size += o.size
	fx.unbury = append(fx.unbury, o.unbury...)
	fx.unpark = append(fx.unpark, o.unpark...)
	fx.parked += o.parked
	fx.rows += o.rows
}

// note turns one decision into its side effects.
func (a *Applier) note(ctx context.Context, g *batch.Group, t *target, v *verdict, fx *effects) error {
	r, name := &g.Runs[v.i], g.Rel.Ref()
	if v.Verdict == conflict.Apply {
		fx.rows++
	}
	if v.Verdict == conflict.Apply || v.Verdict == conflict.Same {
		switch {
		case r.Op == wal.Delete:
			fx.graves = append(fx.graves, grave{name, v.known.key, r.Stamp, false, a.own(r)})
		case r.Stamp.Generation > 0:
			fx.graves = append(fx.graves, grave{name, v.known.key, below(r.Stamp.Generation), true, a.own(r)})
		case v.known.grave != nil && v.Verdict == conflict.Apply:
			fx.unbury = append(fx.unbury, grave{rel: name, key: v.known.key})
		}
		if r.Op != wal.Delete && t.stampless() {
			fx.stamps = append(fx.stamps, stampRow{name, v.known.key, r.Stamp, a.own(r)})
		}
	}
	if err := a.decided(ctx, g, t, v, fx); err != nil {
		return err
	}
	if v.Verdict != conflict.Keep && a.cfg.Policy.table(name).Resolve.Skewed(r.Stamp, r.Tx.CommitTime) {
		fx.audit = append(fx.audit, a.skewRecord(g, r, v.known.key, v.event.Side()))
	}
	return nil
}

// own is the position that a grave of this region's own change carries.
func (a *Applier) own(r *batch.Run) wal.LSN {
	if a.cfg.Self {
		return r.Tx.CommitLSN
	}
	return 0
}

// below is the stamp of a grave that stands only for the generation under a living row.
func below(generation uint32) wal.Stamp {
	return wal.Stamp{Generation: generation - 1, Version: wal.NullVersion, UpdatedAt: wal.MinMicros}
}

// fastDeleted and fastWritten note what the fast path did.
func (a *Applier) fastDone(st fastStmt, i int, fx *effects) {
	r := &st.group.Runs[i]
	fx.rows++
	if st.op == wal.Delete {
		fx.graves = append(fx.graves, grave{st.group.Rel.Ref(), st.group.KeyText(r), r.Stamp, false, a.own(r)})
	}
}

// index makes the graves known to the publisher. It must happen before the commit: a local
// insert over a grave may follow at once.
func (a *Applier) indexGraves(fx *effects, at wal.LSN) {
	for i := range fx.graves {
		g := &fx.graves[i]
		if g.lsn == 0 {
			g.lsn = at
		}
		a.cfg.Index.Put(g.rel, []byte(g.key), tombstone.Grave{Generation: g.s.Generation, LSN: g.lsn})
	}
}

// queue returns the statements that write the side effects. lsn is the local position that
// stamps carry which have none of their own.
func (fx *effects) queue(a *Applier, lsn wal.LSN) (*pgx.Batch, error) {
	b := &pgx.Batch{}
	if len(fx.graves) > 0 {
		rels, keys, gens, vers, ats := columnsOf(len(fx.graves))
		live := make([]bool, 0, len(fx.graves))
		lsns := make([]string, 0, len(fx.graves))
		// One key may have died and risen within the batch: the last word counts.
		last := map[grave]struct{}{}
		for i := len(fx.graves) - 1; i >= 0; i-- {
			g := fx.graves[i]
			id := grave{rel: g.rel, key: g.key}
			if _, ok := last[id]; ok {
				continue
			}
			last[id] = struct{}{}
			rels, keys = append(rels, g.rel.String()), append(keys, g.key)
			gens, vers, ats = append(gens, int64(g.s.Generation)), append(vers, g.s.Version), append(ats, int64(g.s.UpdatedAt))
			live, lsns = append(live, g.live), append(lsns, g.lsn.String())
		}
		b.Queue(tombstone.Set, rels, keys, gens, vers, ats, live, lsns, a.cfg.Origin)
	}
	if len(fx.unbury) > 0 {
		rels, keys := make([]string, len(fx.unbury)), make([]string, len(fx.unbury))
		for i, g := range fx.unbury {
			rels[i], keys[i] = g.rel.String(), g.key
		}
		b.Queue(tombstone.Unset, rels, keys)
	}
	if len(fx.stamps) > 0 {
		rels, keys, gens, vers, ats := columnsOf(len(fx.stamps))
		lsns := make([]string, 0, len(fx.stamps))
		last := map[stampRow]struct{}{}
		for i := len(fx.stamps) - 1; i >= 0; i-- {
			s := fx.stamps[i]
			id := stampRow{rel: s.rel, key: s.key}
			if _, ok := last[id]; ok {
				continue
			}
			last[id] = struct{}{}
			rels, keys = append(rels, s.rel.String()), append(keys, s.key)
			gens, vers, ats = append(gens, int64(s.s.Generation)), append(vers, s.s.Version), append(ats, int64(s.s.UpdatedAt))
			if s.lsn == 0 {
				s.lsn = lsn
			}
			lsns = append(lsns, s.lsn.String())
		}
		b.Queue(rowStampUpsert, rels, keys, gens, vers, ats, lsns, a.cfg.Origin)
	}
	if len(fx.audit) > 0 {
		b.Queue(audit.InsertSQL, audit.InsertArgs(fx.audit)...)
	}
	if len(fx.unpark) > 0 {
		b.Queue(parked.DeleteSQL, fx.unpark)
	}
	if err := fx.tell.queue(b, a.cfg.Token); err != nil {
		return nil, err
	}
	return b, nil
}

func columnsOf(n int) (rels, keys []string, gens, vers, ats []int64) {
	return make([]string, 0, n), make([]string, 0, n), make([]int64, 0, n), make([]int64, 0, n), make([]int64, 0, n)
}
