package pg_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

var server pgtest.Server

func TestMain(m *testing.M) { pgtest.Main(m, &server) }

// dsn makes a database of its own for the test.
func dsn(t *testing.T) string {
	t.Helper()
	return server.Database(t)
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pg.Connect(t.Context(), dsn, pg.Options{Region: "eu", Role: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func exec(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	pgtest.Exec(t, conn, statements...)
}

func as(dsn, user string) string { return pgtest.As(dsn, user) }
