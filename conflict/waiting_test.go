package conflict

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

func waitRel() *wal.Relation {
	return &wal.Relation{Schema: "s", Name: "t", Identity: wal.IdentityFull, Columns: []wal.Column{{Name: "id", OID: 23}, {Name: "v", OID: 25}, {Name: "big", OID: 25}}}
}

func waitRow(v, big string) wal.Tuple {
	t := wal.Tuple{textOf("1"), textOf(v), textOf(big)}
	if big == "-" {
		t[2] = wal.Value{Kind: wal.Unchanged}
	}
	return t
}

func TestWait(t *testing.T) {
	t.Parallel()
	rel := waitRel()
	at := func(version int64, us wal.Micros) wal.Stamp { return wal.Stamp{Version: version, UpdatedAt: us} }
	first := Waiting{Relation: rel, Op: wal.Insert, Born: true, Stamp: at(5, 10), Image: waitRow("a", "large")}
	next := func(base, s wal.Stamp, op wal.Op, image wal.Tuple) Waiting {
		return Waiting{Relation: rel, Op: op, Base: wal.Base{Known: true, Stamp: base}, Stamp: s, Image: image}
	}
	for name, c := range map[string]struct {
		order   Order
		w, next Waiting
		moved   bool
		want    string // op, born, version, image
	}{
		"an update over the insert becomes one whole row": {VersionFirst, first, next(at(5, 10), at(6, 20), wal.Update, waitRow("b", "-")), true, "update true 6 b large"},
		"a delete over it stays a delete":                 {VersionFirst, first, next(at(5, 10), at(6, 20), wal.Delete, waitRow("a", "large")), true, "delete true 6 a large"},
		"another one above it takes its place":            {VersionFirst, first, next(at(3, 1), at(6, 20), wal.Update, waitRow("b", "x")), true, "update false 6 b x"},
		"one below it is dropped":                         {VersionFirst, first, next(at(3, 1), at(4, 20), wal.Update, waitRow("b", "x")), false, "insert true 5 a large"},
		"by time the later one is above":                  {TimeFirst, first, next(at(3, 1), at(4, 20), wal.Update, waitRow("b", "x")), true, "update false 4 b x"},
		"by time the earlier one is below":                {TimeFirst, first, next(at(3, 1), at(9, 5), wal.Update, waitRow("b", "x")), false, "insert true 5 a large"},
		"the contents break a tie":                        {VersionFirst, first, next(at(3, 1), at(5, 10), wal.Update, waitRow("A", "large")), false, "insert true 5 a large"},
		"the same as a repair":                            {VersionFirst, first, Waiting{Relation: rel, Op: wal.Update, Stamp: at(5, 10), Image: waitRow("a", "large")}, true, "update true 5 a large"},
		"the same again":                                  {VersionFirst, first, Waiting{Relation: rel, Op: wal.Insert, Born: true, Stamp: at(5, 10), Image: waitRow("a", "large")}, true, "insert true 5 a large"},
	} {
		got, moved := Policy{Order: c.order}.Wait(c.w, c.next, false)
		text := fmt.Sprintf("%s %v %d %s %s", got.Op, got.Born, got.Stamp.Version, got.Image[1].Bytes, got.Image[2].Bytes)
		if moved != c.moved || text != c.want {
			t.Errorf("%s: %v, %s; want %v, %s", name, moved, text, c.moved, c.want)
		}
	}
}

// A later change of the same origin takes the place of what waits, higher or lower.
func TestWaitForItsSuccessor(t *testing.T) {
	t.Parallel()
	rel := waitRel()
	first := Waiting{Relation: rel, Op: wal.Insert, Born: true, Stamp: wal.Stamp{Version: 5}, Image: waitRow("a", "large")}
	for _, known := range []bool{true, false} {
		next := Waiting{Relation: rel, Op: wal.Update, Base: wal.Base{Known: known, Stamp: first.Stamp}, Stamp: wal.Stamp{Version: 4}, Image: waitRow("b", "-")}
		got, ok := (Policy{}).Wait(first, next, true)
		if !ok || got.Stamp.Version != 4 || got.Born != known || got.Image.Complete() != known {
			t.Errorf("base known %t: %t, %+v", known, ok, got)
		}
		if got, ok := (Policy{}).Wait(first, next, false); ok || got.Stamp.Version != 5 {
			t.Errorf("base known %t, of another origin: %t, %+v", known, ok, got)
		}
	}
}

// A delete that waits and the insert that follows it have overwritten what the delete removed; a
// delete behind them still knows of it, or, where nobody knows, that its row was born there.
func TestWaitForRebirth(t *testing.T) {
	t.Parallel()
	rel := waitRel()
	for name, c := range map[string]struct {
		base    wal.Base
		follows bool
		want    string // op and born of the row, and of the delete behind it
	}{
		"the base is known":     {wal.Base{Known: true, Stamp: wal.Stamp{Version: 4}}, true, "update false 4, delete false 4"},
		"the base is not known": {wal.Base{}, true, "update false 0, delete false 0"},
		"of another origin":     {wal.Base{Known: true, Stamp: wal.Stamp{Version: 4}}, false, "insert true 0, delete true 0"},
	} {
		dead := Waiting{Relation: rel, Op: wal.Delete, Base: c.base, Stamp: wal.Stamp{Version: 5}, Image: waitRow("a", "large")}
		born, ok := (Policy{}).Wait(dead, Waiting{Relation: rel, Op: wal.Insert, Born: true, Stamp: wal.Stamp{Generation: 1}, Image: waitRow("b", "x")}, c.follows)
		gone, again := (Policy{}).Wait(born, Waiting{Relation: rel, Op: wal.Delete, Base: wal.Base{Known: true, Stamp: born.Stamp}, Stamp: wal.Stamp{Generation: 1, Version: 1}}, c.follows)
		got := fmt.Sprintf("%s %t %d, %s %t %d", born.Op, born.Born, born.Base.Stamp.Version, gone.Op, gone.Born, gone.Base.Stamp.Version)
		if !ok || !again || got != c.want || born.Base.Known != gone.Base.Known {
			t.Errorf("%s: %t %t %s; want %s", name, ok, again, got, c.want)
		}
	}
}

// The same write releases what waits when a column of it is not there any more: it cannot go in
// under the old name.
func TestReleasesBehindARename(t *testing.T) {
	t.Parallel()
	w := Waiting{Relation: waitRel(), Op: wal.Insert, Stamp: wal.Stamp{Version: 5}, Image: waitRow("z", "large")}
	event := w
	event.Image = waitRow("a", "large")
	if (Policy{}).Releases(event, &w, false) {
		t.Error("of two rows with equal stamps the lower one releases the other")
	}
	now := *waitRel()
	now.Columns = []wal.Column{{Name: "id", OID: 23}, {Name: "renamed", OID: 25}, {Name: "big", OID: 25}}
	event.Relation = &now
	if !(Policy{}).Releases(event, &w, false) {
		t.Error("it waits for a column that is gone")
	}
	if event.Stamp.Version = 4; (Policy{}).Releases(event, &w, false) {
		t.Error("an older write releases it")
	}
}

// A later row of another region that has no word of a column does not end the waiting of its values; a later one of the same region does.
func TestReleasesWithoutAColumn(t *testing.T) {
	t.Parallel()
	w := Waiting{Relation: waitRel(), Op: wal.Update, Stamp: wal.Stamp{Version: 5}, Image: waitRow("a", "large")}
	less := *waitRel()
	less.Columns = less.Columns[:2]
	event := Waiting{Relation: &less, Op: wal.Update, Stamp: wal.Stamp{Version: 6}, Image: waitRow("b", "large")[:2]}
	gone := Waiting{Relation: &less, Op: wal.Delete, Stamp: wal.Stamp{Version: wal.MaxVersion}, Image: event.Image}
	whole := Waiting{Relation: waitRel(), Op: wal.Update, Stamp: event.Stamp, Image: waitRow("b", "large")}
	tie, same := event, event
	tie.Stamp, same.Stamp = w.Stamp, w.Stamp
	same.Image = waitRow("a", "large")[:2]
	for _, c := range []struct {
		event       Waiting
		other, want bool
	}{{event, true, false}, {gone, true, false}, {event, false, true}, {gone, false, true}, {whole, true, true}, {tie, true, false}, {tie, false, true}, {same, true, false}, {same, false, true}} {
		if got := (Policy{}).Releases(c.event, &w, c.other); got != c.want {
			t.Errorf("%s of %d columns, other %t: %t", c.event.Op, len(c.event.Relation.Columns), c.other, got)
		}
	}
}

func TestWaitingFillsByName(t *testing.T) {
	t.Parallel()
	w := Waiting{Relation: waitRel(), Op: wal.Insert, Image: waitRow("a", "large")}
	// A column was added in front, one changed its type.
	now := &wal.Relation{Columns: []wal.Column{{Name: "new", OID: 25}, {Name: "big", OID: 25}, {Name: "v", OID: 20}}}
	unchanged := wal.Value{Kind: wal.Unchanged}
	got := w.Fill(now, wal.Tuple{unchanged, unchanged, unchanged})
	if got[0].Kind != wal.Unchanged || string(got[1].Bytes) != "large" || got[2].Kind != wal.Unchanged {
		t.Errorf("filled %v", got)
	}
}

// Two columns that have passed on their names since give nothing to each other; of another table nothing is known.
func TestWaitingFillsNoOtherColumn(t *testing.T) {
	t.Parallel()
	was := *waitRel()
	was.Columns = slices.Clone(was.Columns)
	for i := range was.Columns {
		was.Columns[i].ID = wal.ColumnID(7, int16(i+1))
	}
	w := Waiting{Relation: &was, Op: wal.Insert, Image: waitRow("a", "large")}
	unchanged := wal.Value{Kind: wal.Unchanged}
	for _, c := range []struct {
		v, big uint64
		want   string
	}{
		{wal.ColumnID(7, 2), wal.ColumnID(7, 3), "a large"},
		{wal.ColumnID(7, 3), wal.ColumnID(7, 2), " "},
		{wal.ColumnID(8, 3), wal.ColumnID(8, 2), "a large"},
		{0, 0, "a large"},
	} {
		now := &wal.Relation{Columns: []wal.Column{{Name: "v", OID: 25, ID: c.v}, {Name: "big", OID: 25, ID: c.big}}}
		got := w.Fill(now, wal.Tuple{unchanged, unchanged})
		if text := string(got[0].Bytes) + " " + string(got[1].Bytes); text != c.want {
			t.Errorf("columns %x and %x: filled %q, want %q", c.v, c.big, text, c.want)
		}
	}
}

// parkingRegion merges events of one key as a region does that cannot show rows now and then.
type parkingRegion struct {
	p       Policy
	local   Side
	image   wal.Tuple
	waiting *Waiting
}

func (r *parkingRegion) take(w Waiting, kind EventKind, blocked bool) {
	if r.waiting != nil && r.waiting.Precedes(w.Base) {
		w = r.waiting.Then(w)
	}
	e := Event{Kind: kind, Op: w.Op, Stamp: w.Stamp, Base: w.Base, Born: w.Born, Complete: w.Image.Complete()}
	if w.Op != wal.Delete {
		e.Content, _ = Content(w.Relation, w.Image)
	}
	d := Resolve(r.p, e, r.local)
	if d.Verdict == Apply && w.Op != wal.Delete && blocked {
		if r.waiting != nil {
			merged, ok := r.p.Wait(*r.waiting, w, false)
			if !ok {
				return
			}
			w = merged
		}
		r.waiting = &w
		return
	}
	if d.Verdict == Apply {
		r.local, r.image = e.Side(), w.Image
	}
	if r.waiting != nil && d.Verdict != Keep && r.p.Releases(w, r.waiting, false) {
		r.waiting = nil
	}
}

// TestParkingConverges: whatever is parked in between, and whenever the way becomes free, a
// region ends with the highest entry, as if nothing had been parked.
func TestParkingConverges(t *testing.T) {
	t.Parallel()
	rel := waitRel()
	for seed := range uint64(20000) {
		rng := rand.New(rand.NewPCG(seed, 7))
		p := Policy{Order: Order(rng.IntN(2))}
		parking, plain := parkingRegion{p: p}, parkingRegion{p: p}
		// Two origins, each with a chain of its own; the events of each come in order.
		var chains [2][]Waiting
		for o := range chains {
			var last *Waiting
			for n := range 1 + rng.IntN(4) {
				w := Waiting{Relation: rel, Op: wal.Update, Image: waitRow(fmt.Sprintf("%d.%d", o, n), fmt.Sprint("big", o))}
				if last == nil || last.Op == wal.Delete {
					w.Op, w.Born = wal.Insert, true
					w.Stamp = wal.Stamp{Version: int64(rng.IntN(3)), UpdatedAt: wal.Micros(rng.IntN(9))}
					if last != nil {
						w.Stamp.Generation = last.Stamp.Generation + 1
					}
				} else {
					w.Base = wal.Base{Known: true, Stamp: last.Stamp}
					w.Stamp = last.Stamp
					w.Stamp.Version += int64(1 + rng.IntN(2))
					w.Stamp.UpdatedAt += wal.Micros(1 + rng.IntN(5))
					if rng.IntN(4) == 0 {
						w.Op = wal.Delete
					}
				}
				chains[o] = append(chains[o], w)
				last = &chains[o][len(chains[o])-1]
			}
		}
		var story []string
		for len(chains[0])+len(chains[1]) > 0 {
			o := rng.IntN(2)
			if len(chains[o]) == 0 {
				o = 1 - o
			}
			w := chains[o][0]
			chains[o] = chains[o][1:]
			blocked := rng.IntN(2) == 0
			story = append(story, fmt.Sprintf("%d %s %v blocked=%v", o, w.Op, w.Stamp, blocked))
			parking.take(w, Live, blocked)
			plain.take(w, Live, false)
			if parking.waiting != nil && rng.IntN(3) == 0 {
				again := *parking.waiting
				parking.waiting = nil
				story = append(story, "retried")
				parking.take(again, Live, false)
			}
		}
		if parking.waiting != nil {
			again := *parking.waiting
			parking.waiting = nil
			parking.take(again, Live, false)
		}
		if parking.waiting != nil || p.CompareSides(parking.local, plain.local) != 0 {
			t.Fatalf("seed %d, order %s: %+v, without parking %+v\n%v", seed, p.Order, parking.local, plain.local, story)
		}
	}
}

// The answer for a change that lacks values is the change itself: over the row that it presumably
// overwrote it is no conflict, over any other it is the one that it always was.
func TestFulfilled(t *testing.T) {
	t.Parallel()
	at := func(v int64) wal.Stamp { return wal.Stamp{Version: v, UpdatedAt: wal.Micros(v)} }
	w := Waiting{Relation: waitRel(), Op: wal.Update, Stamp: at(5), Image: waitRow("a", "-")}
	row := func(v int64) Side { return Side{Known: true, Alive: true, Stamp: at(v), Content: []byte("row")} }
	answer := Event{Kind: Repair, Op: wal.Update, Stamp: at(5), Complete: true, Content: []byte("answer")}
	higher := answer
	higher.Stamp = at(6)
	for _, c := range []struct {
		name  string
		event Event
		local Side
		want  Type
	}{
		{"over the row before", answer, row(4), None},
		{"over a row of the same version", answer, Side{Known: true, Alive: true, Stamp: wal.Stamp{Version: 5, UpdatedAt: 1}, Content: []byte("row")}, UpdateOriginDiffers},
		{"another entry of the origin", higher, row(4), UpdateOriginDiffers},
		{"no row: it was recorded when it was set aside", answer, Side{}, None},
	} {
		if got := Resolve(Policy{}, w.Fulfilled(c.event, w.Relation, c.local), c.local); got.Verdict != Apply || got.Type != c.want {
			t.Errorf("%s: %s %q", c.name, got.Verdict, got.Type)
		}
	}
	if got := Resolve(Policy{}, w.Fulfilled(answer, w.Relation, row(6)), row(6)); got.Verdict != Keep {
		t.Errorf("over a later row: %s", got.Verdict)
	}
}

// TestGone: what the origin of a waiting change answers says whether it holds the change still.
func TestGone(t *testing.T) {
	t.Parallel()
	at := func(gen uint32, version int64) wal.Stamp { return wal.Stamp{Generation: gen, Version: version} }
	row := &Waiting{Relation: waitRel(), Op: wal.Update, Stamp: at(1, 5), Image: waitRow("w", "-")}
	dead := &Waiting{Relation: waitRel(), Op: wal.Delete, Stamp: at(1, 5)}
	for _, c := range []struct {
		op   wal.Op
		s    wal.Stamp
		w    *Waiting
		want bool
	}{
		{wal.Update, at(1, 4), row, true},
		{wal.Update, at(0, 9), row, true},
		{wal.Update, at(1, 5), row, false},
		{wal.Update, at(1, 6), row, false},
		{wal.Delete, at(1, 4), row, true},
		{wal.Delete, at(1, 5), row, true}, // a tombstone is below a row of its stamp
		{wal.Delete, at(2, 0), row, false},
		{wal.Delete, at(1, 5), dead, false},
	} {
		answer := &Waiting{Relation: waitRel(), Op: c.op, Stamp: c.s, Image: waitRow("w", "large")}
		if got := (Policy{}).Gone(answer, c.w); got != c.want {
			t.Errorf("%s %s is the answer for %s %s: %t", c.op, StampText(c.s), c.w.Op, StampText(c.w.Stamp), got)
		}
	}
}

// waitImage is a row; "-" is a large value that was left alone, "#x" the digest of x.
func waitImage(v, big string) wal.Tuple {
	t := waitRow(v, big)
	if len(big) > 1 && big[0] == '#' {
		t[2] = wal.Digested([]byte(big[1:]))
	}
	return t
}

// TestEqualStampsAndMissingValues: a change that lacks a value meets another row of its own stamp: only the
// contents could say which one is above. An earlier row does not release it, and the change itself,
// made whole, does. The column big comes first in contents.
func TestEqualStampsAndMissingValues(t *testing.T) {
	t.Parallel()
	at := wal.Stamp{Version: 5}
	of := func(image wal.Tuple) *Waiting {
		return &Waiting{Relation: waitRel(), Op: wal.Update, Stamp: at, Image: image}
	}
	for _, c := range []struct {
		name           string
		waits, came    wal.Tuple
		releases, gone bool // of the answer of its origin
		gives          bool // it gives way to what cannot be shown either
	}{
		{"the change, made whole", waitImage("b", "#x"), waitImage("b", "x"), true, false, true},
		{"the change again", waitImage("b", "#x"), waitImage("b", "#x"), true, false, true},
		{"the change, of which less was known", waitImage("b", "-"), waitImage("b", "x"), true, false, true},
		{"a lower row with the same large value", waitImage("b", "#x"), waitImage("a", "x"), false, true, false},
		{"a higher row with the same large value", waitImage("b", "#x"), waitImage("c", "x"), true, true, true},
		{"a row with another large value", waitImage("b", "#x"), waitImage("b", "y"), false, true, false},
		{"a lower row, and nothing is known of the large value", waitImage("b", "-"), waitImage("a", "x"), false, true, false},
		{"a higher row, and nothing is known of the large value", waitImage("b", "-"), waitImage("c", "x"), false, true, false},
		{"what lacks a value over what does not", waitImage("b", "x"), waitImage("c", "#y"), false, true, true},
	} {
		w, came := of(c.waits), of(c.came)
		if got := (Policy{}).Releases(*came, w, false); got != c.releases {
			t.Errorf("%s: releases %t", c.name, got)
		}
		if got := (Policy{}).Gone(came, w); got != c.gone {
			t.Errorf("%s: gone %t", c.name, got)
		}
		got, gives := (Policy{}).Wait(*w, *came, false)
		if gives != c.gives || gives != (string(got.Image[1].Bytes) == string(c.came[1].Bytes) && string(got.Image[2].Bytes) == string(c.came[2].Bytes)) {
			t.Errorf("%s: gives way %t, %+v", c.name, gives, got)
		}
		if _, gives := (Policy{}).Wait(*w, *came, true); !gives {
			t.Errorf("%s: a later change of its origin does not take its place", c.name)
		}
	}
}

// What another region was told of is not ended by a later change, also not by an own one: it may stand there.
func TestEnds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		held       bool
		was, later EventKind
		want       bool
	}{
		{false, Live, Live, true}, {false, Copy, Live, true}, {false, Repair, Live, false}, {false, Self, Self, true}, {false, Live, Repair, false},
		{true, Live, Live, false}, {true, Copy, Live, false}, {true, Self, Self, false},
	} {
		w := Waiting{Held: c.held}
		if got := w.Ends(c.was, c.later); got != c.want {
			t.Errorf("%s behind %s, held %v: %v, want %v", c.later, c.was, c.held, got, c.want)
		}
	}
}

// What ends the waiting of an entry was not made over it: then it is lost.
func TestBypassed(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "t", PrimaryKey: []int{0}, Columns: []wal.Column{{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25}}}
	image := func(v wal.Value) wal.Tuple { return wal.Tuple{{Kind: wal.Text, Bytes: []byte("1")}, v} }
	whole, lacks := image(wal.Value{Kind: wal.Text, Bytes: []byte("x")}), image(wal.Value{Kind: wal.Unchanged})
	at := func(v int64) wal.Stamp { return wal.Stamp{Version: v, UpdatedAt: wal.Micros(v)} }
	based := func(v int64) wal.Base { return wal.Base{Known: true, Stamp: at(v)} }
	w := Waiting{Relation: rel, Op: wal.Update, Stamp: at(3), Base: based(1), Image: whole}
	gone, part := w, w
	gone.Op, part.Image = wal.Delete, lacks
	for name, c := range map[string]struct {
		w    Waiting
		next Waiting
		kind EventKind
		want bool
	}{
		"made over it":                   {w, Waiting{Op: wal.Update, Stamp: at(4), Base: based(3)}, Live, false},
		"made over another row":          {w, Waiting{Op: wal.Update, Stamp: at(4), Base: based(2)}, Live, true},
		"nobody knows over what":         {w, Waiting{Op: wal.Update, Stamp: at(4)}, Live, false},
		"a delete of it":                 {w, Waiting{Op: wal.Delete, Stamp: at(4), Base: based(3)}, Live, false},
		"a delete of another row":        {w, Waiting{Op: wal.Delete, Stamp: at(4), Base: based(2)}, Live, true},
		"inserted where a delete was":    {w, Waiting{Op: wal.Insert, Born: true, Stamp: at(4)}, Live, true},
		"a delete waits":                 {gone, Waiting{Op: wal.Update, Stamp: at(4), Base: based(2)}, Live, false},
		"what stands there now":          {w, Waiting{Op: wal.Update, Stamp: at(4)}, Repair, true},
		"it stands there":                {w, Waiting{Op: wal.Update, Stamp: at(3)}, Repair, false},
		"it is not known what it was":    {part, Waiting{Op: wal.Update, Stamp: at(4)}, Repair, false},
		"a part, and what was not on it": {part, Waiting{Op: wal.Update, Stamp: at(4), Base: based(2)}, Live, true},
	} {
		c.next.Relation, c.next.Image = rel, whole
		if got := c.w.Bypassed(&c.next, c.kind); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
