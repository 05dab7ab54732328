package rowkey_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

var server pgtest.Server

func TestMain(m *testing.M) { pgtest.Main(m, &server) }

// connect opens a session as the product does, in a database of its own.
func connect(t *testing.T, ddl ...string) *pgx.Conn {
	t.Helper()
	conn, err := pg.Connect(t.Context(), server.Database(t), pg.Options{Region: "eu", Role: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	pgtest.Exec(t, conn, append([]string{"set search_path = public"}, append(ddl, "set search_path = ''")...)...)
	return conn
}
