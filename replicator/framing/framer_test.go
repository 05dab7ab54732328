package framing

import (
	"errors"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

var rel = &wal.Relation{Schema: "public", Name: "t", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Columns: []wal.Column{
	{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true},
}}

// start is when the tests begin.
var start = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

func tx(at wal.LSN, now time.Time) *wal.Transaction {
	row := wal.Tuple{{Kind: wal.Text, Bytes: []byte("1")}, {Kind: wal.Text, Bytes: []byte("v")}}
	return &wal.Transaction{
		XID: wal.XID(at), CommitLSN: at, EndLSN: at + 50, CommitTime: wal.MicrosOf(now),
		Changes: []wal.Change{{Op: wal.Insert, Relation: rel, New: row}},
	}
}

// part is a part of the transaction that commits at at; the last one has the end.
func part(at wal.LSN, n uint32, more bool, now time.Time) *wal.Transaction {
	t := tx(at, now)
	t.Part, t.More = n, more
	if more {
		t.EndLSN = 0
	}
	return t
}

type sink struct {
	frames []wire.Frame
	err    error
}

func (s *sink) put(f wire.Frame) error {
	s.frames = append(s.frames, f)
	return s.err
}

// ends lists kind and end of the packets.
func (s *sink) ends() (out []wal.LSN) {
	for _, f := range s.frames {
		if f.Header.Flags.Has(wire.Last) {
			out = append(out, f.Header.EndLSN)
		}
	}
	return out
}

func newFramer(t *testing.T, tail wire.Position) (*Framer, *sink) {
	t.Helper()
	s := &sink{}
	f := New(Config{
		Encoder: wire.EncoderConfig{Cluster: "c", Origin: "a", Epoch: wal.Epoch{SystemID: 7, Timeline: 1, Slot: "s"}},
		Tail:    tail, FrameBytes: 1 << 20, Linger: 3 * time.Millisecond, Heartbeat: 10 * time.Second, Put: s.put,
	}, start)
	if err := f.Begin(start); err != nil {
		t.Fatal(err)
	}
	return f, s
}

func next(t *testing.T, f *Framer, now time.Time, inFlight int) time.Time {
	t.Helper()
	due, err := f.Next(now, inFlight)
	if err != nil {
		t.Fatal(err)
	}
	return due
}

func add(t *testing.T, f *Framer, tx *wal.Transaction, now time.Time) {
	t.Helper()
	if err := f.Add(tx, now); err != nil {
		t.Fatal(err)
	}
}

func TestAnIncarnationBeginsWithItsPosition(t *testing.T) {
	t.Parallel()
	if _, s := newFramer(t, wire.Position{Incarnation: 3, EndLSN: 40}); len(s.frames) != 1 || s.frames[0].Header.Kind != wire.Heartbeat || s.frames[0].Header.EndLSN != 40 {
		t.Errorf("a new incarnation begins with %v", s.frames)
	}
	if _, s := newFramer(t, wire.Position{Incarnation: 3, Number: 9, EndLSN: 40}); len(s.frames) != 0 {
		t.Errorf("an incarnation that goes on begins with %v", s.frames)
	}
}

func TestNextSendsAtOnceOrSaysWhen(t *testing.T) {
	t.Parallel()
	f, s := newFramer(t, wire.Position{Incarnation: 1, Number: 1, EndLSN: 40})
	add(t, f, tx(100, start), start)
	if due := next(t, f, start, 0); !due.IsZero() || len(s.frames) != 1 {
		t.Fatalf("idle: due %v, %d frames", due, len(s.frames))
	}
	add(t, f, tx(200, start), start)
	if due := next(t, f, start, 1); due != start.Add(3*time.Millisecond) || len(s.frames) != 1 {
		t.Fatalf("under way: due %v, %d frames", due, len(s.frames))
	}
	later := start.Add(2 * time.Millisecond)
	add(t, f, tx(300, later), later)
	if due := next(t, f, later, 1); due != start.Add(3*time.Millisecond) {
		t.Fatalf("a later transaction moves the time to %v", due)
	}
	if due := next(t, f, start.Add(3*time.Millisecond), 1); !due.IsZero() || len(s.frames) != 2 || s.frames[1].Header.Transactions != 2 {
		t.Fatalf("due %v, %d frames", due, len(s.frames))
	}
	if got := s.ends(); got[1] != 350 || f.Decoded() != 350 {
		t.Errorf("ends %v, decoded %s", got, f.Decoded())
	}
}

func TestFramesFillUpWhenTheWALIsBehindOrBusy(t *testing.T) {
	t.Parallel()
	f, _ := newFramer(t, wire.Position{Incarnation: 1, Number: 1, EndLSN: 40})
	add(t, f, tx(100, start.Add(-time.Second)), start)
	if due := next(t, f, start, 0); due != start.Add(behindLinger) {
		t.Errorf("a second behind: due %v", due.Sub(start))
	}
	f, _ = newFramer(t, wire.Position{Incarnation: 1, Number: 1, EndLSN: 40})
	f.Count(1, 1, start)
	f.Count(200, 200, start.Add(rateWindow))
	now := start.Add(rateWindow)
	add(t, f, tx(100, now), now)
	if due := next(t, f, now, 0); due != now.Add(6*time.Millisecond) {
		t.Errorf("4000 transactions in a second: due after %v", due.Sub(now))
	}
}

// TestGatheringFollowsTheLoad: what comes seldom is never held, nor what comes often in single rows;
// many changes in few transactions gather until a frame is worth its fsync.
func TestGatheringFollowsTheLoad(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what                  string
		transactions, changes int // within a second
		want                  time.Duration
	}{
		{"quiet", 20, 20, 0},
		{"few large transactions", 60, 60_000, 0},
		{"many small ones", 1000, 1000, 0},
		{"many with some rows each", 400, 5000, 21 * time.Millisecond},
		{"more of them", 1000, 13_000, 16 * time.Millisecond},
		{"very many", 8000, 8000, 6 * time.Millisecond},
	} {
		f, s := newFramer(t, wire.Position{Incarnation: 1, Number: 1, EndLSN: 40})
		f.Count(1, 1, start)
		now := start.Add(time.Second)
		f.Count(c.transactions, c.changes, now)
		add(t, f, tx(100, now), now)
		due := next(t, f, now, 0)
		if held := len(s.frames) == 0; held != (c.want > 0) || held && due.Sub(now) != c.want {
			t.Errorf("%s: held %v until %v", c.what, held, due.Sub(now))
		}
	}
}

func TestPartsArePacketsWithoutAPosition(t *testing.T) {
	t.Parallel()
	f, s := newFramer(t, wire.Position{Incarnation: 1, Number: 1, EndLSN: 40})
	add(t, f, tx(100, start), start)
	add(t, f, part(200, 0, true, start), start)
	if got := s.ends(); len(got) != 2 || got[0] != 150 || got[1] != 150 {
		t.Fatalf("ends %v: the gathered transaction first, then the part without an end", got)
	}
	f.Want()
	copied := false
	f.Hold(Extra{Kind: wire.Copy, Transactions: []*wal.Transaction{tx(1, start)}, Done: func(wire.Header) { copied = true }})
	next(t, f, start, 0)
	if err := f.Beat(start.Add(time.Minute)); err != nil || len(s.frames) != 2 || copied {
		t.Fatalf("%v: %d frames inside a transaction", err, len(s.frames))
	}
	add(t, f, part(200, 1, false, start), start)
	next(t, f, start, 0)
	next(t, f, start, 0)
	if got := s.ends(); !copied || got[len(got)-1] != 250 || f.InParts() {
		t.Errorf("ends %v, copied %v", got, copied)
	}
}

func TestWhatTheStreamHoldsIsKnown(t *testing.T) {
	t.Parallel()
	last := tx(100, start)
	f, _ := newFramer(t, wire.Position{Incarnation: 1, Number: 4, EndLSN: 150})
	f.cfg.Past = checkpoint.NewRepetition(wal.MarkOf(last), 150, 90)
	for _, c := range []struct {
		tx   *wal.Transaction
		want bool
	}{
		{tx(100, start), true}, {tx(101, start), false}, {part(140, 0, true, start), true}, {part(150, 0, true, start), false},
	} {
		if got, err := f.Known(c.tx); got != c.want || err != nil {
			t.Errorf("commit %s end %s: known %v", c.tx.CommitLSN, c.tx.EndLSN, got)
		}
	}
}

// A new incarnation from the slot publishes again what is known; one that was resumed does not.
func TestANewIncarnationHoldsWhatLiesBehindItsBeginning(t *testing.T) {
	t.Parallel()
	last := tx(100, start)
	for _, begin := range []wal.LSN{90, 150} {
		f, s := newFramer(t, wire.Position{Incarnation: 2, EndLSN: begin})
		f.cfg.Past = checkpoint.NewRepetition(wal.MarkOf(last), 150, 90)
		for _, c := range []struct {
			tx   *wal.Transaction
			want bool
		}{{tx(40, start), begin == 150}, {tx(100, start), begin == 150}, {part(120, 0, true, start), begin == 150}, {tx(160, start), false}} {
			if got, err := f.Known(c.tx); got != c.want || err != nil {
				t.Errorf("begins at %s: commit %s end %s: known %v (%v)", begin, c.tx.CommitLSN, c.tx.EndLSN, got, err)
			}
		}
		if s.frames[0].Header.Flags.Has(wire.Resumed) {
			t.Error("an incarnation says that it was resumed and was not")
		}
	}
	s := &sink{}
	f := New(Config{Encoder: wire.EncoderConfig{Cluster: "c", Origin: "eu"}, Tail: wire.Position{Incarnation: 2, EndLSN: 150}, Resumed: true, FrameBytes: 1 << 10, Put: s.put}, start)
	if err := f.Begin(start); err != nil {
		t.Fatal(err)
	}
	if err := f.Add(tx(200, start), start); err != nil {
		t.Fatal(err)
	}
	if err := f.Flush(start); err != nil {
		t.Fatal(err)
	}
	if len(s.frames) != 2 || !s.frames[0].Header.Flags.Has(wire.Resumed) || s.frames[1].Header.Flags.Has(wire.Resumed) {
		t.Errorf("a resumed incarnation says so in its first frame only: %v", s.frames)
	}
}

func TestHeldPacketsWaitForTheirPosition(t *testing.T) {
	t.Parallel()
	f, s := newFramer(t, wire.Position{Incarnation: 1, Number: 1, EndLSN: 40})
	kept := tx(1, start)
	kept.Changes = append(kept.Changes, kept.Changes[0])
	kept.Changes[1].Op = wal.Update
	f.Hold(Extra{Kind: wire.Copy, After: 150, Transactions: []*wal.Transaction{kept}, Keep: func(c *wal.Change) bool { return c.Op == wal.Update }})
	next(t, f, start, 0)
	if f.Held() != 1 || len(s.frames) != 0 {
		t.Fatalf("%d held, %d frames before the position", f.Held(), len(s.frames))
	}
	add(t, f, tx(100, start), start)
	next(t, f, start, 1)
	if f.Held() != 0 || len(s.frames) != 2 || s.frames[1].Header.Kind != wire.Copy || s.frames[1].Header.Changes != 1 || s.frames[1].Header.EndLSN != 150 {
		t.Errorf("%d held, frames %+v", f.Held(), s.frames)
	}
}

func passed(t *testing.T, f *Framer, at wal.LSN) {
	t.Helper()
	if err := f.Passed(at); err != nil {
		t.Fatal(err)
	}
}

func TestAnotherHistoryIsFoundBeforeAnythingIsFramed(t *testing.T) {
	t.Parallel()
	for name, feed := range map[string]func(f *Framer) error{
		"another transaction there": func(f *Framer) error {
			_, err := f.Known(tx(100, start.Add(time.Second)))
			return err
		},
		"nothing there": func(f *Framer) error { return f.Passed(400) },
		"one behind it": func(f *Framer) error {
			_, err := f.Known(tx(300, start))
			return err
		},
	} {
		f, s := newFramer(t, wire.Position{Incarnation: 2, EndLSN: 90}) // a new incarnation proves it too
		f.cfg.Past = checkpoint.NewRepetition(wal.MarkOf(tx(100, start)), 200, 90)
		begun := len(s.frames)
		if f.Proven() {
			t.Errorf("%s: proven before anything was shown", name)
		}
		if err := feed(f); !errors.Is(err, checkpoint.ErrHistory) || len(s.frames) != begun {
			t.Errorf("%s: %v, %d frames", name, err, len(s.frames))
		}
	}
}

func TestBeatSaysAPositionInAQuietStream(t *testing.T) {
	t.Parallel()
	f, s := newFramer(t, wire.Position{Incarnation: 1, Number: 1, EndLSN: 40})
	passed(t, f, 90)
	if err := f.Beat(start.Add(9 * time.Second)); err != nil || len(s.frames) != 0 {
		t.Fatalf("%v: %d frames before the interval is over", err, len(s.frames))
	}
	if err := f.Beat(start.Add(10 * time.Second)); err != nil || len(s.frames) != 1 || s.frames[0].Header.EndLSN != 90 {
		t.Fatalf("%v: frames %+v", err, s.frames)
	}
	passed(t, f, 95)
	f.Want()
	next(t, f, start.Add(11*time.Second), 3)
	if got := s.ends(); len(got) != 2 || got[1] != 95 {
		t.Errorf("a wanted position: ends %v", got)
	}
}

func TestErrorsOfTheStreamEndTheFramer(t *testing.T) {
	t.Parallel()
	f, s := newFramer(t, wire.Position{Incarnation: 1, Number: 1, EndLSN: 40})
	s.err = errors.New("no responders")
	add(t, f, tx(100, start), start)
	if _, err := f.Next(start, 0); !errors.Is(err, s.err) {
		t.Errorf("error %v", err)
	}
}
