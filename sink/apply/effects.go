package apply

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// effects is what an apply transaction writes beside the rows: entries (tombstones, and what
// is kept of living rows), audit rows. It goes out in one pipeline with the commit.
type effects struct {
	entries []entryRow
	items   []OwnItem // self-merge: of changes whose entry was superseded
	blind   bool      // an entry was written where no row could be locked
	put     []putRow  // rows that were put where none was, and no own change was known
	audit   []audit.Record
	logged  audit.Tally // audit rows that were written, to be counted after the commit
	tell    told        // for the other regions
	size    int         // of the audit records, about
	unpark  []int64
	denied  []int64 // parked own changes that the origin at hand does not hold
	parked  int64   // changes set aside
	ended   int64   // changes whose waiting was ended in the tables already, to be counted after the commit
	rows    uint64
	due     []wal.RelationName       // tables that are to be copied, see Copies
	removed map[*target]*batch.Group // deletes that were carried out, where rows may reference the deleted
}

// entryRow is an entry to be written.
type entryRow struct {
	tombstone.Ref
	name          wal.RelationName // of the table; Ref names its ledger
	conflict.Item                  // LSN 0: the position of this transaction
	version       int64
	updatedAt     wal.Micros
	plain         bool
	wrote         bool // own changes: the row was changed here, now
}

// putRow is a run of a group.
type putRow struct {
	g       *batch.Group
	i       int
	entry   bool // an entry of the key was found, and locked
	suspect bool // see openPut
	wrote   bool // an entry of the key is written with the row, and meets whatever is there
	noted   bool // see openPut
}

// add merges what a nested attempt gathered.
func (fx *effects) add(o effects) {
	fx.entries = append(fx.entries, o.entries...)
	fx.items = append(fx.items, o.items...)
	fx.blind = fx.blind || o.blind
	fx.put = append(fx.put, o.put...)
	fx.audit = append(fx.audit, o.audit...)
	fx.logged.Add(o.logged)
	fx.tell.add(o.tell)
	fx.size += o.size
	fx.unpark = append(fx.unpark, o.unpark...)
	fx.denied = append(fx.denied, o.denied...)
	fx.parked += o.parked
	fx.ended += o.ended
	fx.rows += o.rows
	fx.copies(o.due...)
	fx.addRemoved(o.removed, 0)
}

// copies notes that tables are to be copied.
func (fx *effects) copies(tables ...wal.RelationName) {
	for _, n := range tables {
		if !slices.Contains(fx.due, n) {
			fx.due = append(fx.due, n)
		}
	}
}

// note turns one decision into its side effects.
func (a *Applier) note(ctx context.Context, g *batch.Group, t *target, v *verdict, fx *effects) error {
	r, name := &g.Runs[v.i], g.Rel.Ref()
	if v.Verdict == conflict.Apply {
		fx.rows++
	}
	if v.Verdict == conflict.Apply || v.Verdict == conflict.Same {
		before := len(fx.entries)
		a.entry(g, t, v, fx)
		if came := a.cameAs[r.Tx]; came != nil && len(fx.entries) > before {
			if err := a.noteCame(ctx, came, fx.entries[before], fx); err != nil {
				return err
			}
		}
	}
	if v.moved {
		if err := a.noteMoved(ctx, g, t, v, fx); err != nil {
			return err
		}
	}
	if err := a.decided(ctx, g, t, v, fx); err != nil {
		return err
	}
	// A repair is of an entry that comes, or came, by itself.
	if v.Verdict != conflict.Keep && g.Kind != conflict.Repair && a.cfg.Policy.table(name).Resolve.Skewed(r.Stamp, r.Tx.CommitTime) {
		fx.audit = append(fx.audit, a.skewRecord(g, r, v.known.key, v.event.Side()))
	}
	return nil
}

// entry notes the entry that stands for what was decided, where the row does not say it alone.
func (a *Applier) entry(g *batch.Group, t *target, v *verdict, fx *effects) {
	r, old := &g.Runs[v.i], v.known.entry
	alive := r.Op != wal.Delete
	e := entryRow{Ref: tombstone.Ref{Relation: a.ledger(g.Rel), Key: v.known.key}, name: g.Rel.Ref(), version: wal.NullVersion, updatedAt: wal.MinMicros}
	e.Next, e.Live = conflict.NextGeneration(r.Stamp, alive), alive
	if !alive {
		e.version, e.updatedAt = r.Stamp.Version, r.Stamp.UpdatedAt
	}
	if t.stampless() {
		e.updatedAt, e.At = r.Stamp.UpdatedAt, r.Stamp.UpdatedAt
	}
	// What is written now, and not by a row's own transaction long ago.
	e.wrote = v.Verdict == conflict.Apply && (alive || v.known.row != nil)
	switch {
	case alive && r.Stamp.Generation == 0 && !t.stampless() && (old == nil || (old.Live && old.Next == 0)):
		return // the row says it all
	case alive && old == nil && (v.known.row == nil || v.Verdict == conflict.Same) && t.stampless() && a.saysNothing(r.Stamp):
		return
	case !a.cfg.Self && old != nil && v.Verdict == conflict.Same && old.Live == alive && old.Next == e.Next && (!t.stampless() || old.At >= e.At):
		return // it stands there
	}
	if a.cfg.Self {
		e.LSN = r.Tx.CommitLSN
		e.plain = alive && (!t.stampless() || r.Stamp.UpdatedAt == r.Tx.CommitTime)
	} else if !alive && v.known.row == nil {
		e.LSN = v.known.blind
		fx.blind = true
	}
	fx.entries = append(fx.entries, e)
}

// saysNothing reports whether a row of a table without stamp columns, which is put where none
// was, needs no entry: it is as old as a row of which nothing is known. Where the server keeps
// commit times, it has to tell applied rows from others, which it does by their origin.
func (a *Applier) saysNothing(s wal.Stamp) bool {
	return s.Generation == 0 && s.UpdatedAt == wal.MinMicros && !a.cfg.Self && (!a.cfg.Tracked.On || a.cfg.Marker == nil)
}

// fastDone notes what the fast path did.
func (a *Applier) fastDone(st fastStmt, i int, fx *effects) {
	r := &st.group.Runs[i]
	fx.rows++
	if st.op == wal.Insert {
		wrote := st.t.stampless() && !a.saysNothing(r.Stamp)
		fx.put = append(fx.put, putRow{g: st.group, i: i, wrote: wrote})
		if wrote {
			at := r.Stamp.UpdatedAt
			fx.entries = append(fx.entries, entryRow{
				Ref: tombstone.Ref{Relation: a.ledger(st.group.Rel), Key: st.group.KeyText(r)}, name: st.group.Rel.Ref(),
				Item: conflict.Item{Next: conflict.NextGeneration(r.Stamp, true), Live: true, At: at}, version: wal.NullVersion, updatedAt: at,
			})
		}
	}
	if st.op == wal.Delete {
		a.removes(st.group, st.t, i, fx)
		fx.entries = append(fx.entries, entryRow{
			Ref: tombstone.Ref{Relation: a.ledger(st.group.Rel), Key: st.group.KeyText(r)}, name: st.group.Rel.Ref(),
			Item: conflict.Item{Next: conflict.NextGeneration(r.Stamp, false)}, version: r.Stamp.Version, updatedAt: r.Stamp.UpdatedAt,
		})
	}
}

// hold makes the items known to the publisher. It must happen before the commit: a local
// change of the same key may follow at once. at is the position of this transaction.
func (a *Applier) hold(fx *effects, at wal.LSN) {
	for i := range fx.entries {
		e := &fx.entries[i]
		if len(a.openPut) > 0 {
			delete(a.openPut, a.cfg.Index.Hash(e.Relation, e.Key)) // an entry meets whatever is there
		}
		switch {
		case !a.cfg.Self && e.LSN != 0:
			a.cfg.Index.Hold(a.holder(), e.Relation, e.Key, e.Item)
		case !a.cfg.Self:
			e.LSN = at
			a.cfg.Index.Suspect(a.holder(), e.Relation, e.Key, e.Item)
		case e.wrote:
			// The row is another one from now on.
			now := conflict.Item{LSN: at, Next: e.Next, Live: e.Live, At: e.At}
			fx.items = append(fx.items, OwnItem{Ref: e.Ref, Item: now})
			a.cfg.Index.Suspect(a.holder(), e.Relation, e.Key, now)
		}
	}
	if !a.cfg.Self {
		return
	}
	// What an own change says of its position is so, whatever becomes of this transaction.
	for i := range fx.entries {
		a.cfg.Index.Put(fx.entries[i].Relation, []byte(fx.entries[i].Key), fx.entries[i].Item)
	}
	for i := range fx.items {
		if fx.items[i].LSN != at {
			a.cfg.Index.Put(fx.items[i].Relation, []byte(fx.items[i].Key), fx.items[i].Item)
		}
	}
}

// needsPosition reports whether something is written that gets the position of this
// transaction.
func (fx *effects) needsPosition(self bool) bool {
	for i := range fx.entries {
		if e := &fx.entries[i]; (!self && e.LSN == 0) || (self && e.wrote) {
			return true
		}
	}
	return false
}

// sendBytes is from which size on statements go to the server at once: what is gathered is copied
// once more on its way.
const sendBytes = 4 << 20

// write writes the side effects. Large ones go one by one.
func (fx *effects) write(ctx context.Context, a *Applier) error {
	b, size := &pgx.Batch{}, 0
	send := func(limit int) error {
		if b.Len() == 0 || size < limit {
			return nil
		}
		err := a.conn.SendBatch(ctx, b).Close()
		b, size = &pgx.Batch{}, 0
		return err
	}
	fx.queueEntries(b, a.cfg.Origin, a.cfg.Policy)
	fx.queueItems(b)
	for len(fx.audit) > 0 {
		n := 0
		for n < len(fx.audit) && size < sendBytes {
			size += len(fx.audit[n].LocalRow) + len(fx.audit[n].RemoteRow)
			n++
		}
		a.encoding.records(fx.audit[:n])
		b.Queue(audit.InsertSQL, audit.InsertArgs(fx.audit[:n])...).Query(fx.logged.Read)
		if err := send(sendBytes); err != nil {
			return err
		}
		clear(fx.audit[:n])
		fx.audit = fx.audit[n:]
	}
	if len(fx.unpark) > 0 {
		b.Queue(parked.DeleteSQL, fx.unpark)
	}
	if len(fx.denied) > 0 {
		b.Queue(parked.DenySQL, fx.denied, a.cfg.Origin)
	}
	err := fx.tell.each(a.cfg.Token, wal.MicrosOf(time.Now()), a.ours(), func(message []byte) error {
		b.Queue(tellSQL, message)
		size += len(message)
		return send(sendBytes)
	})
	if err != nil {
		return err
	}
	return send(0)
}

// queueEntries writes the entries. One key may have died and risen within the batch: the last
// word counts.
func (fx *effects) queueEntries(b *pgx.Batch, origin string, policy Policy) {
	n := len(fx.entries)
	if n == 0 {
		return
	}
	rels, keys, nexts, vers, ats := columnsOf(n)
	live, plain, lsns := make([]bool, 0, n), make([]bool, 0, n), make([]string, 0, n)
	byTime := map[string]struct{}{}
	last := make(map[tombstone.Ref]struct{}, n)
	lifted := map[tombstone.Ref]struct{}{} // an earlier change of the batch has its time from what stands there
	for i := range fx.items {
		if !fx.items[i].plain {
			lifted[fx.items[i].Ref] = struct{}{}
		}
	}
	for i := n - 1; i >= 0; i-- {
		e := &fx.entries[i]
		if _, ok := last[e.Ref]; ok {
			continue
		}
		last[e.Ref] = struct{}{}
		if _, ok := lifted[e.Ref]; ok {
			e.plain = false
		}
		rel := tombstone.RelationText(e.Relation)
		if !e.Live && policy.table(e.name).Resolve.Order == conflict.TimeFirst {
			byTime[rel] = struct{}{}
		}
		rels, keys = append(rels, rel), append(keys, e.Key)
		nexts, vers, ats = append(nexts, int64(e.Next)), append(vers, e.version), append(ats, int64(e.updatedAt))
		live, plain, lsns = append(live, e.Live), append(plain, e.plain), append(lsns, e.LSN.String())
	}
	b.Queue(tombstone.WriteSQL, rels, keys, nexts, vers, ats, live, lsns, plain, origin, slices.Sorted(maps.Keys(byTime))).QueryRow(func(row pgx.Row) error {
		var raced int
		if err := row.Scan(&raced); err != nil {
			return err
		}
		if raced != 0 {
			return errRace
		}
		return nil
	})
}

// queueItems writes the items that no entry stands for.
func (fx *effects) queueItems(b *pgx.Batch) {
	if len(fx.items) == 0 {
		return
	}
	type position struct {
		tombstone.Ref
		wal.LSN
	}
	written := make(map[position]struct{}, len(fx.entries))
	last := make(map[tombstone.Ref]struct{}, len(fx.entries))
	for i := len(fx.entries) - 1; i >= 0; i-- {
		e := &fx.entries[i]
		if _, ok := last[e.Ref]; !ok {
			last[e.Ref] = struct{}{}
			written[position{e.Ref, e.LSN}] = struct{}{}
		}
	}
	n := len(fx.items)
	rels, keys, nexts, _, ats := columnsOf(n)
	lsns, live := make([]string, 0, n), make([]bool, 0, n)
	for i := range fx.items {
		it := &fx.items[i]
		p := position{it.Ref, it.LSN}
		if _, ok := written[p]; ok {
			continue
		}
		written[p] = struct{}{}
		rels, keys, lsns = append(rels, tombstone.RelationText(it.Relation)), append(keys, it.Key), append(lsns, it.LSN.String())
		nexts, ats, live = append(nexts, int64(it.Next)), append(ats, int64(it.At)), append(live, it.Live)
	}
	if len(rels) > 0 {
		b.Queue(tombstone.KeepSQL, rels, keys, lsns, nexts, ats, live)
	}
}

func columnsOf(n int) (rels, keys []string, gens, vers, ats []int64) {
	return make([]string, 0, n), make([]string, 0, n), make([]int64, 0, n), make([]int64, 0, n), make([]int64, 0, n)
}
