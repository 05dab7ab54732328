package cutover

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// streamed gives both ends the tables of a stream that has applied nothing yet at the destination.
func (p *pair) streamed() {
	p.Helper()
	p.cfg = &config.Config{Cluster: "c", Region: "eu", Mode: config.ModeStream}
	for _, e := range []*End{p.Source, p.Destination} {
		pgtest.Exec(p.T, e.Conn, pgstore.Schema, parked.Schema, tablecopy.Schema)
	}
	p.applied("0/0")
}

// applied lets the destination have the source's WAL up to a position.
func (p *pair) applied(at string) {
	p.Helper()
	if _, err := p.d.Exec(p.Context(), `insert into pgwaltz.checkpoint (origin, system_id, timeline, slot, incarnation, frame_no, end_lsn, seen_lsn, chain, stream_seq)
values ('eu', $1, $2, 's', 1, 1, $3::text::pg_lsn, $3::text::pg_lsn, decode(repeat('00', 32), 'hex'), 1) on conflict (origin) do update set end_lsn = excluded.end_lsn`,
		text(p.T, p.s, `select system_identifier from pg_control_system()`), int(p.Source.Sys.Timeline), at); err != nil {
		p.Fatal(err)
	}
}

// finish is refused where the destination has not any more what wait and sequences have found: it may have failed over to a standby that lagged.
func TestFinishLooksAgain(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.streamed()
	for _, e := range []*End{p.Source, p.Destination} {
		pgtest.Exec(t, e.Conn, `create sequence public.s`)
	}
	pgtest.Exec(t, p.s, `select setval('public.s', 100)`)
	p.take()
	refused := func(says string) {
		t.Helper()
		var unready *NotReadyError
		if _, err := p.Finish(t.Context(), Finishing{}); !errors.As(err, &unready) || !strings.Contains(err.Error(), says) {
			t.Fatalf("%v, want %q", err, says)
		}
		if s, err := hold.Load(t.Context(), p.s); err != nil || s.Finished {
			t.Fatalf("it is finished: %+v %v", s, err)
		}
	}
	if err := hold.Done(t.Context(), p.Source.Conn, hold.Drained); err != nil {
		t.Fatal(err)
	}
	p.applied("F/0")
	at, err := p.Wait(t.Context(), Waiting{Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	p.sequence()
	p.at("100 true")

	p.applied(at.String())
	refused("and all writes are below " + at.String())
	p.applied((at + 8).String()) // what was written last is there, and its own notes were further
	refused("had noted F/0")
	p.applied("1/0") // and where it is ahead of what wait asks for, that is not all either
	var unready *NotReadyError
	if _, err := p.Wait(t.Context(), Waiting{Timeout: time.Minute}); !errors.As(err, &unready) || !strings.Contains(err.Error(), "gone back") {
		t.Fatal(err)
	}
	p.applied("F/0")
	if _, err := p.Wait(t.Context(), Waiting{Timeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, p.d, `select setval('public.s', 99)`)
	refused("sequence public.s of us is not ahead")
	p.sequence()
	p.Destination.Sys.Timeline++ // the notes are as they were: what they say is what counts
	if _, err := p.Finish(t.Context(), Finishing{}); err != nil {
		t.Fatal(err)
	}
	p.applied("0/0") // behind it the destination is in use
	if _, err := p.Finish(t.Context(), Finishing{}); err != nil {
		t.Fatal(err)
	}
}

// Where the destination's notes may not be read, another timeline is enough to be refused. A table of an older version has neither.
func TestFinishOnAnotherTimeline(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.streamed()
	p.take()
	if err := hold.Arrive(t.Context(), p.Source.Conn, 0, int(p.Destination.Sys.Timeline)); err != nil {
		t.Fatal(err)
	}
	p.applied("F/0")
	load := func() *hold.State {
		s, err := hold.Load(t.Context(), p.s)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if err := p.still(t.Context(), load()); err != nil {
		t.Fatal(err)
	}
	p.Destination.Sys.Timeline++
	if err := p.still(t.Context(), load()); err == nil || !strings.Contains(err.Error(), "timeline") {
		t.Fatal(err)
	}
	pgtest.Exec(t, p.s, `alter table pgwaltz.cutover drop applied, drop timeline`)
	if err := p.still(t.Context(), load()); err != nil {
		t.Fatal(err)
	}
	if err := hold.Arrive(t.Context(), p.Source.Conn, 7, 1); err != nil || load().Applied != 7 {
		t.Fatal(err)
	}
}

// A second run of pause-write keeps who is left alone, and refuses another list; where all is drained it only gives more time, and ends with nothing to give back.
func TestPauseAgain(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.streamed()
	p.applied("0/8")
	how := Pausing{Source: p.Source.ID(), Destination: p.Destination.ID(), Except: []string{"postgres"}, Timeout: time.Minute, Hold: time.Hour}
	first, err := p.PauseWrite(t.Context(), how)
	if err != nil {
		t.Fatal(err)
	}
	var usage *UsageError
	for _, other := range []Pausing{{Except: []string{"postgres", "pg_monitor"}}, {Connect: true}} {
		again := how
		again.Except, again.Connect = other.Except, other.Connect
		if _, err := p.PauseWrite(t.Context(), again); !errors.As(err, &usage) || !strings.Contains(err.Error(), "paused already") {
			t.Errorf("%v", err)
		}
	}
	// A role that reads goes on, since nothing of before is open any more.
	name := p.s.Config().Database
	pgtest.Exec(t, p.s, `create role `+name+`_reader login`)
	reader := pgtest.Connect(t, pgtest.As(p.eu, name+"_reader"))
	how.Except, how.Hold = nil, 2*time.Hour
	second, err := p.PauseWrite(t.Context(), how)
	if err != nil || second.Ended != 0 || second.Taken != nil || !second.Deadline.After(first.Deadline.Add(30*time.Minute)) {
		t.Fatalf("%+v %v", second, err)
	}
	pgtest.Exec(t, reader, `select 1`)
	s, err := hold.Load(t.Context(), p.s)
	if err != nil || !slices.Equal(s.LeftAlone, []string{"postgres"}) || !s.Drained || !s.Paused {
		t.Fatalf("%+v %v", s, err)
	}
	p.giveBack()
}

func (p *pair) giveBack() {
	p.Helper()
	if gave, err := p.ResumeWrite(p.Context(), false); !gave || err != nil {
		p.Fatal(gave, err)
	}
}

// Behind pg_upgrade the source has another system identifier. Who says which it is gets writes back, where it is that database.
func TestResumeWriteOfAnUpgradedSource(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.streamed()
	p.take()
	pgtest.Exec(t, p.s, `update pgwaltz.cutover set source = '7/' || current_database()`)
	other, id := *p.Source, p.Source.ID()
	other.Sys.SystemID++
	refused := func(says string) {
		t.Helper()
		p.Moved = says
		var identity *IdentityError
		if gave, err := p.ResumeWrite(t.Context(), false); gave || !errors.As(err, &identity) {
			t.Errorf("%q: %t %v", says, gave, err)
		}
	}
	refused("")
	refused(other.ID())
	pgtest.Exec(t, p.s, `update pgwaltz.cutover set source = '7/elsewhere'`)
	refused(id)
	pgtest.Exec(t, p.s, `update pgwaltz.cutover set source = '7/' || current_database()`)
	p.giveBack()
}
