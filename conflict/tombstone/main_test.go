package tombstone_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

var server pgtest.Server

func TestMain(m *testing.M) { pgtest.Main(m, &server) }

// database makes a database of the test's own with the tables of this room in it.
func database(t *testing.T) *pgx.Conn {
	t.Helper()
	conn := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, conn, "create schema pgwaltz", tombstone.Schema, tombstone.PastSchema, tombstone.ClockSchema, tombstone.HorizonSchema)
	return conn
}
