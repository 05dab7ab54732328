// Package batch reduces whole transactions of one origin to one net effect for each key. It is
// pure: the applier and the simulation run the same code.
package batch

import (
	"slices"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Batch gathers whole transactions of one origin and reduces them, for each table, to one
// net effect for each key. That is allowed because the events of one origin on one key come
// in order and each later one supersedes the earlier: the base of the run is the base of its
// first event, the stamp and the image are those of its last.
type Batch struct {
	Groups []*Group
	latest map[wal.RelationName]*Group
	own    map[wal.RelationName]map[string]runAt // the newest run of each key of an own change
	Rows   int
	Bytes  int
	Policy func(wal.RelationName) conflict.Policy // the order of stamps; nil is the default
	Lasts  Lasts                                  // where the batch is a piece of what is applied: of the whole
	expect map[*wal.Relation]int                  // changes of which no group was opened yet
}

// Group is the part of a batch that touches one table under one definition of it. A table
// that changes its definition within a batch has several groups, applied in order.
type Group struct {
	Rel    *wal.Relation
	Binary bool
	Kind   conflict.EventKind
	Key    []int
	index  map[string]int
	Runs   []Run
	keys   []wal.Value // room for the keys of runs
	policy conflict.Policy
	Exact  []Exact // tables without a key: every change, in order
	trunc  int     // truncates seen (never applied)
	Truncs []*wal.Transaction
}

// Run is the net effect of a batch on one key.
type Run struct {
	Op    wal.Op // Insert, Update or Delete: what the run amounts to
	Born  bool   // the first event was an insert
	Base  wal.Base
	Stamp wal.Stamp
	Image wal.Tuple // the row after the run; for deletes the old image or key
	Full  bool      // deletes: image is the whole row
	Key   []wal.Value
	Text  string // the canonical text of the key
	Tx    *wal.Transaction
	// Followed: another run of the key, or a truncate of its row, comes later in the batch, or another run in the whole that it is a piece
	// of. Own changes only.
	Followed bool
	Cut      bool // a truncate of its row comes later in the batch, and another run of the key does not. Own changes only.
	Answer   bool // repairs: one of them answers a question
	Asked    wal.Stamp
	still    bool
}

// runAt is a run of a group.
type runAt struct {
	group *Group
	run   int
}

// Exact is one change of a table without a key.
type Exact struct {
	Change *wal.Change
	Tx     *wal.Transaction
	Place  int // of the change in its transaction, or part of one
}

func New() *Batch {
	return &Batch{latest: map[wal.RelationName]*Group{}}
}

func (b *Batch) Reset() {
	b.Groups = b.Groups[:0]
	clear(b.latest)
	clear(b.own)
	clear(b.expect)
	b.Rows, b.Bytes = 0, 0
}

// Expect makes place for the changes of a transaction that is added later. Only what it costs depends on it.
func (b *Batch) Expect(tx *wal.Transaction) {
	if b.expect == nil {
		b.expect = map[*wal.Relation]int{}
	}
	var rel *wal.Relation
	n := 0
	for i := range tx.Changes {
		if r := tx.Changes[i].Relation; r != rel {
			if n > 0 {
				b.expect[rel] += n
			}
			rel, n = r, 0
		}
		n++
	}
	if n > 0 {
		b.expect[rel] += n
	}
}

// Add takes in one transaction, or part of one. The batch keeps references into it. A repair
// is merged as such, whatever the kind of its packet. Notices are no part of a batch: they
// change no entry.
func (b *Batch) Add(tx *wal.Transaction, kind conflict.EventKind) { b.AddPicked(tx, kind, nil) }

// AddPicked is Add for a transaction that holds some changes of another one: places are their
// places there; nil means all of them.
func (b *Batch) AddPicked(tx *wal.Transaction, kind conflict.EventKind, places []int) {
	for i := range tx.Changes {
		ch, kind := &tx.Changes[i], kind
		if ch.Repair {
			kind = conflict.Repair
		}
		g := b.group(ch, kind, false)
		b.Rows++
		b.Bytes += ch.New.Size() + ch.Old.Size()
		switch {
		case ch.Op == wal.Truncate:
			g.trunc++
			g.Truncs = append(g.Truncs, tx)
			b.cut(ch, kind)
		case g.Key == nil:
			g.Exact = append(g.Exact, Exact{ch, tx, placeOf(tx, i, places).n})
		case !g.add(ch, tx):
			// The two are merged one after the other.
			g = b.group(ch, kind, true)
			g.add(ch, tx)
			b.follow(g, ch, placeOf(tx, i, places))
		default:
			b.follow(g, ch, placeOf(tx, i, places))
		}
	}
}

// place is that of a change in the WAL.
type place struct {
	commit wal.LSN
	part   uint32
	n      int
}

func placeOf(tx *wal.Transaction, i int, places []int) place {
	if places != nil {
		i = places[i]
	}
	return place{tx.CommitLSN, tx.Part, i}
}

// Lasts are the places of the last own change of each key in some transactions, or of the truncate that has removed the row which that
// wrote. Who applies them piece by piece has to know: of own changes only the last one is in the table, and nothing that stands in front of a truncate.
type Lasts map[wal.RelationName]map[string]place

// LastsOf finds them. What keys the server alone can tell has to be asked before.
func LastsOf(txs []*wal.Transaction) Lasts {
	out := Lasts{}
	rows := map[tableID]map[string]struct{}{} // those that live
	for _, tx := range txs {
		for i := range tx.Changes {
			ch := &tx.Changes[i]
			if ch.Repair || ch.Relation.KeyColumns() == nil {
				continue
			}
			table, name := tableOf(ch.Relation), ch.Relation.Ref()
			if ch.Op == wal.Truncate {
				for of, keys := range rows {
					if !of.is(table) {
						continue
					}
					for key := range keys {
						out[of.name][key] = placeOf(tx, i, nil)
					}
					delete(rows, of)
				}
				continue
			}
			key := string(ch.AppendKey(nil))
			if out[name] == nil {
				out[name] = map[string]place{}
			}
			out[name][key] = placeOf(tx, i, nil)
			if ch.Op == wal.Delete {
				delete(rows[table], key)
				continue
			}
			if rows[table] == nil {
				rows[table] = map[string]struct{}{}
			}
			rows[table][key] = struct{}{}
		}
	}
	return out
}

// tableID is a table of this region: its number, 0 where that is not known, and what it was called.
type tableID struct {
	oid  uint32
	name wal.RelationName
}

func tableOf(rel *wal.Relation) tableID {
	id := tableID{name: rel.Ref()}
	if len(rel.Columns) > 0 && rel.Numbered() {
		id.oid = wal.TableOf(rel.Columns[0].ID)
	}
	return id
}

// is reports whether two are one table, whatever that was called where its number is known.
func (t tableID) is(o tableID) bool {
	if t.oid != 0 && o.oid != 0 {
		return t.oid == o.oid
	}
	return t.name == o.name
}

// cut notes that a truncate of this region has removed the rows that the own changes in front of it wrote, also where the table was
// called otherwise then. A delete has still something to say.
func (b *Batch) cut(ch *wal.Change, kind conflict.EventKind) {
	if kind != conflict.Self {
		return
	}
	table := tableOf(ch.Relation)
	for _, runs := range b.own {
		var last *wal.Relation
		same := false
		for _, at := range runs {
			if at.group.Rel != last {
				last, same = at.group.Rel, tableOf(at.group.Rel).is(table)
			}
			if r := &at.group.Runs[at.run]; same && r.Op != wal.Delete {
				r.Followed, r.Cut = true, true
			}
		}
	}
}

// follow notes that the run of an own change comes behind an earlier one of its key.
func (b *Batch) follow(g *Group, ch *wal.Change, at place) {
	if g.Kind != conflict.Self {
		return
	}
	if b.own == nil {
		b.own = map[wal.RelationName]map[string]runAt{}
	}
	name := g.Rel.Ref()
	if b.own[name] == nil {
		b.own[name] = map[string]runAt{}
	}
	var raw [128]byte
	k := ch.AppendKey(raw[:0])
	now := runAt{g, g.index[string(k)]}
	g.Runs[now.run].Followed, g.Runs[now.run].Cut = false, false // it may be in front of a truncate, and go on behind that
	if last, ok := b.Lasts[name][string(k)]; ok {
		g.Runs[now.run].Followed = last != at
	}
	if was, ok := b.own[name][string(k)]; ok && was != now {
		was.group.Runs[was.run].Followed = true
	} else if ok {
		return
	}
	b.own[name][string(k)] = now
}

// group finds or opens the group of a change; fresh opens one in any case.
func (b *Batch) group(ch *wal.Change, kind conflict.EventKind, fresh bool) *Group {
	name := ch.Relation.Ref()
	bin := isBinary(ch.New) || isBinary(ch.Old)
	if g := b.latest[name]; !fresh && g != nil && g.Rel == ch.Relation && g.Binary == bin && g.Kind == kind {
		return g
	}
	g := &Group{
		Rel: ch.Relation, Binary: bin, Kind: kind,
		Key: ch.Relation.KeyColumns(),
	}
	g.expect(b.expect[ch.Relation])
	delete(b.expect, ch.Relation)
	if b.Policy != nil {
		g.policy = b.Policy(name)
	}
	b.latest[name] = g
	b.Groups = append(b.Groups, g)
	return g
}

// expect makes place for so many runs, if the table has a key.
func (g *Group) expect(n int) {
	if g.Key == nil {
		n = 0
	}
	g.index = make(map[string]int, n)
	g.Runs = slices.Grow(g.Runs, n)
	g.keys = make([]wal.Value, n*len(g.Key))
}

// key is place for the key of a run.
func (g *Group) key() []wal.Value {
	n := len(g.Key)
	if len(g.keys) < n {
		g.keys = make([]wal.Value, n)
	}
	k := g.keys[:n:n]
	g.keys = g.keys[n:]
	return k
}

func isBinary(t wal.Tuple) bool {
	for i := range t {
		switch t[i].Kind {
		case wal.Binary:
			return true
		case wal.Text:
			return false
		}
	}
	return false
}

// add takes in one change. It reports false, and takes nothing, when the key has a run that the
// change does not continue.
func (g *Group) add(ch *wal.Change, tx *wal.Transaction) bool {
	image := ch.New
	if ch.Op == wal.Delete {
		image = ch.Old
	}
	var raw [128]byte
	k := ch.AppendKey(raw[:0])
	i, seen := g.index[string(k)]
	if !seen {
		i = len(g.Runs)
		text := string(k)
		g.index[text] = i
		key := g.key()
		for n, c := range g.Key {
			key[n] = image[c]
		}
		g.Runs = append(g.Runs, Run{
			Op: ch.Op, Born: ch.Op == wal.Insert || ch.Brief, Base: ch.Base, Stamp: ch.Stamp,
			Image: image, Full: ch.OldFull, Key: key, Text: text, Tx: tx, Answer: ch.Answer, Asked: ch.Asked, still: still(ch),
		})
		return true
	}
	r := &g.Runs[i]
	if !g.continues(r, ch, tx) {
		return false
	}
	if ch.Op == wal.Update && r.Op != wal.Delete {
		image = Fill(image, r.Image)
	}
	switch {
	case ch.Op == wal.Delete:
		r.Op = wal.Delete
	case r.Born:
		r.Op = wal.Insert
	default:
		r.Op = wal.Update // a delete and insert of a row that was there amount to an update
	}
	r.Image, r.Full, r.Stamp, r.Tx = image, ch.OldFull, ch.Stamp, tx
	r.still, r.Answer = still(ch), r.Answer || ch.Answer
	if ch.Answer {
		r.Asked = ch.Asked
	}
	return true
}

// continues reports whether the change and the run have one net effect: the change is above
// the run, and built on it. Where another region's row came between the two at their origin,
// each meets what is here by itself, so that a conflict is recorded for the write that
// was in it.
func (g *Group) continues(r *Run, ch *wal.Change, tx *wal.Transaction) bool {
	switch {
	case g.policy.Compare(ch.Stamp, r.Stamp) <= 0:
		return false
	case r.still:
		return false
	case (ch.Op == wal.Insert) != (r.Op == wal.Delete):
		return false
	case ch.Op == wal.Insert:
		return true
	case !ch.Base.Known:
		// Nothing says what was there. A value of which nothing is known may be another region's,
		// unless both are of one transaction.
		return ch.Op == wal.Delete || r.Tx == tx || !slices.ContainsFunc(ch.New, func(v wal.Value) bool { return v.Kind == wal.Unchanged })
	case ch.Base.HasDigest:
		if content, ok := conflict.Content(g.Rel, r.Image); ok {
			return conflict.Digest(content) == ch.Base.Digest
		}
		if ch.Base.Stamp == (wal.Stamp{}) {
			return true
		}
	}
	return ch.Base.Stamp == r.Stamp
}

// still reports that a write has the stamp of what it overwrote; only the contents rose. Such a
// write is overwritten elsewhere by any successor of its base, and nobody sees that it was
// not the base itself. So it stands alone: what it meets in this region tells.
func still(ch *wal.Change) bool { return ch.Base.Known && ch.Base.Stamp == ch.Stamp }

// Fill completes an image with the values of the one before it in the same run, for the
// columns that the update left untouched. Both come from the same origin, in order.
func Fill(image, before wal.Tuple) wal.Tuple {
	return image.Filled(before)
}

// KeyText is the canonical text of the run's key.
func (g *Group) KeyText(r *Run) string { return r.Text }
