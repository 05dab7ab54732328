package counterpart

import (
	"fmt"
	"testing"

	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

var server pgtest.Server

func TestMain(m *testing.M) { pgtest.Main(m, &server) }

// What is stored is known again. Columns of a table that is gone here, and of tables before the newest that stood for the same one, are
// forgotten; those of other origins are not touched.
func TestStoreAndLoad(t *testing.T) {
	t.Parallel()
	c := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, c, "create schema pgwaltz", Schema, "create table t (id int)", "create table gone (id int)")
	oid := func(table string) (n uint32) {
		if err := c.QueryRow(t.Context(), "select $1::text::regclass::oid", table).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	here, gone := oid("t"), oid("gone")
	var list []Column
	for table := uint32(3000000000); table < 3000000000+2*maxTables; table++ {
		list = append(list, Column{wal.ColumnID(table, 1), here, 1, "id"}, Column{wal.ColumnID(table, 2), here, 2, ""})
	}
	list = append(list, Column{wal.ColumnID(7, 1), gone, 1, "id"})
	for _, origin := range []string{"a", "b"} {
		if err := Store(t.Context(), c, origin, list); err != nil {
			t.Fatal(err)
		}
	}
	pgtest.Exec(t, c, "drop table gone")
	var m Map
	if err := m.Load(t.Context(), c, "a"); err != nil {
		t.Fatal(err)
	}
	last := uint32(3000000000 + 2*maxTables - 1)
	if len(m.Of(last)) != 2 || len(m.Of(last-maxTables+1)) != 2 || len(m.Of(last-maxTables)) != 0 || len(m.Of(7)) != 0 || len(m.Unstored()) != 0 {
		t.Error("others are known than the newest")
	}
	var left string
	if err := c.QueryRow(t.Context(), "select string_agg(origin || n, ' ' order by origin) from (select origin, count(*) as n from pgwaltz.counterpart group by 1) as x").Scan(&left); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("a%d b%d", 2*maxTables, len(list)); left != want {
		t.Errorf("stored are %s, want %s", left, want)
	}
}
