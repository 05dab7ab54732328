package decoder

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// FuzzFeed feeds arbitrary message sequences. The input is a list of messages, each behind its
// length as a 16-bit number; a last one that is cut short is fed as it is.
func FuzzFeed(f *testing.F) {
	for _, path := range streams(f) {
		f.Add(pack(readStream(f, path)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg := goldenConfig()
		cfg.MaxPart = 2048
		d := New(cfg)
		var parts uint32
		var failed error
		for len(data) > 0 {
			var msg []byte
			msg, data = unpack(data)
			msg = bytes.Clone(msg) // the fuzzer's own input must stay
			tx, err := d.Feed(1, msg)
			for i := range msg {
				msg[i] = 0xA5 // nothing given out may depend on it any more
			}
			if failed != nil && err != failed {
				t.Fatalf("the error %v did not stay: %v", failed, err)
			}
			if err != nil {
				var e *Error
				if !errors.As(err, &e) || tx != nil {
					t.Fatalf("got %v with %v", tx, err)
				}
				failed = err
				continue
			}
			if tx != nil {
				check(t, tx, parts)
				parts++
				if !tx.More {
					parts = 0
				}
				if d.InTransaction() != tx.More {
					t.Fatal("InTransaction contradicts More")
				}
			}
		}
	})
}

// check holds what is true of every transaction part.
func check(t *testing.T, tx *wal.Transaction, part uint32) {
	t.Helper()
	if tx.Part != part || tx.More == (tx.EndLSN != 0) || !tx.More && tx.EndLSN <= tx.CommitLSN {
		t.Fatalf("part %d: %+v", part, tx)
	}
	for i := range tx.Changes {
		c := &tx.Changes[i]
		hasOld, hasNew := c.Old != nil, c.New != nil
		ok := c.Relation != nil
		switch c.Op {
		case wal.Insert:
			ok = ok && hasNew && !hasOld
		case wal.Update:
			ok = ok && hasNew
		case wal.Delete:
			ok = ok && hasOld && !hasNew
		case wal.Truncate:
			ok = ok && !hasOld && !hasNew
		default:
			ok = false
		}
		if !ok {
			t.Fatalf("change %d: %s with old %t, new %t", i, c.Op, hasOld, hasNew)
		}
		for _, tuple := range []wal.Tuple{c.Old, c.New} {
			if tuple == nil {
				continue
			}
			if len(tuple) != len(c.Relation.Columns) {
				t.Fatalf("change %d: %d values for %d columns", i, len(tuple), len(c.Relation.Columns))
			}
			for _, v := range tuple {
				null := v.Kind == wal.Null || v.Kind == wal.Unchanged
				if !null && v.Kind != wal.Text && v.Kind != wal.Binary || null && v.Bytes != nil || !null && v.Bytes == nil {
					t.Fatalf("change %d: value of kind %q with bytes %t", i, byte(v.Kind), v.Bytes != nil)
				}
			}
		}
	}
}

func pack(stream []recorded) []byte {
	var b []byte
	for _, r := range stream {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(r.msg))), r.msg...)
	}
	return b
}

func unpack(b []byte) (msg, rest []byte) {
	if len(b) < 2 {
		return b, nil
	}
	n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
	return b[2 : 2+n : 2+n], b[2+n:]
}

// TestFuzzSeeds writes the committed seeds with -update: hand-made sequences that the recorded
// streams do not have.
func TestFuzzSeeds(t *testing.T) {
	t.Parallel()
	seeds := map[string][][]byte{
		"parts":          {users('d'), begin(7, 100), insert(16400, "1", strings.Repeat("x", 3000), nil), insert(16400, "2", "y", nil), commit(100, 120)},
		"late_marker":    {users('d'), begin(7, 100), insert(16400, "1", strings.Repeat("x", 3000), nil), message(true, DefaultMarkerPrefix, "")},
		"marker":         {users('f'), begin(7, 100), message(true, DefaultMarkerPrefix, "eu"), insert(16400, "1", "x", nil), commit(100, 120)},
		"fill":           {users('f'), begin(7, 100), row('U', 16400, []byte("O"), tup("1", nil, "long"), []byte("N"), tup("1", true, true)), commit(100, 120)},
		"key_fill":       {users('d'), begin(7, 100), row('U', 16400, []byte("K"), tup("1", nil, nil), []byte("N"), tup(true, true, "z")), commit(100, 120)},
		"stream_start":   {{'S', 0, 0, 0, 1, 1}},
		"huge_truncate":  {begin(7, 100), append(be.AppendUint32([]byte{'T'}, 0xffffffff), 0)},
		"huge_message":   {append(cstr([]byte{'M', 0, 0, 0, 0, 0, 0, 0, 0, 1}, "pgwaltz.x"), 0xff, 0xff, 0xff, 0xff)},
		"many_columns":   {append(cstr(cstr(be.AppendUint32([]byte{'R'}, 1), "s"), "t"), 'd', 0xff, 0xff)},
		"no_string_end":  {[]byte("Y\x00\x00\x00\x01abc")},
		"negative_value": {users('d'), begin(7, 100), append(row('I', 16400, []byte("N"), []byte{0, 3, 't'}), 0xff, 0xff, 0xff, 0xff)},
		"empty":          {{}, {}},
	}
	for name, msgs := range seeds {
		var stream []recorded
		for _, m := range msgs {
			stream = append(stream, recorded{msg: m})
		}
		want := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", pack(stream))
		path := filepath.Join("testdata/fuzz/FuzzFeed", name)
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s differs from the sequence it stands for (rewrite with -update)", path)
		}
	}
}
