package node

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// The tables are elsewhere when they were in another database, or on another server, until that is noted.
func TestTablesThatWereElsewhere(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, c, "create schema pgwaltz", HomeSchema, HomeSchema)
	const here = 1<<63 + 7
	for i, step := range []struct {
		sql  string
		want bool
	}{
		{"select", false}, // nothing is noted yet
		{"select", false},
		{"update pgwaltz.home set database = 1", true},
		{"update pgwaltz.home set system_id = 8", true},
		{"select", false},
	} {
		pgtest.Exec(t, c, step.sql)
		if other, err := Elsewhere(ctx, c, here); err != nil || other != step.want {
			t.Errorf("step %d: %t, %v", i, other, err)
		}
		if err := Settle(ctx, c, here); err != nil {
			t.Error(err)
		}
	}
}
