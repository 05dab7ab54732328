package decoder

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// BenchmarkFeedInsert is one small row of a large transaction.
func BenchmarkFeedInsert(b *testing.B) {
	d := New(Config{})
	msg := insert(16400, "123456", "somebody@example.org", nil)
	mustFeed(b, d, users('d'), begin(7, 100))
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		mustFeed(b, d, msg)
	}
}

// BenchmarkFeedUpdateFull is one update under identity FULL with a filled value.
func BenchmarkFeedUpdateFull(b *testing.B) {
	d := New(Config{})
	msg := row('U', 16400, []byte("O"), tup("123456", "somebody@example.org", "bio"), []byte("N"), tup("123456", "other@example.org", true))
	mustFeed(b, d, users('f'), begin(7, 100))
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		mustFeed(b, d, msg)
	}
}

// BenchmarkFeedTransaction is a whole transaction of one small row.
func BenchmarkFeedTransaction(b *testing.B) {
	d := New(Config{})
	mustFeed(b, d, users('d'))
	msgs := [][]byte{begin(7, 100), insert(16400, "123456", "somebody@example.org", nil), commit(100, 120)}
	b.ReportAllocs()
	for b.Loop() {
		mustFeed(b, d, msgs...)
	}
}

// BenchmarkFeedEcho is a transaction of one row that is suppressed.
func BenchmarkFeedEcho(b *testing.B) {
	d := New(Config{})
	mustFeed(b, d, users('d'))
	msgs := [][]byte{begin(7, 100), origin("pgwaltz_us"), insert(16400, "123456", "somebody@example.org", nil), commit(100, 120)}
	b.ReportAllocs()
	for b.Loop() {
		mustFeed(b, d, msgs...)
	}
}

func mustFeed(b *testing.B, d *Decoder, msgs ...[]byte) {
	for _, m := range msgs {
		if _, err := d.Feed(wal.LSN(1), m); err != nil {
			b.Fatal(err)
		}
	}
}
