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

func TestClassify(t *testing.T) {
	t.Parallel()
	code := func(c string) error { return fmt.Errorf("apply: %w", &pgconn.PgError{Code: c}) }
	tests := []struct {
		err  error
		want pg.Class
		gone bool
	}{
		{nil, pg.None, false},
		{code("08006"), pg.Retry, true},
		{code("08P01"), pg.Fatal, true},
		{code("40001"), pg.Retry, false},
		{code("40P01"), pg.Retry, false},
		{code("55P03"), pg.Retry, false},
		{code("55006"), pg.Retry, false},
		{code("55000"), pg.Human, false},
		{code("57014"), pg.Retry, false},
		{code("57P01"), pg.Retry, true},
		{code("57P03"), pg.Retry, true},
		{code("53300"), pg.Retry, false},
		{code("53100"), pg.Retry, false},
		{code("25006"), pg.Retry, false},
		{code("23505"), pg.Unique, false},
		{code("23P01"), pg.Unique, false},
		{code("23502"), pg.Human, false},
		{code("23503"), pg.Human, false},
		{code("22001"), pg.Human, false},
		{code("42501"), pg.Human, false},
		{code("42P01"), pg.Human, false},
		{code("42703"), pg.Human, false},
		{code("428C9"), pg.Human, false},
		{code("28P01"), pg.Fatal, false},
		{code("3D000"), pg.Fatal, false},
		{code("0A000"), pg.Human, false},
		{&pgconn.PgError{Code: "0A000", Routine: "RevalidateCachedQuery"}, pg.Retry, false},
		{code("P0001"), pg.Human, false},
		{code("XX000"), pg.Human, false},
		{fmt.Errorf("read: %w", io.ErrUnexpectedEOF), pg.Retry, true},
		{&net.OpError{Op: "read", Err: io.EOF}, pg.Retry, true},
		{&pg.ConnectError{Err: io.EOF}, pg.Retry, true},
		{context.Canceled, pg.Canceled, false},
		{&pg.ConfigError{}, pg.Fatal, false},
		{fmt.Errorf("own mistake"), pg.Human, false},
	}
	for _, tt := range tests {
		if got := pg.Classify(tt.err); got != tt.want {
			t.Errorf("Classify(%v) = %s, want %s", tt.err, got, tt.want)
		}
		if got := pg.Disconnected(tt.err); got != tt.gone {
			t.Errorf("Disconnected(%v) = %v, want %v", tt.err, got, tt.gone)
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
