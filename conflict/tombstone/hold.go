package tombstone

import (
	"math"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// stamped is how far this region's own WAL is known to this process.
type stamped struct {
	start   wal.LSN             // an earlier process may have stamped up to here
	done    wal.LSN             // every own change below is stamped
	session wal.LSN             // as done, by the session at hand, which may read again
	current wal.LSN             // commit of the transaction that is being stamped; 0: none
	merged  wal.LSN             // every own change below is merged
	recent  map[uint32]struct{} // stamped transactions that may not be visible yet
}

// hold is what the open transaction of one applier will have made known when it commits.
type hold struct {
	at    map[uint64]conflict.Item
	rels  map[uint64]wal.RelationName
	blind map[uint64]bool // looked up, not decided yet
	mixed map[uint64]bool // written twice, at different positions
	lost  uint32          // process of the session that did not answer the commit; 0: none
}

// maxRecent bounds the transactions that may not be visible yet.
const maxRecent = 1 << 16

// Start notes up to where an earlier process may have stamped local changes.
func (x *Index) Start(l wal.LSN) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.wal.start = max(x.wal.start, l)
}

// Open is told of an own transaction before its first change is stamped. It reports false when
// too many transactions were opened since the last call of Visible; call that first, then.
func (x *Index) Open(xid wal.XID, commit wal.LSN) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.wal.current = commit
	x.wal.recent[uint32(xid)] = struct{}{}
	return len(x.wal.recent) < maxRecent
}

// Stamped is told that every own change below a position is stamped. It never goes back while
// the WAL is the same: what is decoded again gets the same stamps.
func (x *Index) Stamped(l wal.LSN) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.wal.current < l {
		x.wal.current = 0
	}
	x.wal.done, x.wal.session = max(x.wal.done, l), l
	x.wake()
}

// Reading is told that the WAL is read again, by a new session.
func (x *Index) Reading() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.wal.session = 0
}

// Session is the position up to which the session at hand has stamped own changes.
func (x *Index) Session() wal.LSN {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.wal.session
}

// Done is the position up to which own changes are stamped.
func (x *Index) Done() wal.LSN {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.wal.done
}

// Caught reports whether this process has stamped everything that an earlier one may have.
func (x *Index) Caught() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.wal.done >= x.wal.start && x.wal.done > 0
}

// Visible takes the transactions that were in progress when a snapshot was taken, after the
// transactions opened so far were read from the WAL. Others are visible by now.
func (x *Index) Visible(inProgress []uint32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	left := map[uint32]struct{}{}
	for _, id := range inProgress {
		if _, ok := x.wal.recent[id]; ok {
			left[id] = struct{}{}
		}
	}
	x.wal.recent = left
}

// Unseen reports whether one of the transactions that a snapshot takes for in progress is
// stamped already, or is being stamped: the snapshot does not show what it wrote.
func (x *Index) Unseen(inProgress []uint32) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, id := range inProgress {
		if _, ok := x.wal.recent[id]; ok {
			return true
		}
	}
	return false
}

func (x *Index) hold(applier string) *hold {
	o := x.holds[applier]
	if o == nil {
		o = &hold{at: map[uint64]conflict.Item{}, rels: map[uint64]wal.RelationName{}, blind: map[uint64]bool{}, mixed: map[uint64]bool{}}
		x.holds[applier] = o
	}
	return o
}

func (x *Index) add(o *hold, rel wal.RelationName, h uint64, it conflict.Item) {
	if _, ok := o.at[h]; !ok {
		x.held[h] = append(x.held[h], o)
	}
	o.at[h] = it
	o.rels[h] = rel
	x.rels[rel] = struct{}{}
}

// Blind is called before keys are looked up whose rows may be missing, and returns the
// position of what the applier's transaction will write for them. Who stamps a later change of
// them waits until the transaction has ended, or Seen says that the row is there. It reports
// false when the local WAL is not yet read up to where an earlier process was.
func (x *Index) Blind(applier string, rel wal.RelationName, keys []string) (wal.LSN, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.wal.done < x.wal.start || x.wal.done == 0 {
		return 0, false
	}
	at := x.wal.done - 1
	if x.wal.current > at {
		at = x.wal.current + 1
	}
	o := x.hold(applier)
	for _, k := range keys {
		h := x.hash(rel, []byte(k))
		if _, ok := o.at[h]; ok {
			continue // an earlier change of the same transaction
		}
		x.add(o, rel, h, conflict.Item{LSN: at})
		o.blind[h] = true
	}
	return at, true
}

// Seen gives a key back that Blind took: its row is there and locked, or nothing is written.
func (x *Index) Seen(applier string, rel wal.RelationName, key string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	o, h := x.holds[applier], x.hash(rel, []byte(key))
	if o == nil || !o.blind[h] {
		return
	}
	delete(o.blind, h)
	x.release(o, h)
	x.wake()
}

func (x *Index) release(o *hold, h uint64) {
	delete(o.at, h)
	delete(o.rels, h)
	l := x.held[h]
	for i := range l {
		if l[i] == o {
			l = append(l[:i:i], l[i+1:]...)
			break
		}
	}
	if len(l) == 0 {
		delete(x.held, h)
	} else {
		x.held[h] = l
	}
}

// Hold makes an item known that the applier's open transaction has written, before it commits.
func (x *Index) Hold(applier string, rel wal.RelationName, key string, it conflict.Item) {
	x.mu.Lock()
	defer x.mu.Unlock()
	o, h := x.hold(applier), x.hash(rel, []byte(key))
	if old, ok := o.at[h]; ok && old.LSN != it.LSN && !o.blind[h] {
		o.mixed[h] = true
		it.LSN = min(it.LSN, old.LSN)
	}
	delete(o.blind, h)
	x.add(o, rel, h, it)
}

// Settle ends the applier's transaction: its items count if it was committed.
func (x *Index) Settle(applier string, committed bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	o := x.holds[applier]
	if o == nil {
		return
	}
	for h, it := range o.at {
		if committed && !o.blind[h] {
			x.put(o.rels[h], h, it)
			if o.mixed[h] {
				x.ask(h)
			}
		}
		x.release(o, h)
	}
	delete(x.holds, applier)
	x.wake()
}

// Doubt is told that part of what the applier's open transaction wrote was undone: when it has
// ended, the table is asked for all its keys.
func (x *Index) Doubt(applier string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if o := x.holds[applier]; o != nil {
		for h := range o.at {
			o.mixed[h] = true
		}
	}
}

// Lose notes that the applier's connection broke while its transaction was ending, in the given
// process of the server: who stamps waits until Found.
func (x *Index) Lose(applier string, pid uint32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if o := x.holds[applier]; o != nil {
		o.lost = pid
	}
}

// Lost is the process in which the applier's last transaction was ending, 0 when that is known.
func (x *Index) Lost(applier string) uint32 {
	x.mu.Lock()
	defer x.mu.Unlock()
	o := x.holds[applier]
	if o == nil {
		return 0
	}
	return o.lost
}

// Found ends a lost transaction, once it is certain that the server has ended it. Whether it
// was committed is read from the table when one of its keys comes up.
func (x *Index) Found(applier string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	o := x.holds[applier]
	if o == nil {
		return
	}
	for h := range o.at {
		x.ask(h)
		x.release(o, h)
	}
	delete(x.holds, applier)
	x.wake()
}

// ask makes the table be asked for a key, at any position.
func (x *Index) ask(h uint64) {
	k := x.keys[h]
	k.LSN, k.older = wal.LSN(math.MaxInt64), true
	x.keys[h] = k
}
