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
		an.at, ok = a.cfg.Index.Blind(a.holder(), rel, keys)
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
