package audit_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// The table as setup makes it.
const conflictTable = `CREATE SCHEMA pgwaltz;
CREATE TABLE pgwaltz.conflict (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event_id uuid NOT NULL UNIQUE,
 detected_at timestamptz NOT NULL DEFAULT now(), region text, schema_name text, table_name text, key jsonb, type text, verdict text, reason text,
 winner text, loser text, local_stamp text, remote_stamp text, base_stamp text, local_row jsonb, remote_row jsonb, origin text, origin_xid bigint,
 commit_lsn pg_lsn, commit_time timestamptz, local_xid bigint, local_lsn pg_lsn)`

var server pgtest.Server

func TestMain(m *testing.M) { pgtest.Main(m, &server) }

// database makes a database of the test's own with the log's table in it.
func database(t *testing.T) *pgx.Conn {
	t.Helper()
	conn := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, conn, conflictTable)
	return conn
}
