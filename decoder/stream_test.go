package decoder

import (
	"bufio"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

var update = flag.Bool("update", false, "rewrite testdata/streams/*.golden and the fuzz seeds")

// recorded is one message of a recorded stream.
type recorded struct {
	at  wal.LSN
	msg []byte
}

// readStream reads a file with lines of the form "0/16B3748 42...": position and message in hex.
func readStream(t testing.TB, path string) []recorded {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []recorded
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		pos, text, _ := strings.Cut(lines.Text(), " ")
		at, err := wal.ParseLSN(pos)
		if err != nil {
			t.Fatal(err)
		}
		msg, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, recorded{at, msg})
	}
	if lines.Err() != nil {
		t.Fatal(lines.Err())
	}
	return out
}

func streams(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/streams/*.stream")
	if err != nil || len(paths) == 0 {
		t.Fatalf("list recorded streams: %d found, %v", len(paths), err)
	}
	return paths
}

// goldenConfig is what the goldens are decoded with. The small MaxPart cuts the larger
// transactions of the recordings into parts.
func goldenConfig() Config {
	return Config{
		MaxPart:        8 << 10,
		ForwardOrigins: []string{"forwarded"},
		Key: func(rel *wal.Relation) error {
			if rel.Name == "pair" { // primary key (b, a)
				rel.PrimaryKey = []int{1, 0}
			} else if i := rel.Column("id"); i >= 0 {
				rel.PrimaryKey = []int{i}
			}
			return nil
		},
	}
}

func TestStreams(t *testing.T) {
	t.Parallel()
	for _, path := range streams(t) {
		name := strings.TrimSuffix(filepath.Base(path), ".stream")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p dumper
			cfg := goldenConfig()
			// Printed at the end only: what the decoder did not copy, or wrote to after it
			// gave it out, shows in the golden.
			var out []func()
			cfg.OnMessage = func(m wal.Message) { out = append(out, func() { p.message("", m) }) }
			d := New(cfg)
			var buf []byte // one buffer for all messages, as the connection has
			for _, r := range readStream(t, path) {
				buf = append(buf[:0], r.msg...)
				tx, err := d.Feed(r.at, buf)
				if err != nil {
					t.Fatal(err)
				}
				clear(buf[:cap(buf)])
				if tx != nil {
					out = append(out, func() { p.transaction(tx) })
				}
			}
			for _, print := range out {
				print()
			}
			if d.InTransaction() {
				t.Error("the stream ends inside a transaction")
			}
			golden := strings.TrimSuffix(path, ".stream") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(p.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if p.String() != string(want) {
				t.Errorf("decoded stream differs from %s (rewrite with -update):\n%s", golden, firstDifference(p.String(), string(want)))
			}
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := 0; i < len(g) && i < len(w); i++ {
		if g[i] != w[i] {
			return "got  " + g[i] + "\nwant " + w[i]
		}
	}
	return "one is longer"
}

// Every recorded message, cut short at every byte and with bytes added, is refused or decoded,
// and never panics. The rows of a suppressed transaction are not looked at.
func TestTruncatedMessages(t *testing.T) {
	t.Parallel()
	for _, path := range streams(t) {
		d := New(goldenConfig())
		for _, r := range readStream(t, path) {
			skipped := d.tx.suppressed && strings.IndexByte("IUD", r.msg[0]) >= 0
			step := max(1, len(r.msg)/200)
			for n := 0; n < len(r.msg); n += step {
				probe := copyState(d)
				_, err := probe.Feed(r.at, r.msg[:n])
				var e *Error
				if !skipped && (!errors.As(err, &e) || e.LSN != r.at) {
					t.Fatalf("%s: %s message at %s cut to %d of %d bytes: got %v, want an *Error",
						path, typeName(r.msg[0]), r.at, n, len(r.msg), err)
				}
			}
			probe := copyState(d)
			if _, err := probe.Feed(r.at, append(r.msg[:len(r.msg):len(r.msg)], 0)); !skipped && !errors.Is(err, ErrMalformed) {
				t.Fatalf("%s: %s message at %s with one more byte: got %v", path, typeName(r.msg[0]), r.at, err)
			}
			if _, err := d.Feed(r.at, r.msg); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// copyState returns a decoder in d's state that shares nothing it would change.
func copyState(d *Decoder) *Decoder {
	c := New(d.cfg)
	for oid, rel := range d.relations {
		c.relations[oid] = rel
	}
	c.tx = d.tx
	c.tx.messages = nil
	return c
}
