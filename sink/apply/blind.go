package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

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
		// Nothing is published from here, or nothing moves.
		if an.at, err = a.insertLSN(ctx); err != nil {
			return an, err
		}
		a.cfg.Index.BlindAt(a.holder(), a.conn.PgConn().PID(), rel, keys, an.at)
	}
	waiting, cancel := context.WithTimeoutCause(ctx, commitsIn, errRace)
	defer cancel()
	if err := a.awaitCommits(waiting); err != nil {
		return an, err
	}
	if !ok {
		return an, nil
	}
	an.unseen, err = a.unseenCommits(ctx)
	return an, err
}

// unseenCommits reports whether an own transaction is stamped that a look from now on may not show.
// A commit may be in the WAL, and be stamped, before others see it: while it waits for its disk or
// for a standby.
func (a *Applier) unseenCommits(ctx context.Context) (bool, error) {
	now, err := tombstone.ReadSnapshot(ctx, a.conn)
	if err != nil {
		return false, err
	}
	return a.cfg.Index.Unseen(now.InProgress), nil
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
			a.cfg.Index.Seen(a.holder(), a.ledger(g.Rel), states[n].key)
		case an.unseen && a.unseen < maxUnseen:
			a.unseen++
			return errBarrier
		default:
			states[n].blind = an.at
		}
	}
	return nil
}

const insertSQL = `select pg_catalog.pg_current_wal_insert_lsn()::text`

// insertLSN is the end of the local WAL.
func (a *Applier) insertLSN(ctx context.Context) (wal.LSN, error) {
	var s string
	if err := a.conn.QueryRow(ctx, insertSQL).Scan(&s); err != nil {
		return 0, fmt.Errorf("read local WAL position: %w", err)
	}
	return wal.ParseLSN(s)
}

// readPosition queues the reading of the end of the WAL behind statements that write rows, for what is written beside them: it needs
// no round trip of its own then. Whatever is run afterwards may lock other rows, and makes it void. Where a trigger may drop
// what is prepared, the position is read by itself.
func (a *Applier) readPosition(ctx context.Context, b *pipeline, fx *effects) error {
	if b.n == 0 || a.cfg.Self || a.open || a.retrying || a.settings.on || !fx.needsPosition(false) {
		return nil
	}
	if err := a.exec(ctx, b, insertSQL, nil, []int16{0}); err != nil {
		return err
	}
	b.read(rowsInto(func(v [][]byte) {
		if at, err := wal.ParseLSN(string(v[0])); err == nil { // else it is read once more
			a.at = at
		}
	}, func(err error) error { return err }))
	return nil
}

// Nothing in the server keeps one transaction from putting a row where another one, which does not
// see it, writes the tombstone of the key. That may be the self-merge of an own delete that was
// committed before the row came and is not known yet, or the applier of a third region. So who
// put a row asks at the very end, after it has announced its commit, whether such a one has
// become known since the look; and who is about to write a tombstone blindly announces the key,
// and looks only when the commits that were announced by then have ended. One of the two sees
// the other.

// openError says that another applier's transaction decides about the same key.
type openError struct {
	rel   wal.RelationName
	hash  uint64
	noted bool // see openPut
}

func (e *openError) Error() string {
	return "another transaction decides about a row of " + e.rel.String()
}

// Is makes errors.Is(err, errRace) true.
func (e *openError) Is(target error) bool { return target == errRace }

// openPut is a row that an earlier part of a giant transaction has put where none was.
type openPut struct {
	rel wal.RelationName
	// suspect: the index knew something of the key before the look, which found no entry. So it
	// cannot tell whether one has come since.
	suspect bool
	// noted: an own change of the key was known to wait for the self-merge, which puts right what was
	// decided without it. It has to see the row for that.
	noted bool
}

// meets says what a row meets that was put; noted as in openPut. It is an error where that is open, or the
// self-merge may not see a row that was put before an own change of its key was merged.
func (a *Applier) meets(rel wal.RelationName, hash uint64, noted bool) (entry bool, err error) {
	x := a.cfg.Index
	meeting := tombstone.Alone
	switch still := x.StillNoted(hash); {
	case !noted:
		meeting = x.MeetsHash(a.holder(), rel, hash)
	case still == tombstone.Alone:
		// The self-merge compares the row with its own change, and with nothing else.
		meeting = x.MeetsOthers(a.holder(), rel, hash)
	case still == tombstone.MeetsOpen:
		meeting = still
	case a.cfg.Barrier == nil:
		return false, errRace
	default:
		return false, errBarrier // no race: others may have been merged by the next try, too
	}
	switch meeting {
	case tombstone.MeetsOwn:
		return false, errRace
	case tombstone.MeetsOpen:
		return false, &openError{rel, hash, noted}
	}
	return meeting == tombstone.MeetsEntry, nil
}

// announceMerge announces the own changes that are about to be merged, and waits for the commits of
// appliers that are under way: one of the two sees the other.
func (a *Applier) announceMerge(ctx context.Context, txs []keyedTx) error {
	if n := len(txs); n > 0 {
		a.cfg.Index.Merging(txs[n-1].tx.CommitLSN + 1)
	}
	if !a.open {
		return a.awaitCommits(ctx)
	}
	waiting, cancel := context.WithTimeoutCause(ctx, openFor, errRace)
	defer cancel()
	return a.awaitCommits(waiting)
}

// undisturbed announces the commit and makes sure that no row that was put here meets something
// that became known since the look.
func (a *Applier) undisturbed(ctx context.Context, fx *effects) error {
	if a.cfg.Self {
		return nil
	}
	x := a.cfg.Index
	x.Committing(a.holder())
	var met error
	for h, p := range a.openPut {
		entry, err := a.meets(p.rel, h, p.noted)
		if err == nil && entry && !p.suspect {
			err = errRace
		}
		if err != nil {
			a.meet(h, err)
			met = err
		}
	}
	ask := map[wal.RelationName][]string{}
	for _, p := range fx.put {
		rel := a.ledger(p.g.Rel)
		if p.wrote || !x.Any(rel) {
			continue
		}
		key := p.g.KeyText(&p.g.Runs[p.i])
		entry, err := a.meets(rel, x.Hash(rel, key), p.noted)
		switch {
		case err != nil:
			a.meet(x.Hash(rel, key), err)
			met = err
		case entry && !p.entry:
			ask[rel] = append(ask[rel], key)
		}
	}
	if met != nil {
		if a.open {
			a.giant.contest.undone++
		}
		return met
	}
	for rel, keys := range ask {
		found, err := tombstone.Read(ctx, a.conn, rel, keys)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			return errRace
		}
	}
	return nil
}

// awaitCommits waits for the commits of other appliers that were announced by now.
func (a *Applier) awaitCommits(ctx context.Context) error {
	return a.await(ctx, func(sent map[string]uint64) bool { return a.cfg.Index.Ended(sent, a.holder()) })
}

// commitsIn is how long a look waits for commits of others that are under way: they wait for
// nothing but their disk, or for a few locks (applyAtOnce), one of which may be held by who looks.
const commitsIn = time.Second

// awaitOpen waits, outside of a transaction, until the one that decides about a key has ended. A giant one that
// moves is waited for as long as it takes.
func (a *Applier) awaitOpen(ctx context.Context, e *openError) error {
	ended := func(map[string]uint64) bool {
		if e.noted {
			return a.cfg.Index.StillNoted(e.hash) != tombstone.MeetsOpen && a.cfg.Index.MeetsOthers(a.holder(), e.rel, e.hash) != tombstone.MeetsOpen
		}
		return a.cfg.Index.MeetsHash(a.holder(), e.rel, e.hash) != tombstone.MeetsOpen
	}
	for {
		waiting, cancel := context.WithTimeoutCause(ctx, openFor, errRace)
		err := a.await(waiting, ended)
		cancel()
		if !errors.Is(err, errRace) || !a.cfg.Giants.others(a.cfg.Origin) && !ended(nil) {
			return err
		}
	}
}

// openFor is how long another applier's transaction is waited for before the batch is given up.
const openFor = 30 * time.Second

// await waits until ok holds of the commits that are under way now.
func (a *Applier) await(ctx context.Context, ok func(sent map[string]uint64) bool) error {
	sent := a.cfg.Index.Commits()
	for {
		changed := a.cfg.Index.Changed()
		if ok(sent) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
