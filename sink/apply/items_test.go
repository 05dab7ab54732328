package apply

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// life is what a key goes through, and what each own change of it was stamped from at first.
type life struct {
	rng     *rand.Rand
	rel     *wal.Relation
	key     string
	items   []conflict.Item // all of them, in order of position
	own     []*wal.Transaction
	merged  int // of own
	alive   bool
	deleted bool    // once: what follows lives in one generation, mostly
	applied wal.LSN // of the newest applied entry
	lsn     wal.LSN
	story   []string
}

func (l *life) join(at wal.LSN) conflict.Item {
	j := conflict.Item{}
	for _, it := range l.items {
		if it.LSN < at {
			j = j.Join(it)
		}
	}
	return j
}

func (l *life) say(format string, args ...any) {
	l.story = append(l.story, fmt.Sprintf(format, args...))
}

// commit is a time of which some applied ones are ahead.
func commit(at wal.LSN) wal.Micros { return wal.Micros(at) * 10 }

// change is an own transaction of up to two changes of the key.
func (l *life) change(less bool) {
	l.lsn += 10
	tx := &wal.Transaction{XID: wal.XID(l.lsn), CommitLSN: l.lsn, EndLSN: l.lsn + 5, CommitTime: commit(l.lsn)}
	j, item := l.join(l.lsn), conflict.Item{LSN: l.lsn}
	over, gen := j.Over()
	for n := range 1 + l.rng.IntN(2) {
		ch := wal.Change{Op: wal.Update, Relation: l.rel, New: text(l.key, "v")}
		switch {
		case !l.alive && n == 0:
			ch.Op, gen = wal.Insert, j.Born()
		case !l.alive:
			ch.Op = wal.Insert
		case l.rng.IntN(2) == 0 && !l.deleted:
			ch.Op, ch.Old, l.deleted = wal.Delete, ch.New, true
		}
		l.alive = ch.Op != wal.Delete
		if ch.Op == wal.Update && !less && l.rng.IntN(6) == 0 {
			gen++ // it does not rise
		}
		at := tx.CommitTime
		if less {
			at = j.Time(tx.CommitTime, n)
		}
		ch.Stamp = wal.Stamp{Generation: gen, Version: wal.NullVersion, UpdatedAt: at}
		tx.Changes = append(tx.Changes, ch)
		gen = conflict.NextGeneration(ch.Stamp, l.alive)
		it := conflict.Item{LSN: l.lsn, Next: gen, Live: l.alive}
		if less {
			it.At = at
		}
		item = item.Join(it)
		l.say("own %s at %d in %d over %d, %d", ch.Op, l.lsn, ch.Stamp.Generation, over, at)
	}
	l.own, l.items = append(l.own, tx), append(l.items, item)
}

// foreign is an entry of another region's change.
func (l *life) foreign(less bool) entryRow {
	l.lsn += 10
	e := entryRow{Ref: tombstone.Ref{Relation: l.rel.Ref(), Key: `["` + l.key + `"]`}, version: wal.NullVersion, updatedAt: wal.MinMicros}
	j := l.join(l.lsn + 1)
	e.LSN, e.Next, e.Live = l.lsn, uint32(l.rng.IntN(int(j.Next)+2)), l.rng.IntN(3) > 0
	if !e.Live && e.Next == 0 {
		e.Next = 1
	}
	if less {
		e.At = commit(l.lsn) + wal.Micros(l.rng.IntN(300)-100)
		e.updatedAt = e.At
	}
	l.alive, l.applied = e.Live, l.lsn
	l.items = append(l.items, e.Item)
	l.say("applied at %d: next %d live %t, %d", e.LSN, e.Next, e.Live, e.At)
	return e
}

// merge is what the self-merge writes of some own transactions.
func (l *life) merge(p Policy, x *tombstone.Index) effects {
	n := l.merged + 1 + l.rng.IntN(len(l.own)-l.merged)
	txs := l.own[l.merged:n]
	l.merged = n
	fx := effects{items: OwnItems(p, x, txs)}
	for i := range fx.items {
		x.Put(fx.items[i].Relation, []byte(fx.items[i].Key), fx.items[i].Item)
	}
	last := txs[len(txs)-1]
	l.say("merged up to %d", last.CommitLSN)
	if last.CommitLSN < l.applied || n < len(l.own) {
		return fx // something else is there by now
	}
	ch := &last.Changes[len(last.Changes)-1]
	if !NeedsSelfMerge(p, last, ch) || Plain(p, last, ch) && !x.May(l.rel.Ref(), []byte(`["`+l.key+`"]`)) {
		return fx
	}
	e := entryRow{Ref: tombstone.Ref{Relation: l.rel.Ref(), Key: `["` + l.key + `"]`}, version: ch.Stamp.Version, updatedAt: ch.Stamp.UpdatedAt}
	e.Item, e.plain = ownItem(p, tombstone.NewIndex(0), last, ch).Item, plain(p, last, ch)
	fx.entries = append(fx.entries, e)
	return fx
}

// TestItemsThatAreLeftOut: what the tables hold of a key, beside the own changes that are not merged yet, gives
// every own change what it was stamped from at first, whatever was left out as saying nothing new.
func TestItemsThatAreLeftOut(t *testing.T) {
	t.Parallel()
	b := newBench(t, plainDDL+"; "+acctDDL)
	rng := rand.New(rand.NewPCG(11, 11))
	for n := range 400 {
		l := &life{rng: rng, rel: plainTable(), key: fmt.Sprint(n)}
		less := n%2 == 0
		if !less {
			l.rel = acct()
			l.rel.Columns[2].Name, l.rel.Columns[3].Name = "version", "updated_at"
		}
		x := tombstone.NewIndex(0)
		for range 8 + rng.IntN(10) {
			fx := effects{}
			switch k := rng.IntN(8); {
			case k < 4:
				l.change(less)
			case k < 7:
				fx.entries = append(fx.entries, l.foreign(less))
				x.Put(l.rel.Ref(), []byte(`["`+l.key+`"]`), fx.entries[0].Item)
			case l.merged < len(l.own):
				fx = l.merge(b.a.cfg.Policy, x)
			}
			batch := &pgx.Batch{}
			fx.queueEntries(batch, "a", PolicyFunc(func(wal.RelationName) TablePolicy { return TablePolicy{} }))
			fx.queueItems(batch)
			if batch.Len() > 0 {
				if err := b.conn.SendBatch(t.Context(), batch).Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
		for i, tx := range l.own {
			at := tx.CommitLSN
			found, err := tombstone.Lookup(t.Context(), b.conn, at, []tombstone.Ref{{Relation: l.rel.Ref(), Key: `["` + l.key + `"]`}})
			if err != nil {
				t.Fatal(err)
			}
			now, was := found[0], l.join(at)
			for _, it := range l.items {
				for _, own := range l.own[l.merged:max(l.merged, i)] {
					if it.LSN == own.CommitLSN {
						now = now.Join(it)
					}
				}
			}
			row, gen := now.Over()
			wasRow, wasGen := was.Over()
			if tx.Changes[0].Op == wal.Insert {
				row, gen, wasRow, wasGen = 0, now.Born(), 0, was.Born()
			}
			if row != wasRow || gen != wasGen || less && now.Time(tx.CommitTime, 0) != was.Time(tx.CommitTime, 0) {
				t.Fatalf("the change at %d is stamped from %+v, was from %+v, table %s:\n%s", at, now, was, l.rel.Name, fmt.Sprint(l.story))
			}
		}
	}
}

// TestItemsBeneathALiftedChange: of two own changes that are merged together the first one has its time from what
// another region wrote before it, so that is kept, though the second has a time of its own.
func TestItemsBeneathALiftedChange(t *testing.T) {
	t.Parallel()
	b := newBench(t, plainDDL)
	l := &life{rel: plainTable(), key: "1"}
	ref := tombstone.Ref{Relation: l.rel.Ref(), Key: `["1"]`}
	write := func(fx effects) {
		batch := &pgx.Batch{}
		fx.queueEntries(batch, "a", PolicyFunc(func(wal.RelationName) TablePolicy { return TablePolicy{} }))
		fx.queueItems(batch)
		if err := b.conn.SendBatch(t.Context(), batch).Close(); err != nil {
			t.Fatal(err)
		}
	}
	x := tombstone.NewIndex(0)
	ahead := entryRow{Ref: ref, Item: conflict.Item{LSN: 10, Live: true, At: 500}, updatedAt: 500}
	x.Put(ref.Relation, []byte(ref.Key), ahead.Item)
	write(effects{entries: []entryRow{ahead}})
	for _, c := range []struct {
		at   wal.LSN
		time wal.Micros
	}{{20, 501}, {90, 900}} {
		l.own = append(l.own, &wal.Transaction{XID: wal.XID(c.at), CommitLSN: c.at, CommitTime: commit(c.at), Changes: []wal.Change{{
			Op: wal.Update, Relation: l.rel, New: text("1", "v"), Stamp: wal.Stamp{Version: wal.NullVersion, UpdatedAt: c.time}}}})
	}
	l.rng, l.lsn = rand.New(rand.NewPCG(1, 1)), 90
	for l.merged < 2 {
		l.merged = 0
		if fx := l.merge(b.a.cfg.Policy, x); l.merged == 2 {
			write(fx)
		}
	}
	found, err := tombstone.Lookup(t.Context(), b.conn, 20, []tombstone.Ref{ref})
	if err != nil || found[0].At != 500 {
		t.Errorf("the first one is stamped from %+v (%v)", found[0], err)
	}
}
