package checkpoint

import (
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// running is a region in its incarnation 3 whose stream and slot fit.
func running(change func(*Situation)) Situation {
	s := Situation{
		Epoch: log1, WALEnd: 900, Peers: 1,
		Tail:   Tail{Found: true, Epoch: log1, Incarnation: 3, EndLSN: 700, Mark: wal.Mark{EndLSN: 690, XID: 5, CommitTime: 50}},
		Slot:   Slot{Found: true, Confirmed: 500},
		Stored: Stored{Incarnation: 3, Epoch: log1},
		Acks:   []Ack{{Peer: "us", Epoch: log1, Incarnation: 3, Frame: 9, EndLSN: 600, Proved: 600}},
	}
	if change != nil {
		change(&s)
	}
	return s
}

// The table of doc.go, line by line.
func TestBeginTruthTable(t *testing.T) {
	t.Parallel()
	promoted := wal.Epoch{SystemID: 11, Timeline: 2, Slot: "pgwaltz_eu"}
	for name, c := range map[string]struct {
		change func(*Situation)
		step   Step
		number uint32
		why    string
		remedy string
	}{
		"fits":                       {nil, Continue, 0, "", ""},
		"first start":                {func(s *Situation) { *s = Situation{Epoch: log1, WALEnd: 900, Peers: 1, Slot: s.Slot} }, Renew, 1, "", ""},
		"slot missing":               {func(s *Situation) { s.Slot = Slot{} }, Stop, 0, "slot is missing", RemedySlot},
		"slot lost":                  {func(s *Situation) { s.Slot.Lost = true }, Stop, 0, "slot is lost", RemedySlot},
		"slot lost, resync asked":    {func(s *Situation) { s.Slot.Lost, s.Stored.Resync = true, true }, Stop, 0, "slot is lost", RemedySlot},
		"promoted, stream kept":      {func(s *Situation) { s.Epoch = promoted }, Stop, 0, "another WAL", RemedyResync},
		"promoted, stream lost":      {func(s *Situation) { s.Epoch, s.Tail = promoted, Tail{} }, Stop, 0, "another WAL", RemedyResync},
		"promoted, resync asked":     {func(s *Situation) { s.Epoch, s.Tail, s.Stored.Resync = promoted, Tail{}, true }, Reopen, 4, "another WAL", RemedyResync},
		"stream of another WAL":      {func(s *Situation) { s.Tail.Epoch.SystemID = 12 }, Stop, 0, "stream was published from another WAL", RemedyResync},
		"row older than the stream":  {func(s *Situation) { s.Stored.Incarnation = 2 }, Stop, 0, "database knows of 2", RemedyResync},
		"row gone":                   {func(s *Situation) { s.Stored = Stored{} }, Stop, 0, "database knows of 0", RemedyResync},
		"WAL ends before the stream": {func(s *Situation) { s.WALEnd, s.Acks = 650, nil }, Stop, 0, "WAL ends at 0/28A", RemedyResync},
		"WAL ends before a peer":     {func(s *Situation) { s.Acks[0].EndLSN = 950 }, Stop, 0, "peer us has applied up to 0/3B6", RemedyResync},
		"peer before the last gap":   {func(s *Situation) { s.Acks[0].EndLSN, s.Stored.Reopened, s.Acks[0].Incarnation = 950, 3, 2 }, Continue, 0, "", ""},
		"peer of a later number":     {func(s *Situation) { s.Acks[0].Incarnation = 7 }, Stop, 0, "incarnation 7", RemedyResync},
		"later number, resync asked": {func(s *Situation) { s.Acks[0].Incarnation, s.Stored.Resync = 7, true }, Reopen, 8, "incarnation 7", RemedyResync},
		"later number after resync":  {func(s *Situation) { s.Acks[0].Incarnation, s.Stored.Reopened = 7, 3 }, Reopen, 8, "incarnation 7", RemedyResync},
		"peer of another WAL":        {func(s *Situation) { s.Acks[0].Epoch.SystemID, s.Acks[0].EndLSN = 99, 9999 }, Stop, 0, "incarnation 3 of another WAL", RemedyResync},
		"other WAL after resync":     {func(s *Situation) { s.Acks[0].Epoch.SystemID, s.Stored.Reopened = 99, 3 }, Reopen, 4, "another WAL", RemedyResync},
		"other WAL, before":          {func(s *Situation) { s.Acks[0].Epoch.SystemID, s.Acks[0].EndLSN, s.Acks[0].Incarnation = 99, 9999, 2 }, Continue, 0, "", ""},
		"first start, other WAL": {func(s *Situation) {
			a := s.Acks[0]
			a.Epoch.SystemID, a.Incarnation = 99, 1
			*s = Situation{Epoch: log1, WALEnd: 900, Peers: 1, Slot: s.Slot, Acks: []Ack{a}}
		}, Stop, 0, "incarnation 1 of another WAL", RemedyResync},
		"stream lost":                {func(s *Situation) { s.Tail = Tail{} }, Renew, 4, "", ""},
		"stream damaged":             {func(s *Situation) { s.Tail.Damaged = true }, Renew, 4, "", ""},
		"power cut":                  {func(s *Situation) { s.Unsure = true }, Renew, 4, "", ""},
		"power cut, end lost":        {func(s *Situation) { s.Unsure, s.Tail.EndLSN, s.Tail.Mark = true, 450, wal.Mark{} }, Renew, 4, "", ""},
		"power cut, inside one":      {func(s *Situation) { s.Unsure, s.Tail.Open = true, true }, Renew, 4, "", ""},
		"power cut and restored":     {func(s *Situation) { s.Unsure, s.Acks[0].EndLSN = true, 950 }, Stop, 0, "peer us has applied up to 0/3B6", RemedyResync},
		"stream went back":           {func(s *Situation) { s.Tail.Incarnation = 2 }, Renew, 4, "", ""},
		"inside a transaction":       {func(s *Situation) { s.Tail.Open = true }, Resume, 4, "", ""},
		"inside one, went back":      {func(s *Situation) { s.Tail.Open, s.Tail.Incarnation = true, 2 }, Resume, 4, "", ""},
		"inside one, damaged":        {func(s *Situation) { s.Tail.Open, s.Tail.Damaged = true, true }, Renew, 4, "", ""},
		"inside one, no mark":        {func(s *Situation) { s.Tail.Open, s.Tail.Mark = true, wal.Mark{} }, Renew, 4, "", ""},
		"inside one, rewind granted": {func(s *Situation) { s.Tail.Open, s.Renew = true, true }, Renew, 4, "", ""},
		"inside one, parts purged":   {func(s *Situation) { s.Tail.Open, s.Stored.Loosened = true, 3 }, Renew, 4, "", ""},
		"inside one, of before":      {func(s *Situation) { s.Tail.Open, s.Tail.Incarnation, s.Stored.Loosened = true, 2, 2 }, Renew, 4, "", ""},
		"inside one, parts before":   {func(s *Situation) { s.Tail.Open, s.Stored.Loosened = true, 2 }, Resume, 4, "", ""},
		"inside one, before a gap":   {func(s *Situation) { s.Tail.Open, s.Tail.Incarnation, s.Stored.Reopened = true, 2, 3 }, Renew, 4, "", ""},
		"inside one, slot behind":    {func(s *Situation) { s.Tail.Open, s.Slot.Confirmed = true, 701 }, Renew, 4, "", ""},
		"slot went back, no mark":    {func(s *Situation) { s.Tail.Mark = wal.Mark{} }, Renew, 4, "", ""},
		"no mark, slot at the end":   {func(s *Situation) { s.Tail.Mark, s.Slot.Confirmed = wal.Mark{}, 700 }, Continue, 0, "", ""},
		"a newcomer waits":           {func(s *Situation) { s.Stored.Newcomer = true }, Renew, 4, "", ""},
		"a newcomer, inside one":     {func(s *Situation) { s.Stored.Newcomer, s.Tail.Open = true, true }, Renew, 4, "", ""},
		"a peer misses frames":       {func(s *Situation) { s.Renew = true }, Renew, 4, "", ""},
		"slot behind, not applied":   {func(s *Situation) { s.Slot.Confirmed = 701 }, Stop, 0, "slot begins at", RemedyResync},
		"slot behind, applied":       {func(s *Situation) { s.Slot.Confirmed, s.Acks[0].Proved = 701, 701 }, Renew, 4, "", ""},
		"slot behind, two peers":     {func(s *Situation) { s.Slot.Confirmed, s.Acks[0].Proved, s.Peers = 701, 701, 2 }, Stop, 0, "slot begins at", RemedyResync},
		"slot behind, resync asked":  {func(s *Situation) { s.Slot.Confirmed, s.Stored.Resync = 701, true }, Reopen, 4, "slot begins at", RemedyResync},
		"resync without a gap":       {func(s *Situation) { s.Stored.Resync = true }, Continue, 0, "", ""},
		"a peer told of a gap":       {func(s *Situation) { s.Stored.Gap = true }, Continue, 0, "", ""},
		"told, resync asked":         {func(s *Situation) { s.Stored.Gap, s.Stored.Resync = true, true }, Reopen, 4, "", ""},
		"restored, a peer found out": {func(s *Situation) { s.Stored.Gap, s.Stored.History, s.Stored.Why = true, true, "peer us: other" }, Stop, 0, "peer us", RemedyResync},
		"resynced, never read":       {func(s *Situation) { s.Stored.Reopened, s.Stored.Incarnation, s.Unread = 4, 4, true }, Reopen, 5, "lacks the incarnation", ""},
		"never read, stream lost":    {func(s *Situation) { s.Stored.Reopened, s.Unread, s.Tail = 3, true, Tail{} }, Reopen, 4, "lacks the incarnation", ""},
		"never read, other WAL": {func(s *Situation) {
			s.Stored.Reopened, s.Stored.Incarnation, s.Unread, s.Tail.Epoch.SystemID = 4, 4, true, 12
		}, Reopen, 5, "lacks the incarnation", ""},
		"never read, in the stream": {func(s *Situation) { s.Stored.Reopened, s.Unread = 3, true }, Continue, 0, "", ""},
		"never read, missed":        {func(s *Situation) { s.Stored.Reopened, s.Unread, s.Renew = 3, true, true }, Renew, 4, "", ""},
		"read, stream lost":         {func(s *Situation) { s.Stored.Reopened, s.Tail = 3, Tail{} }, Renew, 4, "", ""},
		"never read, slot gone":     {func(s *Situation) { s.Stored.Reopened, s.Unread, s.Tail, s.Slot = 3, true, Tail{}, Slot{} }, Stop, 0, "slot is missing", RemedySlot},
		"restored, resync asked":    {func(s *Situation) { s.Stored.Gap, s.Stored.History, s.Stored.Resync = true, true, true }, Reopen, 4, "", RemedyResync},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := running(c.change).Begin()
			if restored := strings.Contains(d.Why, "another WAL") || strings.Contains(d.Why, "restored") || strings.Contains(d.Why, "peer us: other"); d.Step == Stop && d.History != restored {
				t.Errorf("%q: history %t", d.Why, d.History)
			}
			if d.Step != c.step || d.Incarnation != c.number || !strings.Contains(d.Why, c.why) || d.Remedy != c.remedy {
				t.Errorf("got %s of %d (%q, %q)", d.Step, d.Incarnation, d.Why, d.Remedy)
			}
			if d.Step == Stop {
				// What the remedy does resolves it, and only once.
				s := running(c.change)
				s.Stored.Resync, s.Slot.Found, s.Slot.Lost = true, true, false
				if d.Remedy == RemedySlot {
					s.Slot.Confirmed = s.WALEnd
				}
				again := s.Begin()
				if again.Step != Reopen {
					t.Fatalf("after the remedy: %s (%s)", again.Step, again.Why)
				}
				s.Stored = Stored{Incarnation: again.Incarnation, Reopened: again.Incarnation, Epoch: s.Epoch}
				s.Unsure = false // settled with it
				s.Tail = Tail{Found: true, Epoch: s.Epoch, Incarnation: again.Incarnation, EndLSN: s.Slot.Confirmed}
				if d := s.Begin(); d.Step != Continue {
					t.Errorf("after the new incarnation: %s (%s)", d.Step, d.Why)
				}
			}
		})
	}
}

// A new incarnation begins behind what every peer has passed where the slot has gone back, and nowhere else.
func TestRenewalBeginsBehindWhatAllHave(t *testing.T) {
	t.Parallel()
	mark := wal.Mark{EndLSN: 555, XID: 4, CommitTime: 40}
	for name, c := range map[string]struct {
		change func(*Situation)
		want   wal.LSN
		mark   wal.Mark
	}{
		"stream lost":           {nil, 560, wal.Mark{}},
		"no peer was heard yet": {func(s *Situation) { s.Acks = nil }, 560, wal.Mark{}},
		"the stream's end is known": {func(s *Situation) {
			s.Tail = Tail{Found: true, Damaged: true, Epoch: log1, Incarnation: 3, EndLSN: 570, Mark: mark}
		}, 560, mark},
		"its newest one lies behind": {func(s *Situation) {
			s.Tail = Tail{Found: true, Damaged: true, Epoch: log1, Incarnation: 3, EndLSN: 570, Mark: wal.Mark{EndLSN: 565, XID: 5}}
		}, 560, wal.Mark{}},
		"nothing is stored":           {func(s *Situation) { s.Stored.Passed = 0 }, 500, wal.Mark{}},
		"the slot is behind it":       {func(s *Situation) { s.Slot.Confirmed = 580 }, 580, wal.Mark{}},
		"not merged here":             {func(s *Situation) { s.Merged = 559 }, 500, wal.Mark{}},
		"the merge was forgotten":     {func(s *Situation) { s.Merged = 0 }, 500, wal.Mark{}},
		"beyond the WAL":              {func(s *Situation) { s.WALEnd, s.Stored.Passed, s.Merged, s.Acks = 600, 601, 700, nil }, 500, wal.Mark{}},
		"stored by another slot":      {func(s *Situation) { s.Stored.Epoch.Slot = "another" }, 500, wal.Mark{}},
		"a peer misses frames":        {func(s *Situation) { s.Renew = true }, 500, wal.Mark{}},
		"a newcomer waits":            {func(s *Situation) { s.Stored.Newcomer = true }, 500, wal.Mark{}},
		"a peer says that it is less": {func(s *Situation) { s.Acks[0].EndLSN = 559 }, 500, wal.Mark{}},
		"one of two does":             {func(s *Situation) { s.Acks = append(s.Acks, Ack{Peer: "ap", Epoch: log1, Incarnation: 3, EndLSN: 1}) }, 500, wal.Mark{}},
		"a peer has nothing":          {func(s *Situation) { s.Acks[0] = Ack{Peer: "us"} }, 500, wal.Mark{}},
	} {
		s := running(func(s *Situation) {
			s.Tail, s.Stored.Passed, s.Merged = Tail{}, 560, 600
			if c.change != nil {
				c.change(s)
			}
		})
		d := s.Begin()
		at, mark := s.Opening(d)
		if d.Step != Renew || at != c.want || mark != c.mark {
			t.Errorf("%s: %s at %s behind %s, want %s behind %s", name, d.Step, at, mark, c.want, c.mark)
		}
		if from := s.Reading(d, []wal.LSN{500, 590}); from != at {
			t.Errorf("%s: read from %s, begun at %s", name, from, at)
		}
	}
	// What an operator accepts is the gap up to the slot; what goes on in the stream goes on there.
	for name, change := range map[string]func(*Situation){
		"a gap is admitted": func(s *Situation) { s.Tail, s.Stored.Gap, s.Stored.Resync = Tail{}, true, true },
		"the stream ends inside a transaction": func(s *Situation) {
			s.Tail.Open, s.Slot.Confirmed = true, 700
		},
	} {
		s := running(func(s *Situation) { s.Stored.Passed, s.Merged = 800, 850; change(s) })
		if at, _ := s.Opening(s.Begin()); at != s.Slot.Confirmed {
			t.Errorf("%s: begun at %s", name, at)
		}
	}
}

// What shows that a server was restored may be gone at the next look; it was restored all the same.
func TestBeginRemembersHistory(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ change, later func(*Situation) }{
		"the WAL grows beyond a peer":        {func(s *Situation) { s.Acks[0].EndLSN = 950 }, func(s *Situation) { s.WALEnd = 1000 }},
		"the WAL grows beyond the stream":    {func(s *Situation) { s.WALEnd, s.Acks = 650, nil }, func(s *Situation) { s.WALEnd = 1000 }},
		"the stream loses its end":           {func(s *Situation) { s.Stored.Incarnation = 2 }, func(s *Situation) { s.Tail.Incarnation = 2 }},
		"the stream of another WAL is lost":  {func(s *Situation) { s.Tail.Epoch.SystemID = 12 }, func(s *Situation) { s.Tail = Tail{} }},
		"the peer that knew it says no more": {func(s *Situation) { s.Acks[0].Incarnation = 7 }, func(s *Situation) { s.Acks = nil }},
	} {
		s := running(c.change)
		d := s.Begin()
		if d.Step != Stop || !d.History {
			t.Fatalf("%s: at first %s, history %t", name, d.Step, d.History)
		}
		c.later(&s)
		s.Stored.Gap, s.Stored.History, s.Stored.Why = true, d.History, d.Why
		if again := s.Begin(); again.Step != Stop || again.Why != d.Why {
			t.Errorf("%s: then %s (%q)", name, again.Step, again.Why)
		}
		s.Stored.Resync = true
		if again := s.Begin(); again.Step != Reopen {
			t.Errorf("%s: after resync %s", name, again.Step)
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	chains := &Chains{}
	chains.Begin(5, 9, chainOf(9))
	for n := uint64(10); n <= 20; n++ {
		chains.Note(n, chainOf(n))
	}
	present := Present{Epoch: log1, Incarnation: 5, Reopened: 4, Frame: 20, Sent: 22, WALEnd: 1000, Chains: chains}
	for name, c := range map[string]struct {
		change func(*Ack)
		want   AckVerdict
	}{
		"counts":                {func(*Ack) {}, Counts},
		"up to the last frame":  {func(a *Ack) { a.Frame, a.Chain = 20, chainOf(20) }, Counts},
		"of a lost frame":       {func(a *Ack) { a.Chain = chainOf(99) }, Ahead},
		"far behind":            {func(a *Ack) { a.Frame, a.Chain = 8, chainOf(8) }, Distant},
		"nothing yet":           {func(a *Ack) { a.Incarnation = 0 }, Outdated},
		"of another WAL":        {func(a *Ack) { a.Epoch.Timeline, a.Incarnation = 2, 4 }, Outdated},
		"as late, another WAL":  {func(a *Ack) { a.Epoch.Timeline = 2 }, OtherHistory},
		"incarnation before":    {func(a *Ack) { a.Incarnation = 4 }, Outdated},
		"before the gap":        {func(a *Ack) { a.Incarnation, a.EndLSN = 3, 5000 }, Outdated},
		"sent, not durable":     {func(a *Ack) { a.Frame = 22 }, Early},
		"never published":       {func(a *Ack) { a.Frame = 23 }, Ahead},
		"never begun":           {func(a *Ack) { a.Incarnation = 6 }, OtherHistory},
		"just thinkable":        {func(a *Ack) { a.Incarnation = 5 + farIncarnation }, OtherHistory},
		"of no restored server": {func(a *Ack) { a.Incarnation = 6 + farIncarnation }, Senseless},
		"the last number":       {func(a *Ack) { a.Incarnation = 1<<32 - 1 }, Senseless},
		"beyond the WAL":        {func(a *Ack) { a.EndLSN = 1001 }, OtherHistory},
		"before, beyond":        {func(a *Ack) { a.Incarnation, a.EndLSN = 4, 1001 }, OtherHistory},
	} {
		a := Ack{Peer: "us", Epoch: log1, Incarnation: 5, Frame: 10, Chain: chainOf(10), EndLSN: 900, Proved: 900}
		c.change(&a)
		if got := a.Judge(present); got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
	}
}

func TestRewindDecisions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change  func(*Rewind)
		step    Step
		history bool
		why     string
	}{
		"granted":                 {func(*Rewind) {}, Renew, false, ""},
		"a new peer":              {func(r *Rewind) { r.Ack = Ack{Peer: "us"} }, Renew, false, ""},
		"no slot":                 {func(r *Rewind) { r.Slot = Slot{} }, Stop, false, RemedySlot},
		"WAL gone":                {func(r *Rewind) { r.Slot.Confirmed = 901 }, Stop, false, "WAL before 0/385 is gone"},
		"WAL gone, just resynced": {func(r *Rewind) { r.Slot.Confirmed, r.Resynced = 901, true }, Reopen, false, "WAL before 0/385 is gone"},
		"another WAL":             {func(r *Rewind) { r.Ack.Epoch.Timeline = 2 }, Stop, false, "another one now"},
		"another history":         {func(r *Rewind) { r.History, r.Reason = true, "other" }, Stop, true, "peer us: other; at region eu run: pgwaltz resync"},
		"beyond the WAL":          {func(r *Rewind) { r.Ack.EndLSN = 1001 }, Stop, true, "restored from an older state"},
		"never begun":             {func(r *Rewind) { r.Ack.Incarnation = 6 }, Stop, true, "incarnation 6"},
		"the last number":         {func(r *Rewind) { r.Ack.Incarnation = 1<<32 - 1 }, Stop, false, "incarnation 4294967295"},
	} {
		r := Rewind{
			Ack: Ack{Peer: "us", Epoch: log1, Incarnation: 5, Frame: 10, EndLSN: 900, Proved: 900}, Region: "eu",
			Slot: Slot{Found: true, Confirmed: 500}, Present: Present{Epoch: log1, Incarnation: 5, Frame: 20, WALEnd: 1000},
		}
		c.change(&r)
		if d := r.Decide(); d.Step != c.step || d.History != c.history || !strings.Contains(d.Why, c.why) {
			t.Errorf("%s: got %s, history %t, %q", name, d.Step, d.History, d.Why)
		}
		if d := r.Decide(); d.Newcomer != (name == "a new peer") {
			t.Errorf("%s: newcomer %t", name, d.Newcomer)
		}
	}
}

// An acknowledgement of the last number there is does not use up the numbers.
func TestNextIncarnationIgnoresWhatCannotBe(t *testing.T) {
	t.Parallel()
	s := Situation{Stored: Stored{Incarnation: 5}, Acks: []Ack{{Peer: "us", Epoch: log1, Incarnation: 1<<32 - 1}, {Peer: "ap", Epoch: log1, Incarnation: 7}}}
	if n := s.next(); n != 8 {
		t.Errorf("the next incarnation is %d", n)
	}
	c := Checkpoint{Origin: "us", Epoch: log1, Incarnation: 5, EndLSN: 900}
	if v := c.Check(FrameRef{Origin: "us", Epoch: log1, Incarnation: 1<<32 - 1, Number: 1, EndLSN: 900, Resync: true}); v != Foreign {
		t.Errorf("a frame of the last incarnation there is: %s", v)
	}
}

// Of a stream that may have lost its end nobody knows how far it went: a peer may have read all that there was.
func TestPublishedBehindAPowerCut(t *testing.T) {
	t.Parallel()
	e := wal.Epoch{SystemID: 1, Timeline: 1}
	s := Situation{Epoch: e, WALEnd: 900, Merged: 300, Tail: Tail{Found: true, Epoch: e, EndLSN: 400}, Acks: []Ack{{Epoch: e, EndLSN: 500}}}
	if at := s.Published(); at != 500 {
		t.Errorf("%s", at)
	}
	s.Unsure = true
	if at := s.Published(); at != 900 {
		t.Errorf("behind a power cut: %s", at)
	}
}
