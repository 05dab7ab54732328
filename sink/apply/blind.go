package apply

import (
	"context"
	"fmt"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A tombstone where there is no row has nothing that a local insert would wait for. Its
// position is taken before the look, as far as local changes are stamped; who stamps a later
// one waits for the end of this transaction (package tombstone says why that is exact).

// announced is what blind found out before a look.
type announced struct {
	at     wal.LSN // position of tombstones without a row; 0: nothing was announced
	unseen bool    // the look may miss a local change that is stamped
}

// maxUnseen is how often a batch is tried again because a commit is stamped but not visible.
const maxUnseen = 500

// holder names this applier in the index.
func (a *Applier) holder() string {
	if a.retrying {
		return a.cfg.Origin + "/parked"
	}
	return a.cfg.Origin
}

// blind announces keys that may have no row here, before they are looked up.
func (a *Applier) blind(ctx context.Context, rel wal.RelationName, keys []string) (an announced, err error) {
	if len(keys) == 0 || a.cfg.Self {
		return an, nil
	}
	ok := false
	if a.cfg.Barrier != nil {
		an.at, ok = a.cfg.Index.Blind(a.holder(), a.conn.PgConn().PID(), rel, keys)
		if !ok && !a.barrier {
			return an, errBarrier
		}
	}
	if !ok {
		// Nothing is published from here, or nothing moves: nobody stamps.
		an.at, err = a.insertLSN(ctx)
		return an, err
	}
	// A commit may be in the WAL, and be stamped, before others see it: while it waits for its
	// disk or for a standby.
	now, err := tombstone.ReadSnapshot(ctx, a.conn)
	if err != nil {
		return an, err
	}
	an.unseen = a.cfg.Index.Unseen(now.InProgress)
	return an, nil
}

// seen gives back what needs no care after the look.
func (a *Applier) seen(ctx context.Context, g *batch.Group, runs []int, states []known, an announced) error {
	if an.at == 0 {
		return nil
	}
	for n, i := range runs {
		switch {
		case g.Runs[i].Op != wal.Delete:
		case states[n].row != nil:
			a.cfg.Index.Seen(a.holder(), g.Rel.Ref(), states[n].key)
		case an.unseen && a.unseen < maxUnseen:
			a.unseen++
			return errBarrier
		default:
			states[n].blind = an.at
		}
	}
	return nil
}

// insertLSN is the end of the local WAL.
func (a *Applier) insertLSN(ctx context.Context) (wal.LSN, error) {
	var s string
	if err := a.conn.QueryRow(ctx, `select pg_catalog.pg_current_wal_insert_lsn()::text`).Scan(&s); err != nil {
		return 0, fmt.Errorf("read local WAL position: %w", err)
	}
	return wal.ParseLSN(s)
}

// A row that is put where none was, and its own delete that was committed before but is not
// known yet: nothing in the server keeps the self-merge of the delete from writing its
// tombstone while the row is not visible. So who put the row asks at the very end whether an
// own change became known meanwhile, and the self-merge begins only when the commits that were
// sent by then have ended.

// undisturbed announces the commit and makes sure that no own change of a row that was put
// here became known since the look.
func (a *Applier) undisturbed(fx *effects) error {
	if a.cfg.Self || a.cfg.Barrier == nil {
		return nil
	}
	a.cfg.Index.Committing(a.holder())
	for _, h := range a.openPut {
		if a.cfg.Index.NotedHash(h) {
			return errRace
		}
	}
	for _, p := range fx.put {
		if rel := p.g.Rel.Ref(); a.cfg.Index.Any(rel) && a.cfg.Index.Noted(rel, p.g.KeyText(&p.g.Runs[p.i])) {
			return errRace
		}
	}
	return nil
}

// awaitCommits waits, outside of a transaction, for the commits of other appliers that were sent
// by now.
func (a *Applier) awaitCommits(ctx context.Context) error {
	if !a.cfg.Self {
		return nil
	}
	sent := a.cfg.Index.Commits()
	for {
		changed := a.cfg.Index.Changed()
		if a.cfg.Index.Ended(sent, a.holder()) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
