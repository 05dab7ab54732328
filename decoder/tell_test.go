package decoder

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// tell is the messages of one tell as a server sends them.
func tell(marker, content string) [][]byte {
	var out [][]byte
	for m := range SplitTell([]byte(marker), []byte(content)) {
		out = append(out, message(true, TellPrefix, string(m)))
	}
	return out
}

// What an applied transaction tells comes out of it, nothing else does.
func TestTellSurvivesSuppression(t *testing.T) {
	t.Parallel()
	for name, head := range map[string][]byte{"origin": origin("pgwaltz_us"), "marker": message(true, DefaultMarkerPrefix, "secret")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			large := strings.Repeat("0123456789", 250_000)
			msgs := [][]byte{users('d'), begin(7, 100), head, insert(16400, "1", "x", nil)}
			msgs = append(msgs, tell("secret", "one")...)
			msgs = append(msgs, insert(16400, "2", "x", nil), message(true, "pgwaltz.note", "n"))
			msgs = append(msgs, tell("secret", large)...)
			msgs = append(msgs, tell("secret", "")...)
			d := New(Config{Marker: []byte("secret"), MaxPart: 1 << 30})
			tx := feedOne(t, d, append(msgs, commit(100, 120))...)
			if !tx.Applied || tx.Changes != nil || len(tx.Messages) != 3 {
				t.Fatalf("got %d changes, %d messages, applied %t", len(tx.Changes), len(tx.Messages), tx.Applied)
			}
			for i, want := range []string{"one", large, ""} {
				if m := tx.Messages[i]; m.Prefix != TellPrefix || !bytes.Equal(m.Content, []byte(want)) {
					t.Errorf("tell %d has %d bytes, want %d", i, len(m.Content), len(want))
				}
			}
			if d.Foreign() != 0 || d.Suppressed() != 1 {
				t.Errorf("%d foreign, %d suppressed", d.Foreign(), d.Suppressed())
			}
		})
	}
}

// A large tell goes in pieces of bounded size.
func TestSplitTell(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, maxTell, maxTell + 1, 3 * maxTell} {
		pieces := slices.Collect(SplitTell([]byte("m"), make([]byte, n)))
		if want := max(1, (n+maxTell-1)/maxTell); len(pieces) != want {
			t.Errorf("%d bytes in %d pieces, want %d", n, len(pieces), want)
		}
		for i, p := range pieces {
			if len(p) > maxTell+2 || (p[1] == tellLast) != (i == len(pieces)-1) {
				t.Errorf("piece %d of %d bytes: %d bytes, kind %c", i, n, len(p), p[1])
			}
		}
	}
}

// A giant applied transaction that tells much comes in parts.
func TestTellsComeInParts(t *testing.T) {
	t.Parallel()
	msgs := [][]byte{begin(7, 100), origin("pgwaltz_us")}
	for range 10 {
		msgs = append(msgs, tell("secret", strings.Repeat("x", 500))...)
	}
	parts := feed(t, New(Config{Marker: []byte("secret"), MaxPart: 1000}), append(msgs, commit(100, 120))...)
	n := 0
	for i, p := range parts {
		n += len(p.Messages)
		if !p.Applied || p.Part != uint32(i) || p.More != (i < len(parts)-1) {
			t.Errorf("part %d: %+v", i, p)
		}
	}
	if n != 10 || len(parts) < 5 {
		t.Errorf("%d tells in %d parts", n, len(parts))
	}
}

// Anybody in the database may write a message; only our own are heard.
func TestForeignTells(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"nothing": "", "no marker": "lhello", "another marker": "secresslhello", "only the marker": "secret", "unknown kind": "secretxhello",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := New(Config{Marker: []byte("secret")})
			tx := feedOne(t, d, begin(7, 100), message(true, TellPrefix, content), commit(100, 120))
			if len(tx.Messages) != 0 || d.Foreign() != 1 {
				t.Errorf("messages %+v, %d foreign", tx.Messages, d.Foreign())
			}
		})
	}
	// Without a marker nobody's messages are known to be ours.
	d := New(Config{})
	tx := feedOne(t, d, begin(7, 100), message(true, TellPrefix, "lhello"), commit(100, 120))
	if len(tx.Messages) != 0 || d.Foreign() != 1 {
		t.Errorf("messages %+v, %d foreign", tx.Messages, d.Foreign())
	}
	// Outside of a transaction it is a message like any other.
	var outside []wal.Message
	d = New(Config{Marker: []byte("secret"), OnMessage: func(m wal.Message) { outside = append(outside, m) }})
	feedOne(t, d, message(false, TellPrefix, "secretlhello"), begin(7, 100), commit(100, 120))
	if len(outside) != 1 || d.Foreign() != 0 {
		t.Errorf("outside %+v, %d foreign", outside, d.Foreign())
	}
}
