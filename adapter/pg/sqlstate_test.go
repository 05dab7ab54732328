package pg_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

func TestDisconnected(t *testing.T) {
	t.Parallel()
	code := func(c string) error { return fmt.Errorf("apply: %w", &pgconn.PgError{Code: c}) }
	tests := []struct {
		err  error
		gone bool
	}{
		{nil, false},
		{code("08006"), true},
		{code("08P01"), true},
		{code("40001"), false},
		{code("40P01"), false},
		{code("55P03"), false},
		{code("55006"), false},
		{code("55000"), false},
		{code("57014"), false},
		{code("57P01"), true},
		{code("57P03"), true},
		{code("53300"), false},
		{code("53100"), false},
		{code("25006"), false},
		{code("23505"), false},
		{code("23P01"), false},
		{code("23502"), false},
		{code("23503"), false},
		{code("22001"), false},
		{code("42501"), false},
		{code("42P01"), false},
		{code("42703"), false},
		{code("428C9"), false},
		{code("28P01"), false},
		{code("3D000"), false},
		{code("0A000"), false},
		{&pgconn.PgError{Code: "0A000", Routine: "RevalidateCachedQuery"}, false},
		{code("P0001"), false},
		{code("XX000"), false},
		{fmt.Errorf("read: %w", io.ErrUnexpectedEOF), true},
		{&net.OpError{Op: "read", Err: io.EOF}, true},
		{&pg.ConnectError{Err: io.EOF}, true},
		{context.Canceled, false},
		{&pg.ConfigError{}, false},
		{fmt.Errorf("own mistake"), false},
	}
	for _, tt := range tests {
		if got := pg.Disconnected(tt.err); got != tt.gone {
			t.Errorf("Disconnected(%v) = %v, want %v", tt.err, got, tt.gone)
		}
	}
}

func TestPasses(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"40001", "40P01", "55P03", "25006", "53100", "53200", "57014"} {
		if !pg.Passes(fmt.Errorf("store: %w", &pgconn.PgError{Code: code})) {
			t.Errorf("%s is for ever", code)
		}
		if pg.Passes(&pg.ConnectError{Err: &pgconn.PgError{Code: code}}) {
			t.Errorf("there is no session after %s, and it is used again", code)
		}
	}
	for _, err := range []error{nil, io.EOF, context.Canceled, &pgconn.PgError{Code: "57P01"}, &pgconn.PgError{Code: "08006"}, &pgconn.PgError{Code: "42P01"}, &pgconn.PgError{Code: "42501"}} {
		if pg.Passes(err) {
			t.Errorf("%v passes", err)
		}
	}
}

func TestQuoting(t *testing.T) {
	t.Parallel()
	if got := pg.QuoteTable(`a"b`, "C d"); got != `"a""b"."C d"` {
		t.Error(got)
	}
	for in, want := range map[string]string{`it's`: `'it''s'`, `a\b`: ` E'a\\b'`, "": "''"} {
		if got := pg.Literal(in); got != want {
			t.Errorf("Literal(%q) = %s, want %s", in, got, want)
		}
	}
}
