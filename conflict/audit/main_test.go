package audit_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

var server pgtest.Server

func TestMain(m *testing.M) { pgtest.Main(m, &server) }

// database makes a database of the test's own with the log's table in it.
func database(t *testing.T) *pgx.Conn {
	t.Helper()
	conn := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, conn, "create schema pgwaltz", audit.Schema, audit.ForgetSQL(time.Minute))
	return conn
}
