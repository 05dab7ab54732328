package tombstone

import (
	"math"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// hold is what the open transaction of one applier will have made known when it commits, for
// tombstones without a row. Rows need none: a local change of theirs waits for their lock, and
// the table is asked for them from before the commit on (Suspect).
type hold struct {
	pid    uint32 // the process of the server that it runs in
	at     map[uint64]held
	rows   map[uint64]held              // rows that it writes
	fences map[wal.RelationName]wal.LSN // of relations with too many keys: the lowest position
	lost   bool                         // nobody knows whether it was committed
	moves  uint64                       // counts what it has done
}

type held struct {
	conflict.Item
	rel    wal.RelationName
	blind  bool // looked up, not decided yet
	unsure bool // part of it was undone, or it was written twice: the table knows
}

// maxHeld is how many keys of one transaction are held one by one; never more than the index holds
// of all.
const maxHeld = 100_000

func (x *Index) maxHeld() int { return min(x.limits.Held, x.limit) }

func (x *Index) hold(applier string) *hold {
	o := x.holds[applier]
	if o == nil {
		o = &hold{at: map[uint64]held{}, rows: map[uint64]held{}, fences: map[wal.RelationName]wal.LSN{}}
		x.holds[applier] = o
	}
	return o
}

// Blind is called before keys are looked up whose rows may be missing, and returns the
// position of what the applier's transaction, in process pid of the server, will write for
// them. Who stamps a later change of them waits until the transaction has ended, or Seen says
// that the row is there. It reports false when the local WAL is not yet read up to where an
// earlier process, or session, was.
func (x *Index) Blind(applier string, pid uint32, rel wal.RelationName, keys []string) (wal.LSN, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.wal.done < x.wal.start || x.wal.done == 0 {
		return 0, false
	}
	at := x.wal.done - 1
	if x.wal.current > at {
		at = x.wal.current + 1
	}
	x.announce(applier, pid, rel, keys, at)
	return at, true
}

// BlindAt is Blind at a position of the caller, the end of the WAL: for a region that publishes
// nothing, or whose WAL is not read.
func (x *Index) BlindAt(applier string, pid uint32, rel wal.RelationName, keys []string, at wal.LSN) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.announce(applier, pid, rel, keys, at)
}

func (x *Index) announce(applier string, pid uint32, rel wal.RelationName, keys []string, at wal.LSN) {
	x.rels[rel] = struct{}{}
	o := x.hold(applier)
	o.pid = pid
	o.moves++
	for _, k := range keys {
		h := x.hash(rel, []byte(k))
		if _, ok := o.at[h]; ok {
			continue // an earlier change of the same transaction
		}
		if len(o.at) >= x.maxHeld() {
			if low, ok := o.fences[rel]; !ok || at < low {
				o.fences[rel] = at
			}
			continue
		}
		o.at[h] = held{Item: conflict.Item{LSN: at}, rel: rel, blind: true}
	}
}

// Seen gives a key back that Blind took: its row is there and locked, or nothing is written.
func (x *Index) Seen(applier string, rel wal.RelationName, key string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	o, h := x.holds[applier], x.hash(rel, []byte(key))
	if o != nil && o.at[h].blind {
		delete(o.at, h)
		x.wake()
	}
}

// Hold makes an item known that the applier's open transaction has written where no row is.
func (x *Index) Hold(applier string, rel wal.RelationName, key string, it conflict.Item) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.rels[rel] = struct{}{}
	o, h := x.hold(applier), x.hash(rel, []byte(key))
	old, ok := o.at[h]
	if !ok {
		x.suspect(h) // its relation has a fence
		return
	}
	if !old.blind && old.Item != it {
		it.LSN, old.unsure = min(it.LSN, old.LSN), true
	}
	o.at[h] = held{Item: it, rel: rel, unsure: old.unsure}
}

// Suspect makes the table be asked for a key from now on, at any position: a row of it is
// written by the applier's open transaction.
func (x *Index) Suspect(applier string, rel wal.RelationName, key string, it conflict.Item) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.rels[rel] = struct{}{}
	o, h := x.hold(applier), x.hash(rel, []byte(key))
	o.moves++
	if old, ok := o.at[h]; ok {
		old.unsure = true // written twice
		o.at[h] = old
	}
	k, ok := x.keys[h]
	_, again := o.rows[h]
	if again || len(o.rows) >= x.maxHeld() || (!ok && (x.filter != nil || len(x.keys) >= x.limit)) || x.next != nil {
		x.suspect(h)
		if !again && len(o.rows) < x.maxHeld() {
			o.rows[h] = held{Item: it, rel: rel, unsure: true} // Meets has to know whose entry it is
		}
		return
	}
	k.open++
	x.keys[h] = k
	o.rows[h] = held{Item: it, rel: rel}
}

// written ends what Suspect began.
func (x *Index) written(o *hold, committed bool) {
	for h, it := range o.rows {
		k, ok := x.keys[h]
		if !ok {
			continue // collected, or read anew
		}
		k.open = max(0, k.open-1)
		x.keys[h] = k
		switch {
		case committed && it.unsure:
			x.suspect(h)
		case committed:
			x.put(it.rel, h, it.Item)
		case k == known{}:
			delete(x.keys, h)
		}
	}
}

func (x *Index) suspect(h uint64) {
	if n := x.next; n != nil {
		n.filter = suspect(n.keys, n.filter, h, x.limit)
	}
	x.filter = suspect(x.keys, x.filter, h, x.limit)
}

// suspect marks a key in the map, or in the filter when there is no room.
func suspect(keys map[uint64]known, f *Filter, h uint64, limit int) *Filter {
	if k, ok := keys[h]; ok || (len(keys) < limit && f == nil) {
		k.LSN, k.older = wal.LSN(math.MaxInt64), true
		keys[h] = k
		return f
	}
	return join(keys, f, h, conflict.Item{}, limit)
}

// Settle ends the applier's transaction: its items count if it was committed.
func (x *Index) Settle(applier string, committed bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	o := x.holds[applier]
	delete(x.holds, applier)
	delete(x.committing, applier)
	if committed {
		x.settled[applier]++
	}
	if o != nil {
		x.written(o, committed)
	}
	if o != nil && committed {
		for h, it := range o.at {
			switch {
			case it.blind:
			case it.unsure:
				x.suspect(h)
			default:
				x.put(it.rel, h, it.Item)
			}
		}
	}
	x.wake()
}

// Doubt is told that part of what the applier's open transaction wrote was undone: when it has
// ended, the table is asked for all its keys.
func (x *Index) Doubt(applier string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	o := x.holds[applier]
	if o == nil {
		return
	}
	for _, m := range []map[uint64]held{o.at, o.rows} {
		for h, it := range m {
			it.unsure = true
			m[h] = it
		}
	}
}

// Lose notes that the applier's connection broke while its transaction was ending, in the given
// process of the server: who stamps waits until Found.
func (x *Index) Lose(applier string, pid uint32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	o := x.hold(applier)
	o.pid, o.lost = pid, true
}

// Lost is the process in which the applier's last transaction was ending, 0 when that is known.
func (x *Index) Lost(applier string) uint32 {
	x.mu.Lock()
	defer x.mu.Unlock()
	if o := x.holds[applier]; o != nil && o.lost {
		return o.pid
	}
	return 0
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
		x.suspect(h)
	}
	for h := range o.rows {
		x.suspect(h)
	}
	delete(x.holds, applier)
	delete(x.committing, applier)
	x.wake()
}

// Blocker is an applier whose open transaction keeps changes from being stamped.
type Blocker struct {
	Applier string
	PID     uint32 // its process of the server
	Moves   uint64 // another number than before: the transaction gets on
	Commits uint64 // the same number as before: it has committed nothing since
}

// Blockers are the appliers whose open transactions keep changes of the given keys at a position from being stamped.
func (x *Index) Blockers(at wal.LSN, refs []Ref) []Blocker {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []Blocker
	for name, o := range x.holds {
		for _, r := range refs {
			if o.blocks(x.hash(r.Relation, []byte(r.Key)), r.Relation, at) {
				out = append(out, Blocker{name, o.pid, o.moves, x.settled[name]})
				break
			}
		}
	}
	return out
}

// Moved is told that the applier's open transaction gets on.
func (x *Index) Moved(applier string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if o := x.holds[applier]; o != nil {
		o.moves++
	}
}

// Ending is told, before it happens, that this process ends a session of an applier for what it keeps from being
// stamped: no change in its hand is to blame.
func (x *Index) Ending(pid uint32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ending[pid] = true
}

// EndedHere reports whether the session of a server process was ended by this process, and forgets it.
func (x *Index) EndedHere(pid uint32) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	is := x.ending[pid]
	delete(x.ending, pid)
	return is
}

func (o *hold) blocks(h uint64, rel wal.RelationName, at wal.LSN) bool {
	if it, ok := o.at[h]; ok && it.LSN < at {
		return true
	}
	low, ok := o.fences[rel]
	return ok && low < at
}

// Committing is told that an applier's transaction is about to commit, before it asks Noted.
// Settle ends that.
func (x *Index) Committing(applier string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.commits++
	x.committing[applier] = x.commits
}

// Commits returns the commits that are under way; Ended reports whether all of them have ended.
func (x *Index) Commits() map[string]uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.committing) == 0 {
		return nil
	}
	out := make(map[string]uint64, len(x.committing))
	for a, n := range x.committing {
		out[a] = n
	}
	return out
}

// Ended reports whether none of the given commits of others is under way any more.
func (x *Index) Ended(commits map[string]uint64, self string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for a, n := range commits {
		if a != self && x.committing[a] == n {
			return false
		}
	}
	return true
}

// Meeting is what a row may meet that an applier has put where it found neither row nor entry.
type Meeting uint8

const (
	// Alone: nothing that the row has to do with.
	Alone Meeting = iota
	// MeetsEntry: an entry of the key may be in the table. Whoever looked without finding one
	// looks again.
	MeetsEntry
	// MeetsOpen: the open transaction of another applier has looked for the row to write a
	// tombstone, or writes an entry. Whether it saw the row nobody knows before it has ended.
	MeetsOpen
	// MeetsOwn: an own change of the key waits for the self-merge.
	MeetsOwn
)

// Meets says what a row may meet that an applier has put. It is asked at the very end, after
// Committing: what comes later sees that commit under way, and waits for it (Commits).
func (x *Index) Meets(applier string, rel wal.RelationName, key string) Meeting {
	return x.MeetsHash(applier, rel, x.Hash(rel, key))
}

// StillNoted is Meets for a row that was put although an own change of the key was known to wait for
// the self-merge (Noted). Alone: it still waits, and the self-merge will see the row. MeetsOpen: the
// self-merge is at it, and may not have seen the row. MeetsEntry: it was merged since.
func (x *Index) StillNoted(h uint64) Meeting {
	x.mu.Lock()
	defer x.mu.Unlock()
	o := x.own.keys[h]
	switch {
	case o == nil:
		return MeetsEntry
	case o.items[0].LSN < x.wal.merging:
		return MeetsOpen
	}
	return Alone
}

// MeetsHash is Meets for what Hash returned.
func (x *Index) MeetsHash(applier string, rel wal.RelationName, h uint64) Meeting {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.own.keys[h]; ok {
		return MeetsOwn
	}
	return x.meetsOthers(applier, rel, h)
}

// MeetsOthers is MeetsHash for a row that was put although an own change of the key was known to wait:
// what it may meet beside that.
func (x *Index) MeetsOthers(applier string, rel wal.RelationName, h uint64) Meeting {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.meetsOthers(applier, rel, h)
}

func (x *Index) meetsOthers(applier string, rel wal.RelationName, h uint64) Meeting {
	for name, o := range x.holds {
		_, writes := o.rows[h]
		if name != applier && (writes || o.blocks(h, rel, math.MaxInt64)) {
			return MeetsOpen
		}
	}
	if o := x.holds[applier]; o != nil {
		if _, ok := o.rows[h]; ok {
			return Alone // its entry goes with the row, and met whatever was there
		}
		if _, ok := o.at[h]; ok {
			return Alone
		}
	}
	if _, ok := x.keys[h]; ok || x.filter != nil && x.filter.Has(h) {
		return MeetsEntry
	}
	return Alone
}

// Noted reports whether an own change of the key waits for the self-merge.
func (x *Index) Noted(rel wal.RelationName, key string) bool {
	h := x.Hash(rel, key)
	x.mu.Lock()
	defer x.mu.Unlock()
	_, ok := x.own.keys[h]
	return ok
}

// Hash is a short name of a key within this process.
func (x *Index) Hash(rel wal.RelationName, key string) uint64 { return x.hash(rel, []byte(key)) }
