package hold_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// A native subscription that applies as the tables' owners stops in a pause that holds them: from 16 on that is refused, until it is told to apply as its own
// owner. What it brings comes in the pause.
func TestAppliedAsOwner(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	dsn := server.Database(t)
	there := pgtest.Connect(t, dsn)
	pgtest.Exec(t, there, `create table item (id int primary key)`, `create publication p for table item`)
	slot := p.name + "_sub"
	pgtest.Exec(t, there, `select pg_create_logical_replication_slot('`+slot+`', 'pgoutput')`)
	// One at a time: it cannot be made in a transaction.
	pgtest.Exec(t, p.root, `create subscription `+slot+` connection '`+strings.ReplaceAll(dsn, "'", "''")+`' publication p with (create_slot = false, copy_data = false)`)
	defer func() {
		pgtest.Exec(t, p.root, `alter subscription `+slot+` disable`, `alter subscription `+slot+` set (slot_name = none)`, `drop subscription `+slot)
		come(t, there, `select not active from pg_replication_slots where slot_name = '`+slot+`'`)
		pgtest.Exec(t, there, `select pg_drop_replication_slot('`+slot+`')`)
	}()
	p.exec(`create role %s_keeper login; alter table item owner to %s_keeper; grant %s_keeper to %s_owner`)
	comes := func(id string) {
		t.Helper()
		pgtest.Exec(t, there, `insert into item values (`+id+`)`)
		come(t, p.root, `select exists (select from item where id = `+id+`)`)
	}
	comes("1")
	version, err := strconv.Atoi(p.ask(`show server_version_num`))
	if err != nil {
		t.Fatal(err)
	}
	if version >= 160000 {
		// So it is: without the right of the table's owner nothing comes.
		p.exec(`revoke insert on item from %s_keeper`)
		pgtest.Exec(t, there, `insert into item values (10)`)
		come(t, p.root, `select apply_error_count > 0 from pg_stat_subscription_stats where subname = '`+slot+`'`)
		p.exec(`grant insert on item to %s_keeper`)
		comes("11")
		p.refused(p.owner, "applied_as_owner")
		_, err := hold.Take(t.Context(), p.owner, p.o)
		if err == nil || !strings.Contains(err.Error(), "set (run_as_owner = true)") {
			t.Errorf("%v", err)
		}
		p.exec(`alter subscription ` + slot + ` disable`)
		if _, err := hold.Try(t.Context(), p.owner, p.o); err != nil {
			t.Errorf("disabled: %v", err)
		}
		p.exec(`alter subscription ` + slot + ` enable`)
		p.exec(`alter subscription ` + slot + ` set (run_as_owner = true)`)
	}
	p.take()
	p.may(`has_table_privilege('%s_keeper', 'item', 'insert')`, false)
	comes("2")
	p.giveBack()
}

// come waits until the question is answered with true.
func come(t *testing.T, conn *pgx.Conn, question string) {
	t.Helper()
	yes := false
	for end := time.Now().Add(time.Minute); !yes; {
		if err := conn.QueryRow(t.Context(), question).Scan(&yes); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", question)
		}
	}
}
