package slot

import (
	"bufio"
	"crypto/tls"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// A walsender stands in: it sends single records with short pauses for as long as it is told to, and
// after that bursts, each when it is asked for one.
type sender struct {
	conn   net.Conn
	single atomic.Bool
	bursts chan struct{}
}

const (
	wearRecord = 4 << 10
	wearBurst  = 8 << 20
)

func (s *sender) run() {
	defer s.conn.Close()
	gap := time.NewTicker(20 * time.Microsecond)
	defer gap.Stop()
	for s.single.Load() {
		if _, err := s.conn.Write(make([]byte, 200)); err != nil {
			return
		}
		<-gap.C
	}
	for range s.bursts {
		for sent := 0; sent < wearBurst; sent += wearRecord {
			if _, err := s.conn.Write(make([]byte, wearRecord)); err != nil {
				return
			}
		}
	}
}

// worn is the reading end, as connection.loop reads.
type worn struct {
	in    *bufio.Reader
	below buffer
	pace  pace
	from  *sender
}

// newWorn connects a reader to a sender; it begins with single records if single is set.
func newWorn(t *testing.T, single bool, config *tls.Config) *worn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := pg.DialQuiet(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	there, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		there, conn = tls.Server(there, config), tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
	s := &sender{conn: there, bursts: make(chan struct{})}
	s.single.Store(single)
	go s.run()
	t.Cleanup(func() {
		s.single.Store(false)
		conn.Close()
		close(s.bursts)
	})
	return &worn{in: bufio.NewReaderSize(conn, readBuffer), below: bufferOf(conn), pace: pace{window: time.Now()}, from: s}
}

// round takes what is there, as connection.receive does, and breathes.
func (w *worn) round(t *testing.T) (read int) {
	t.Helper()
	got := 0
	for first := true; first || w.in.Buffered() > 0 || w.below.Buffered() > 0; first = false {
		n, err := w.in.Discard(min(200, max(w.in.Buffered(), 1)))
		if err != nil {
			t.Fatal(err)
		}
		read += n
		got++
	}
	if w.below.Drained() {
		w.pace.breathe(got)
	}
	return read
}

// burst reads a burst, and whatever is left of single records before it.
func (w *worn) burst(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	w.from.bursts <- struct{}{}
	for read := 0; read < wearBurst; {
		read += w.round(t)
	}
	return time.Since(began)
}

// TestAReaderDoesNotWearOut: after many short sleeps a reader takes a burst as fast as a new one. One
// that had run for minutes once took 0.85 MB in a second, until it was started again.
// PGWALTZ_WEAR=5m makes it sleep that long.
func TestAReaderDoesNotWearOut(t *testing.T) {
	t.Parallel()
	span := time.Second
	if v := os.Getenv("PGWALTZ_WEAR"); v != "" {
		var err error
		if span, err = time.ParseDuration(v); err != nil {
			t.Fatal(err)
		}
	}
	config := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
	for name, with := range map[string]*tls.Config{"plain": nil, "TLS": config} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old := newWorn(t, true, with)
			for began := time.Now(); time.Since(began) < span || old.pace.pauses < 500; {
				old.round(t)
				if time.Since(began) > span+time.Minute {
					t.Fatalf("%d pauses in %v: the records did not come one by one", old.pace.pauses, time.Since(began))
				}
			}
			old.from.single.Store(false)
			fresh := newWorn(t, false, with)
			pauses := old.pace.pauses
			var best [2]time.Duration
			for range 5 { // other work on the machine makes single bursts slow
				for i, w := range []*worn{old, fresh} {
					if d := w.burst(t); best[i] == 0 || d < best[i] {
						best[i] = d
					}
				}
			}
			t.Logf("after %d pauses %v, new %v", pauses, best[0], best[1])
			if best[0] > 4*best[1]+50*time.Millisecond {
				t.Errorf("after %d pauses a burst takes %v, and a new reader takes %v", pauses, best[0], best[1])
			}
		})
	}
}
