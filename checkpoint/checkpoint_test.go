package checkpoint

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

var log1 = wal.Epoch{SystemID: 11, Timeline: 1, Slot: "pgwaltz_eu"}

func at(incarnation uint32, number uint64, end wal.LSN) Checkpoint {
	return Checkpoint{Origin: "eu", Epoch: log1, Incarnation: incarnation, FrameNo: number, EndLSN: end, Seen: end, Mark: wal.Mark{EndLSN: end, XID: 7}, Chain: [32]byte{byte(number)}}
}

// due is the frame that continues at(2, 10, 500).
func due(change func(*FrameRef)) FrameRef {
	f := FrameRef{
		Origin: "eu", Epoch: log1, Incarnation: 2, Number: 11, PrevEndLSN: 500, EndLSN: 600,
		PrevChain: [32]byte{10}, Chain: [32]byte{11},
	}
	if change != nil {
		change(&f)
	}
	return f
}

// opening is the first frame of incarnation 3.
func opening(change func(*FrameRef)) FrameRef {
	return due(func(f *FrameRef) {
		f.Incarnation, f.Number, f.PrevChain = 3, 1, [32]byte{}
		if change != nil {
			change(f)
		}
	})
}

func TestCheck(t *testing.T) {
	t.Parallel()
	here := at(2, 10, 500)
	fresh := Checkpoint{Origin: "eu"}
	copied := Checkpoint{Origin: "eu", Epoch: log1, EndLSN: 500}
	timeline2 := wal.Epoch{SystemID: 11, Timeline: 2, Slot: "pgwaltz_eu"}
	slot2 := wal.Epoch{SystemID: 11, Timeline: 1, Slot: "other"}
	for name, c := range map[string]struct {
		at   Checkpoint
		f    FrameRef
		want Verdict
	}{
		"continues":                    {here, due(nil), Fit},
		"continues without moving":     {here, due(func(f *FrameRef) { f.EndLSN = 500 }), Fit},
		"continues while repeating":    {here, due(func(f *FrameRef) { f.PrevEndLSN, f.EndLSN = 300, 400 }), Fit},
		"same frame":                   {here, due(func(f *FrameRef) { f.Number, f.Chain = 10, here.Chain }), Duplicate},
		"another in our place":         {here, due(func(f *FrameRef) { f.Number = 10 }), Gap},
		"older frame":                  {here, due(func(f *FrameRef) { f.Number = 1 }), Duplicate},
		"older incarnation":            {here, due(func(f *FrameRef) { f.Incarnation = 1 }), Duplicate},
		"one left out":                 {here, due(func(f *FrameRef) { f.Number = 12 }), Gap},
		"other chain":                  {here, due(func(f *FrameRef) { f.PrevChain[31] = 1 }), Gap},
		"begins above us":              {here, due(func(f *FrameRef) { f.PrevEndLSN = 501 }), Gap},
		"other slot, no incarnation":   {here, due(func(f *FrameRef) { f.Epoch = slot2 }), Gap},
		"other origin":                 {here, due(func(f *FrameRef) { f.Origin = "us" }), Foreign},
		"other system":                 {here, due(func(f *FrameRef) { f.Epoch.SystemID = 12 }), Foreign},
		"other timeline":               {here, due(func(f *FrameRef) { f.Epoch = timeline2 }), Foreign},
		"number 0":                     {here, due(func(f *FrameRef) { f.Number = 0 }), Foreign},
		"incarnation 0":                {here, due(func(f *FrameRef) { f.Incarnation = 0 }), Foreign},
		"runs backwards":               {here, due(func(f *FrameRef) { f.EndLSN = 499 }), Foreign},
		"rewound to us":                {here, opening(nil), NextIncarnation},
		"rewound below us":             {here, opening(func(f *FrameRef) { f.PrevEndLSN = 100 }), NextIncarnation},
		"new slot":                     {here, opening(func(f *FrameRef) { f.Epoch = slot2 }), NextIncarnation},
		"incarnations left out":        {here, opening(func(f *FrameRef) { f.Incarnation = 9 }), NextIncarnation},
		"rewound above us":             {here, opening(func(f *FrameRef) { f.PrevEndLSN = 501 }), Gap},
		"admits the gap":               {here, opening(func(f *FrameRef) { f.PrevEndLSN, f.Resync = 501, true }), NextIncarnation},
		"incarnation's second frame":   {here, opening(func(f *FrameRef) { f.Number = 2 }), Gap},
		"opens with a chain":           {here, opening(func(f *FrameRef) { f.PrevChain[0] = 1 }), Gap},
		"other WAL":                    {here, opening(func(f *FrameRef) { f.Epoch = timeline2 }), Foreign},
		"other WAL by resync":          {here, opening(func(f *FrameRef) { f.Epoch, f.Resync = timeline2, true }), NextIncarnation},
		"other WAL by old resync":      {here, opening(func(f *FrameRef) { f.Epoch, f.Resync, f.Incarnation = timeline2, true, 2 }), Foreign},
		"other WAL's second frame":     {here, opening(func(f *FrameRef) { f.Epoch, f.Number = timeline2, 2 }), Foreign},
		"first ever":                   {fresh, opening(func(f *FrameRef) { f.PrevEndLSN, f.Incarnation = 77, 1 }), NextIncarnation},
		"first ever, rows are missing": {fresh, opening(func(f *FrameRef) { f.PrevEndLSN = 77 }), Gap},
		"first ever, rows follow":      {fresh, opening(func(f *FrameRef) { f.PrevEndLSN, f.Newcomers = 77, true }), NextIncarnation},
		"first ever, admits a gap":     {fresh, opening(func(f *FrameRef) { f.PrevEndLSN, f.Resync = 77, true }), NextIncarnation},
		"for newcomers, above us":      {here, opening(func(f *FrameRef) { f.PrevEndLSN, f.Newcomers = 501, true }), Gap},
		"first ever, resumed":          {fresh, opening(func(f *FrameRef) { f.PrevEndLSN, f.Incarnation, f.Resumed = 77, 1, true }), Gap},
		"resumed where we are":         {here, opening(func(f *FrameRef) { f.Resumed = true }), NextIncarnation},
		"resumed above us":             {here, opening(func(f *FrameRef) { f.PrevEndLSN, f.Resumed = 501, true }), Gap},
		"first seen is not the first":  {fresh, opening(func(f *FrameRef) { f.Number = 40 }), Gap},
		"first after a copy":           {copied, opening(nil), NextIncarnation},
		"first after a copy, hole":     {copied, opening(func(f *FrameRef) { f.PrevEndLSN = 501 }), Gap},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := c.at.Check(c.f)
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if got != Fit && got != NextIncarnation {
				return
			}
			next := c.at.Next(c.f)
			if err := MustAdvance(c.at, next, c.f.Resync); err != nil {
				t.Errorf("advance: %v", err)
			}
			if v := next.Check(c.f); v != Duplicate {
				t.Errorf("the frame applied is %s", v)
			}
		})
	}
}

func TestNextAndCovers(t *testing.T) {
	t.Parallel()
	here := at(2, 10, 500)
	rewound := opening(func(f *FrameRef) { f.PrevEndLSN, f.EndLSN = 100, 300 })
	next := here.Next(rewound)
	if next.EndLSN != 500 || next.Incarnation != 3 || next.FrameNo != 1 || next.Chain != rewound.Chain {
		t.Errorf("after a rewind: %+v", next)
	}
	resync := opening(func(f *FrameRef) { f.PrevEndLSN, f.EndLSN, f.Resync = 100, 300, true })
	if next := here.Next(resync); next.EndLSN != 300 {
		t.Errorf("after a resync: %s", next.EndLSN)
	}
	if next := here.Next(due(nil)); next.EndLSN != 600 || next.FrameNo != 11 {
		t.Errorf("after the next frame: %+v", next)
	}
	for name, c := range map[string]struct {
		f           FrameRef
		commit, end wal.LSN
		want        bool
	}{
		"at the checkpoint":       {rewound, 480, 500, true},
		"above":                   {rewound, 500, 520, false},
		"part of a covered giant": {rewound, 480, 0, true},
		"part of a new giant":     {rewound, 500, 0, false},
		"part, commit unknown":    {rewound, 0, 0, false},
		"resync":                  {resync, 480, 500, false},
		"other WAL":               {opening(func(f *FrameRef) { f.Epoch.Timeline = 2 }), 480, 500, false},
	} {
		if got := here.Covers(c.f, c.commit, c.end); got != c.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
	if (Checkpoint{Origin: "eu", EndLSN: 500}).Covers(due(nil), 1, 2) {
		t.Error("positions of an unknown WAL were compared")
	}
}

// A receiver that goes by Check ends where the origin is, whatever is doubled or rewound.
func TestReplayAfterRewind(t *testing.T) {
	t.Parallel()
	c := Checkpoint{Origin: "eu"}
	applied := map[wal.LSN]int{}
	feed := func(f FrameRef) Verdict {
		v := c.Check(f)
		if v == Fit || v == NextIncarnation {
			if !c.Covers(f, f.EndLSN-1, f.EndLSN) {
				applied[f.EndLSN]++
			}
			c = c.Next(f)
		}
		return v
	}
	run := func(incarnation uint32, from, to wal.LSN) {
		var prev FrameRef
		for n, end := uint64(1), from+1; end <= to; n, end = n+1, end+1 {
			f := FrameRef{
				Origin: "eu", Epoch: log1, Incarnation: incarnation, Number: n, PrevEndLSN: end - 1, EndLSN: end,
				PrevChain: prev.Chain, Chain: [32]byte{byte(incarnation), byte(n)}, Mark: wal.Mark{EndLSN: end, XID: 7},
			}
			if v := feed(f); v != Fit && v != NextIncarnation {
				t.Fatalf("frame %d/%d is %s", incarnation, n, v)
			}
			if v := feed(f); v != Duplicate {
				t.Fatalf("frame %d/%d again is %s", incarnation, n, v)
			}
			prev = f
		}
	}
	run(1, 0, 20)
	run(2, 5, 30)
	run(5, 30, 40)
	for end := wal.LSN(1); end <= 40; end++ {
		if applied[end] != 1 {
			t.Errorf("transaction %s was applied %d times", end, applied[end])
		}
	}
	if c.EndLSN != 40 {
		t.Errorf("ended at %s", c.EndLSN)
	}
}

func TestVerdictWords(t *testing.T) {
	t.Parallel()
	for v, want := range map[Verdict]string{Fit: "fit", Duplicate: "duplicate", Gap: "gap", Foreign: "foreign", NextIncarnation: "next_incarnation", 0: "unknown"} {
		if v.String() != want {
			t.Errorf("got %s, want %s", v, want)
		}
	}
}

// A resync for the sake of one peer gives nothing twice to another one, which misses nothing.
func TestGapOfAnotherPeer(t *testing.T) {
	t.Parallel()
	at := Checkpoint{Origin: "eu", Epoch: log1, Incarnation: 3, FrameNo: 9, EndLSN: 500, Seen: 500, Mark: wal.Mark{EndLSN: 480, XID: 7}}
	for name, c := range map[string]struct {
		prev     wal.LSN
		sameWAL  bool
		covers   bool
		end      wal.LSN
		repeated bool
	}{
		"it misses nothing":          {300, true, true, 500, true},
		"it misses something":        {501, true, false, 501, false},
		"the server was restored":    {300, false, false, 300, false},
		"restored, and far behind":   {501, false, false, 501, false},
		"it begins just where it is": {500, true, true, 500, true},
	} {
		open := FrameRef{Origin: "eu", Epoch: log1, Incarnation: 4, Number: 1, PrevEndLSN: c.prev, EndLSN: c.prev, Resync: true, SameWAL: c.sameWAL}
		if v := at.Check(open); v != NextIncarnation {
			t.Fatalf("%s: %s", name, v)
		}
		if rep := at.Repetition(open); (rep != nil) != c.repeated {
			t.Errorf("%s: repetition %v", name, rep)
		}
		next := at.Next(open)
		if err := MustAdvance(at, next, true); err != nil || next.EndLSN != c.end {
			t.Errorf("%s: goes on at %s, %v", name, next.EndLSN, err)
		}
		data := FrameRef{Origin: "eu", Epoch: log1, Incarnation: 4, Number: 2, PrevEndLSN: c.prev, EndLSN: c.prev + 100}
		if got := next.Covers(data, 470, 480); got != c.covers {
			t.Errorf("%s: the newest transaction is covered: %t", name, got)
		}
	}
}
