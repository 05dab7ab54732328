package quarantine

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

var server pgtest.Server

func TestMain(m *testing.M) { pgtest.Main(m, &server) }

// Whoever sends what is refused without end fills no disk: the newest rows and bytes stay, and those
// only as long as they are to be kept.
func TestBounds(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, c, "create schema pgwaltz", Schema, Schema, LeftOutSchema)
	var s Store
	held := func() (rows, size, last int64) {
		t.Helper()
		if err := c.QueryRow(ctx, `select count(*), coalesce(sum(octet_length(message)), 0), coalesce(max(stream_seq), 0) from pgwaltz.quarantine`).Scan(&rows, &size, &last); err != nil {
			t.Fatal(err)
		}
		return rows, size, last
	}
	keep := func(seq int, data []byte) {
		t.Helper()
		if err := s.Keep(ctx, c, subscribe.Refused{Origin: "us", StreamSeq: uint64(seq), Reason: "it is damaged", Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	const sent = maxRows + 3*trimEvery
	for n := range sent {
		keep(n+1, fmt.Appendf(nil, "message %d", n))
	}
	if rows, _, last := held(); rows < maxRows || rows >= maxRows+trimEvery || last != sent {
		t.Errorf("of %d messages %d are kept, the newest is %d", sent, rows, last)
	}
	keep(sent, fmt.Appendf(nil, "message %d", sent-1)) // it is read again
	if n := count(t, c, "where stream_seq = "+fmt.Sprint(sent)); n != 1 {
		t.Errorf("a message that came twice has %d rows", n)
	}

	pgtest.Exec(t, c, "delete from pgwaltz.quarantine")
	large := bytes.Repeat([]byte{7}, 2<<20)
	for n := range 60 {
		keep(n+1, append(large[:len(large):len(large)], byte(n)))
		if rows, size, _ := held(); size > maxBytes+trimEvery*int64(len(large)+1) {
			t.Fatalf("%d messages have %d bytes", rows, size)
		}
	}
	s.kept = 0 // the bounds are looked at with the next one
	keep(1000, nil)
	if rows, size, last := held(); size > maxBytes || rows < 2 || last != 1000 {
		t.Errorf("%d messages have %d bytes, the newest is %d", rows, size, last)
	}

	// What is refused of a table is one row, however often it comes.
	for range 5 {
		if err := s.Note(ctx, c, "us", wal.RelationName{Schema: "pg_catalog", Name: "pg_authid"}, 7, 3); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(t, c, "where changes = 15 and message is null and reason like '%pg_authid%'"); n != 1 {
		t.Errorf("15 changes of a table have %d rows", n)
	}
	pgtest.Exec(t, c, "update pgwaltz.quarantine set seen_at = now() - interval '3 hours'")
	for _, long := range []time.Duration{0, 4 * time.Hour} { // 0 is for ever
		if err := Prune(ctx, c, long); err != nil {
			t.Fatal(err)
		}
		if rows, _, _ := held(); rows < 2 {
			t.Errorf("with a retention of %s %d rows are left", long, rows)
		}
	}
	if err := Prune(ctx, c, 2*time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := count(t, c, "where last_seen_at is null"); n != 0 {
		t.Errorf("%d messages are older than their retention", n)
	}
	if n := count(t, c, ""); n != 1 { // it was seen just now
		t.Errorf("%d rows are left", n)
	}
}

func count(t *testing.T, c *pgx.Conn, where string) (n int) {
	t.Helper()
	if err := c.QueryRow(t.Context(), "select count(*) from pgwaltz.quarantine "+where).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
