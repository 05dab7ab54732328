package decoder

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

func TestGiantTransactionComesInParts(t *testing.T) {
	t.Parallel()
	const rows, maxPart = 1000, 4096
	d := New(Config{MaxPart: maxPart})
	msgs := [][]byte{users('d'), begin(7, 100)}
	for i := range rows {
		msgs = append(msgs, insert(16400, fmt.Sprint(i), "name", nil))
	}
	parts := feed(t, d, append(msgs, commit(100, 120))...)
	if len(parts) < 10 {
		t.Fatalf("%d parts", len(parts))
	}
	n := 0
	for i, p := range parts {
		last := i == len(parts)-1
		if p.XID != 7 || p.CommitLSN != 100 || int(p.Part) != i || p.More == last || (p.EndLSN == 120) != last || (p.EndLSN == 0) == last {
			t.Errorf("part %d: %+v", i, p)
		}
		if size := p.Size(); !last && (size < maxPart || size > maxPart+512) {
			t.Errorf("part %d has %d bytes, want about %d", i, size, maxPart)
		}
		for j := range p.Changes {
			if got := string(p.Changes[j].New[0].Bytes); got != fmt.Sprint(n) {
				t.Fatalf("row %d has key %s", n, got)
			}
			n++
		}
	}
	if n != rows {
		t.Errorf("%d rows came out, want %d", n, rows)
	}
	// The next transaction starts to count anew.
	if tx := feedOne(t, d, begin(8, 200), commit(200, 220)); tx.Part != 0 || tx.More || tx.EndLSN != 220 {
		t.Errorf("the next transaction: %+v", tx)
	}
}

// A single value above MaxPart makes a part of its own; the last part may then be empty.
func TestHugeRowIsAPart(t *testing.T) {
	t.Parallel()
	parts := feed(t, New(Config{MaxPart: 1000}), begin(7, 100), users('d'),
		insert(16400, "1", strings.Repeat("x", 100_000), nil), commit(100, 120))
	if len(parts) != 2 || !parts[0].More || len(parts[0].Changes) != 1 || parts[1].More || len(parts[1].Changes) != 0 || parts[1].EndLSN != 120 {
		t.Errorf("got %d parts: %+v", len(parts), parts)
	}
}

func TestMessagesFillPartsToo(t *testing.T) {
	t.Parallel()
	parts := feed(t, New(Config{MaxPart: 1000}), begin(7, 100),
		message(true, "pgwaltz.x", strings.Repeat("x", 2000)), message(true, "pgwaltz.x", "y"), commit(100, 120))
	if len(parts) != 2 || len(parts[0].Messages) != 1 || len(parts[1].Messages) != 1 {
		t.Errorf("got %d parts: %+v", len(parts), parts)
	}
}

// Who copies rows wherever they come from leaves out no origin.
func TestAllOrigins(t *testing.T) {
	t.Parallel()
	d := New(Config{AllOrigins: true})
	tx := feedOne(t, d, users('d'), begin(7, 100), origin("anybody"), insert(16400, "1", "x", nil), commit(100, 120))
	if tx.Origin != "anybody" || len(tx.Changes) != 1 || tx.Applied || d.Suppressed() != 0 {
		t.Errorf("got %+v, %d suppressed", tx, d.Suppressed())
	}
}

// Which transactions are echoes, and what comes out for them.
func TestSuppression(t *testing.T) {
	t.Parallel()
	cfg := Config{Marker: []byte("cluster eu"), ForwardOrigins: []string{"import", "legacy"}}
	ins := insert(16400, "1", "x", nil)
	tests := []struct {
		name   string
		msgs   [][]byte
		origin string
		kept   int // changes
		notes  int // messages
		echo   bool
	}{
		{"local", [][]byte{ins}, "", 1, 0, false},
		{"origin", [][]byte{origin("pgwaltz_us"), ins, ins}, "pgwaltz_us", 0, 0, true},
		{"origin without changes", [][]byte{origin("pgwaltz_us")}, "pgwaltz_us", 0, 0, true},
		{"forwarded origin", [][]byte{origin("legacy"), ins}, "legacy", 1, 0, false},
		{"forwarded and another", [][]byte{origin("legacy"), ins, origin("sub"), ins}, "sub", 0, 0, true},
		{"another and forwarded", [][]byte{origin("sub"), origin("legacy"), ins}, "sub", 0, 0, true},
		{"marker", [][]byte{message(true, "pgwaltz.apply", "cluster eu"), ins}, MarkerOrigin, 0, 0, true},
		{"marker behind a row", [][]byte{ins, message(true, "pgwaltz.note", "n"), message(true, "pgwaltz.apply", "cluster eu"), ins}, MarkerOrigin, 0, 0, true},
		{"marker and origin", [][]byte{origin("pgwaltz_us"), message(true, "pgwaltz.apply", "cluster eu"), ins}, "pgwaltz_us", 0, 0, true},
		{"marker in a forwarded transaction", [][]byte{origin("legacy"), message(true, "pgwaltz.apply", "cluster eu"), ins}, MarkerOrigin, 0, 0, true},
		{"marker of another cluster", [][]byte{message(true, "pgwaltz.apply", "other"), ins}, "", 1, 1, false},
		{"marker that is not transactional", [][]byte{message(false, "pgwaltz.apply", "cluster eu"), ins}, "", 1, 0, false},
		{"note in an echo", [][]byte{origin("pgwaltz_us"), message(true, "pgwaltz.note", "n"), truncate(16400)}, "pgwaltz_us", 0, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := New(cfg)
			msgs := append([][]byte{users('d'), begin(7, 100)}, tt.msgs...)
			tx := feedOne(t, d, append(msgs, commit(100, 120))...)
			if tx.Origin != tt.origin || len(tx.Changes) != tt.kept || len(tx.Messages) != tt.notes || tx.EndLSN != 120 {
				t.Errorf("got %+v", tx)
			}
			if tt.echo && (tx.Changes != nil || tx.Messages != nil) {
				t.Errorf("an echo holds something: %+v", tx)
			}
			if got := d.Suppressed() == 1; got != tt.echo {
				t.Errorf("%d suppressed", d.Suppressed())
			}
			// Nothing of it stays for the next transaction.
			next := feedOne(t, d, begin(8, 200), ins, commit(200, 220))
			if next.Origin != "" || len(next.Changes) != 1 {
				t.Errorf("the next transaction: %+v", next)
			}
		})
	}
}

// An echo is never given out in parts, however large, and takes no memory.
func TestGiantEcho(t *testing.T) {
	t.Parallel()
	d := New(Config{MaxPart: 1000})
	msgs := [][]byte{begin(7, 100), message(true, DefaultMarkerPrefix, ""), users('d')}
	for range 500 {
		msgs = append(msgs, insert(16400, "1", "x", nil))
	}
	if tx := feedOne(t, d, append(msgs, commit(100, 120))...); tx.Changes != nil || tx.Origin != MarkerOrigin || tx.More || tx.Part != 0 {
		t.Errorf("got %+v", tx)
	}
}

func TestLateMarker(t *testing.T) {
	t.Parallel()
	for name, late := range map[string][]byte{"marker": message(true, DefaultMarkerPrefix, ""), "origin": origin("us")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := New(Config{MaxPart: 100})
			feedOne(t, d, begin(7, 100), users('d'), insert(16400, "1", strings.Repeat("x", 100), nil))
			if _, err := d.Feed(1, late); !errors.Is(err, ErrLateMarker) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestMessages(t *testing.T) {
	t.Parallel()
	var outside []wal.Message
	d := New(Config{OnMessage: func(m wal.Message) { outside = append(outside, m) }})
	tx := feedOne(t, d,
		message(false, "pgwaltz.a", "1"), message(false, "tool", "2"),
		begin(7, 100),
		message(true, "pgwaltz.b", "3"), message(true, "tool", "4"), message(false, "pgwaltz.c", "5"),
		commit(100, 120))
	want := []wal.Message{{Transactional: true, LSN: 99, Prefix: "pgwaltz.b", Content: []byte("3")}}
	if !reflect.DeepEqual(tx.Messages, want) {
		t.Errorf("in the transaction: %+v", tx.Messages)
	}
	want = []wal.Message{{LSN: 99, Prefix: "pgwaltz.a", Content: []byte("1")}, {LSN: 99, Prefix: "pgwaltz.c", Content: []byte("5")}}
	if !reflect.DeepEqual(outside, want) {
		t.Errorf("outside: %+v", outside)
	}
	// Without a callback they are dropped.
	feedOne(t, New(Config{}), message(false, "pgwaltz.a", "1"), begin(7, 100), commit(100, 120))
}
