package pg_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/broker/brokertest"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Behind a page that is full to its end nothing is on disk, though the server says that the next record begins there.
func TestWALEndOfAFullPage(t *testing.T) {
	t.Parallel()
	conn := connect(t, dsn(t))
	const page = 8192
	said := func() (next wal.LSN) {
		var text string
		if err := conn.QueryRow(t.Context(), `select pg_current_wal_insert_lsn()::text`).Scan(&text); err != nil {
			t.Fatal(err)
		}
		next, err := wal.ParseLSN(text)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	emit := func(bytes int) {
		exec(t, conn, `select pg_logical_emit_message(false, 'fill', '`+strings.Repeat("x", bytes)+`')`)
	}
	record := page // of one without content: the shortest of some, since other tests write between them, and some cross a page
	for range 50 {
		before := said()
		emit(40)
		record = min(record, int(said()-before)-40)
	}
	full := false
	for until := time.Now().Add(2 * time.Minute); time.Now().Before(until); { // other tests write beside this one
		if left := page - int(said()%page); left >= 2*record+300 {
			emit(left - 2*record - 100)
		}
		at := said()
		left := page - int(at%page)
		if left < record+16 || left > record+200 { // a longer one has a larger header
			emit(100)
			continue
		}
		emit(left - record)
		next := said()
		end, err := pg.WALEnd(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		if next%page != 24 || said() != next {
			continue
		}
		full = true
		if want := at + wal.LSN(left); end != want {
			t.Fatalf("the WAL ends at %s, want %s, the end of its page (the server says %s)", end, want, next)
		}
		// The server writes full pages by itself.
		brokertest.Until(t, "the WAL to be on disk up to its end", func() (flushed bool) {
			if err := conn.QueryRow(t.Context(), `select pg_current_wal_flush_lsn() >= $1::text::pg_lsn`, end.String()).Scan(&flushed); err != nil {
				t.Fatal(err)
			}
			return flushed
		})
		break
	}
	if !full {
		t.Fatal("no page was filled to its end")
	}
}
