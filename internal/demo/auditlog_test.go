package demo

import (
	"slices"
	"strings"
	"testing"
)

func TestLosersAreReadFromEitherSide(t *testing.T) {
	t.Parallel()
	r := oneDatabase(t)[0]
	if _, err := r.pool.Exec(t.Context(), `CREATE SCHEMA pgwaltz;
		CREATE TABLE pgwaltz.conflict (region text, origin text, table_name text, key jsonb, type text, loser text, local_row jsonb, remote_row jsonb);
		INSERT INTO pgwaltz.conflict VALUES
		('eu', 'us', 'users', '{"uuid": "local lost"}', 'update_origin_differs', 'eu', '{"groups": ["eu-1"]}', '{"groups": ["us-1"]}'),
		('eu', 'us', 'users', '{"uuid": "remote lost"}', 'update_origin_differs', 'us', '{"groups": ["eu-2"]}', '{"groups": ["us-2"]}'),
		('eu', 'eu', 'users', '["own event lost"]', 'update_origin_differs', 'eu', '{"groups": ["us-3"]}', '{"groups": ["eu-3"]}'),
		('eu', 'us', 'users', '{"uuid": "delete lost"}', 'delete_origin_differs', 'us', '{"groups": ["eu-4"]}', '{"groups": ["eu-0"]}'),
		('eu', 'us', 'users', '{"uuid": "delete won"}', 'delete_origin_differs', 'eu', '{"groups": ["eu-5"]}', NULL),
		('eu', 'us', 'users', '{"uuid": "tombstone lost"}', 'update_deleted', 'eu', NULL, '{"groups": ["us-6"]}'),
		('eu', 'us', 'users', '{"uuid": "parked"}', 'update_exists', '', NULL, NULL),
		('eu', 'us', 'sessions', '{"uuid": "other table"}', 'update_deleted', 'eu', NULL, NULL)`); err != nil {
		t.Fatal(err)
	}
	list, err := r.losers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range list {
		line := b.key + ": " + b.loser + " " + b.id
		if b.isDelete {
			line += " delete"
		}
		got = append(got, line)
	}
	slices.Sort(got)
	want := []string{"delete lost: us eu-0 delete", "delete won: eu eu-5", "local lost: eu eu-1", "own event lost: eu eu-3", "remote lost: us us-2", "tombstone lost: eu  delete"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}
