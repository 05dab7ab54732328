package apply

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/wal"
)

func pairRel(name string) *wal.Relation {
	return &wal.Relation{Schema: "public", Name: name, Identity: wal.IdentityFull, PrimaryKey: []int{0}, Columns: []wal.Column{
		{Name: "id", OID: 23, Key: true}, {Name: "other", OID: 23, Key: true}, {Name: "version", OID: 20, Key: true}, {Name: "updated_at", OID: 1184, Key: true},
	}}
}

// enforcing makes a bench whose apply sessions keep foreign keys.
func enforcing(t *testing.T, ddl string) *bench {
	t.Helper()
	b := newBench(t, ddl)
	b.a.Close()
	cfg := b.a.cfg
	cfg.Replica = false
	cfg.Connect = func(ctx context.Context) (*pgx.Conn, error) {
		return pg.Connect(ctx, b.dsn, pg.Options{Region: "b", Role: "apply"})
	}
	b.a = New(cfg)
	if _, err := b.a.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.a.Close)
	return b
}

const circleDDL = `create table public.fa(id int primary key, other int, version bigint, updated_at timestamptz);
create table public.fb(id int primary key, other int references public.fa, version bigint, updated_at timestamptz);
alter table public.fa add constraint ring foreign key (other) references public.fb; alter table public.fa add constraint no check (version <> 7)`

// Rows that refer to each other, and wait one by one, go in together.
func TestCircleGoesInTogether(t *testing.T) {
	t.Parallel()
	b, fa, fb := enforcing(t, circleDDL), pairRel("fa"), pairRel("fb")
	b.apply(b.tx(nil, insert(fa, row("1", "5", 7, 1)), insert(fb, row("5", "1", 1, 1)), insert(fb, row("9", "33", 1, 1))))
	b.want("select table_name, key, sqlstate from pgwaltz.parked order by id", `fa|["1"]|23514;fb|["5"]|23503;fb|["9"]|23503`)
	retrier := b.retrier()
	b.turns(retrier, 2)
	b.exec("alter table fa drop constraint no")
	b.turns(retrier, 4)
	b.want("select id, other, (select count(*) from fb), (select count(*) from pgwaltz.parked) from fa", "1|5|1|1")

	// Their deletes wait for a row that refers to one of them, and go in together.
	b.exec("create table stop(f int references fa); insert into stop values (1)")
	b.apply(b.tx(nil, remove(fa, row("1", "5", 7, 1)), remove(fb, row("5", "1", 1, 1))))
	b.turns(retrier, 2)
	b.exec("drop table stop")
	retrier.ids = retryReserve // the turns without pauses have used it up
	b.turns(retrier, 3)
	b.want("select (select count(*) from fa), (select count(*) from fb), (select count(*) from pgwaltz.parked)", "0|0|1")
	b.want("select count(*) from pgwaltz.tombstone", "2")
}

// A trigger that rewrites a stamp is found out there as well.
func TestCircleKeepsStamps(t *testing.T) {
	t.Parallel()
	b, fa, fb := enforcing(t, circleDDL+`; create function public.up() returns trigger language plpgsql as 'begin new.version := 99; return new; end';
create trigger up before insert on public.fb for each row execute function public.up()`), pairRel("fa"), pairRel("fb")
	b.apply(b.tx(nil, insert(fa, row("1", "5", 1, 1)), insert(fb, row("5", "1", 1, 1))))
	retrier := b.retrier()
	b.turns(retrier, 3)
	b.want("select (select count(*) from fa), (select count(*) from fb), count(*) from pgwaltz.parked", "0|0|2")
	b.exec("drop trigger up on fb")
	b.turns(retrier, 3)
	b.want("select (select count(*) from fa), (select version from fb), count(*) from pgwaltz.parked", "1|1|0")
}
