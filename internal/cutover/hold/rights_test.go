package hold_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// A role that is left alone, with rights on columns of its own and the table's from PUBLIC or a group, has its columns behind the pause as before.
func TestColumnsOfLeftAlone(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.exec(`create role %s_batch login; create role %s_group; create role %s_late login in role %s_group; set role %s_owner; grant insert, update on item to public; grant update, insert on other to %s_group;
grant insert (id), update (id) on item to %s_batch; grant update (id) on other to %s_late with grant option; grant insert (n) on "Third" to %s_late; reset role`)
	p.o.Except = append(p.o.Except, p.name+"_batch", p.name+"_late")
	before := p.rights()
	p.take()
	p.may(`has_table_privilege('%s_batch', 'item', 'insert') and has_table_privilege('%s_batch', 'item', 'update') and has_table_privilege('%s_late', 'other', 'update')`, true)
	p.may(`has_table_privilege('%s_app', 'item', 'insert') or has_table_privilege('%s_app', 'other', 'update')`, false)
	// What is granted on a column in the pause stays as well.
	p.exec(`set role %s_owner; grant insert (id) on other to %s_late; reset role`)
	p.giveBack()
	p.may(`has_column_privilege('%s_late', 'other', 'id', 'insert') and exists (select from pg_attribute, aclexplode(attacl) x where attrelid = 'other'::regclass and x.privilege_type = 'INSERT')`, true)
	p.exec(`set role %s_owner; revoke insert (id) on other from %s_late; reset role`)
	if now := p.rights(); now != before {
		t.Errorf("rights were\n%s\nand are\n%s", before, now)
	}
}

// member pauses writes as a role that is a member of the tables' owner, and has a right on item of its own.
func (p *place) member() *pgx.Conn {
	p.Helper()
	p.exec(`create role %s_op login in role %s_owner; alter schema pgwaltz owner to %s_op; alter table pgwaltz.lead owner to %s_op; grant select on item to %s_op`)
	op, err := pg.Connect(p.Context(), pgtest.As(p.dsn, p.name+"_op"), pg.Options{Region: "eu", Role: "cutover"})
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { op.Close(context.Background()) })
	return op
}

// notAll wants that something is not given back, and that it is said what, and what to do.
func (p *place) notAll(op *pgx.Conn, says ...string) {
	p.Helper()
	_, err := hold.GiveBack(p.Context(), op)
	var e *hold.NotAllError
	if !errors.As(err, &e) {
		p.Fatal(err)
	}
	for _, s := range says {
		if !strings.Contains(e.What, strings.ReplaceAll(s, "%s", p.name)) {
			p.Errorf("%s, want %s", e.What, s)
		}
	}
	if s, err := hold.Load(p.Context(), op); err != nil || s == nil || !s.Paused {
		p.Errorf("%+v, %v", s, err)
	}
}

// Who is no member of the owner any more gets a warning from GRANT and REVOKE, and no error: what is not there behind them is kept and told.
func TestMemberNoMore(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	op := p.member()
	before := p.rights()
	if _, err := hold.Take(t.Context(), op, p.o); err != nil {
		t.Fatal(err)
	}
	p.exec(`revoke %s_owner from %s_op`)
	p.notAll(op, "the owner is %s_owner, whose rights %s_op has not", "grant it membership")
	p.may(`has_table_privilege('%s_app', 'item', 'insert')`, false)
	p.exec(`grant %s_owner to %s_op`)
	if gave, err := hold.GiveBack(t.Context(), op); !gave || err != nil {
		t.Fatal(gave, err)
	}
	if now := p.rights(); now != before {
		t.Errorf("rights were\n%s\nand are\n%s", before, now)
	}
}

// The same where a table has another owner now. What the new owner grants and revokes by hand counts.
func TestOwnerChanged(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	op := p.member()
	if _, err := hold.Take(t.Context(), op, p.o); err != nil {
		t.Fatal(err)
	}
	p.exec(`create role %s_heir login; alter table item owner to %s_heir`)
	p.notAll(op, "public.item", "the owner is %s_heir")
	p.may(`has_table_privilege('%s_app', 'item', 'insert')`, false)
	p.may(`has_table_privilege('%s_app', 'other', 'update') and has_column_privilege('%s_app', '"Third"', 'n', 'update')`, true)
	p.exec(`set role %s_heir; grant insert on item to %s_app; grant delete on item to public; grant insert, update, delete, truncate on item to %s_owner; revoke insert, update, delete, truncate on item from %s_op, %s_sidecar; reset role`)
	if gave, err := hold.GiveBack(t.Context(), op); !gave || err != nil {
		t.Fatal(gave, err)
	}
	p.may(`has_table_privilege('%s_app', 'item', 'insert') and not exists (select from pg_class, aclexplode(relacl) x where relname = 'item' and x.grantee = '%s_op'::regrole and x.privilege_type <> 'SELECT')`, true)
}
