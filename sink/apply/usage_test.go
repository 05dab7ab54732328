package apply

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Changes of a table in a schema that the role of the session may not use are set aside, like those of a table that it may not write. All others go in.
func TestASchemaThatMayNotBeUsed(t *testing.T) {
	t.Parallel()
	b := newBench(t, acctDDL+`; create schema hidden; create table hidden.acct (like public.acct including all)`)
	role := "r" + strings.ReplaceAll(b.query("select current_database()"), "-", "_")
	for _, sql := range []string{"create role " + role, "grant usage on schema public, pgwaltz to " + role, "grant all on all tables in schema public, pgwaltz, hidden to " + role,
		"grant all on all sequences in schema pgwaltz to " + role, "grant pg_read_all_stats to " + role} {
		b.exec(sql)
	}
	t.Cleanup(func() {
		_, _ = b.conn.Exec(context.Background(), "drop owned by "+role+"; drop role "+role)
	})
	connect := b.a.cfg.Connect
	b.a.Close()
	cfg := b.a.cfg
	cfg.Connect = func(ctx context.Context) (*pgx.Conn, error) {
		c, err := connect(ctx)
		if err == nil {
			_, err = c.Exec(ctx, "set role "+role)
		}
		return c, err
	}
	b.a = New(cfg)
	if _, err := b.a.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.a.Close)
	r := acct()
	other := *r
	other.Schema = "hidden"
	b.apply(b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(&other, row("1", "a", 1, 1)), wal.Change{Op: wal.Update, Relation: r, Old: row("1", "a", 1, 1), OldFull: true, New: row("1", "b", 2, 2), Stamp: wal.Stamp{Version: 2}}))
	b.want("select id, v from public.acct", "1|b")
	b.want("select schema_name, sqlstate from pgwaltz.parked", "hidden|42501")
}
