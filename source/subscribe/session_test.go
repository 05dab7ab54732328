package subscribe

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pgwaltz/pgwaltz/checkpoint"
)

func sessionAt(consumer, last uint64) *session {
	s := New(Config{Cluster: "c", Region: "us", Origin: "eu"})
	return &session{
		r: newFollower(s, checkpoint.Checkpoint{Origin: "eu"}), msgs: make(chan *nats.Msg, 1), inbox: "in",
		pulls: map[string]time.Time{}, count: map[string]int{}, consumer: consumer, last: last,
	}
}

// A heartbeat that counts more messages as delivered than came ends the session at once; one that counts as
// many, or none because the server does not say, is a sign of life.
func TestAHeartbeatTellsOfLostMessages(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		says string
		lost bool
	}{{"7", false}, {"6", false}, {"8", true}, {"", false}, {"many", false}} {
		s := sessionAt(7, 7)
		m := nats.NewMsg("in.1")
		m.Header.Set("Status", "100")
		m.Header.Set("Description", "Idle Heartbeat")
		if c.says != "" {
			m.Header.Set("Nats-Last-Consumer", c.says)
		}
		err := s.take(t.Context(), m)
		if errors.Is(err, errReread) != c.lost || !c.lost && err != nil {
			t.Errorf("7 came, the heartbeat says %q: %v", c.says, err)
		}
		if alive := s.r.s.State().Reachable; alive == c.lost {
			t.Errorf("7 came, the heartbeat says %q: alive %v", c.says, alive)
		}
	}
}

// A quiet stream is asked for its end soon, then ever less often, and soon again behind a message. What it
// holds and does not deliver ends the session at the second answer.
func TestAQuietStreamIsAskedLessAndLessOften(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		end := uint64(7)
		s := sessionAt(7, 7)
		asked := 0
		s.end = func() (uint64, error) { asked++; return end, nil }
		q := quietness{since: time.Now()}
		step := func() time.Duration {
			d, err := s.probe(t.Context(), &q)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		wait, gaps := step(), ""
		for range 6 {
			<-time.After(wait)
			wait = step()
			gaps += fmt.Sprint(wait, " ")
		}
		if want := "400ms 800ms 1.6s 3.2s 4s 4s "; gaps != want || asked != 6 {
			t.Errorf("%d questions, with pauses of %s, want %s", asked, gaps, want)
		}
		s.last, end = 8, 8
		if wait := step(); wait != probeEvery {
			t.Errorf("behind a message the stream is asked after %s", wait)
		}
		<-time.After(probeEvery)
		end = 9
		if wait := step(); wait != probeEvery {
			t.Errorf("a stream that holds more is asked again after %s", wait)
		}
		<-time.After(probeEvery)
		if _, err := s.probe(t.Context(), &q); !errors.Is(err, errReread) {
			t.Errorf("a stream that holds more, twice: %v", err)
		}
	})
}

// Of the pulls under way one has heartbeats; when it ends, the next one has.
func TestOnePullHasHeartbeats(t *testing.T) {
	t.Parallel()
	s := sessionAt(0, 0)
	pull := func(id string) bool {
		d := s.heartbeat(id)
		s.pulls[id] = time.Now()
		return d > 0
	}
	if !pull("1") || pull("2") {
		t.Error("not the first of two has heartbeats")
	}
	s.ended("2", true)
	if pull("3") {
		t.Error("the third has heartbeats beside the first")
	}
	s.ended("1", true)
	if !pull("4") {
		t.Error("behind the first nobody has heartbeats")
	}
}
