package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

var server = pgtest.Server{Settings: []string{"track_commit_timestamp = on"}}

func TestMain(m *testing.M) { pgtest.Main(m, &server) }

// bench is a database with an applier of region b for the changes of region a.
type bench struct {
	t    *testing.T
	dsn  string
	conn *pgx.Conn
	a    *Applier
	lsn  wal.LSN
	idx  *tombstone.Index
}

func newBench(t *testing.T, ddl string) *bench {
	t.Helper()
	ctx, dsn := t.Context(), server.Database(t)
	conn, err := pg.Connect(ctx, dsn, pg.Options{Region: "b", Role: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	for _, s := range append(preflight.SchemaSQL(), "set search_path = public", ddl) {
		if _, err := conn.Exec(ctx, s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	b := &bench{t: t, dsn: dsn, conn: conn, lsn: 1000, idx: tombstone.NewIndex(0)}
	b.a = New(Config{
		Region: "b", Origin: "a", Marker: []byte("m"), Replica: true, Index: b.idx,
		Policy: PolicyFunc(func(wal.RelationName) TablePolicy {
			return TablePolicy{Version: "version", UpdatedAt: "updated_at"}
		}),
		Tell: true, Token: []byte("m"),
		Connect: func(ctx context.Context) (*pgx.Conn, error) {
			conn, err := pg.Connect(ctx, b.dsn, pg.Options{Region: "b", Role: "apply"})
			if err == nil {
				_, err = conn.Exec(ctx, "set session_replication_role = replica")
			}
			return conn, err
		},
	})
	if _, err := b.a.Open(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.a.Close)
	return b
}

// patientRetrier ends no turn because the machine is slow.
func patientRetrier(cfg Config) *Retrier {
	r := NewRetrier(cfg, nil)
	r.slice, r.wantedSlice = time.Hour, time.Hour
	return r
}

// retry tries once what is parked.
func (b *bench) retry() {
	b.t.Helper()
	r := patientRetrier(b.a.cfg)
	defer r.a.Close()
	if err := r.Turn(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// acct is the table of most tests.
const acctDDL = `create table public.acct(id int primary key, v text, version bigint, updated_at timestamptz)`

func acct() *wal.Relation {
	return &wal.Relation{Schema: "public", Name: "acct", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Columns: []wal.Column{
		{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true}, {Name: "version", OID: 20, Key: true}, {Name: "updated_at", OID: 1184, Key: true},
	}}
}

func text(vals ...string) wal.Tuple {
	t := make(wal.Tuple, len(vals))
	for i, v := range vals {
		switch v {
		case "\\N":
			t[i].Kind = wal.Null
		case "\\U":
			t[i].Kind = wal.Unchanged
		default:
			t[i] = wal.Value{Kind: wal.Text, Bytes: []byte(v)}
		}
	}
	return t
}

func row(id, v string, version, day int) wal.Tuple {
	return text(id, v, fmt.Sprint(version), fmt.Sprintf("2024-01-%02d 00:00:00+00", day))
}

// tx makes a transaction of stamped changes.
func (b *bench) tx(next map[string]uint32, chs ...wal.Change) *wal.Transaction {
	b.t.Helper()
	b.lsn += 100
	tx := &wal.Transaction{XID: wal.XID(b.lsn), CommitLSN: b.lsn, EndLSN: b.lsn + 50, CommitTime: wal.Micros(1704067200000000) + wal.Micros(b.lsn)}
	for _, ch := range chs {
		cols := conflict.ColumnsOf(ch.Relation, "version", "updated_at")
		key := ch.New
		if ch.Op == wal.Delete {
			key = ch.Old
		}
		k := string(key[0].Bytes)
		st, err := conflict.StampChange(conflict.Policy{}, cols, &ch, tx.CommitTime, next[k])
		if err != nil {
			b.t.Fatal(err)
		}
		if next != nil {
			next[k] = st.Next
		}
		if ch.Op == wal.Update {
			ch.Old = nil
		}
		tx.Changes = append(tx.Changes, ch)
	}
	return tx
}

func (b *bench) apply(txs ...*wal.Transaction) {
	b.t.Helper()
	if err := b.tryApply(txs...); err != nil {
		b.t.Fatalf("apply: %v", err)
	}
}

func (b *bench) tryApply(txs ...*wal.Transaction) error {
	next := b.a.Checkpoint()
	next.Epoch = wal.Epoch{SystemID: 7, Timeline: 1, Slot: "s"}
	next.Incarnation, next.FrameNo = max(1, next.Incarnation), next.FrameNo+1
	if last := txs[len(txs)-1]; !last.More {
		next.EndLSN, next.Mark = last.EndLSN, wal.MarkOf(last)
	}
	return b.a.Apply(b.t.Context(), []Unit{{Transactions: txs, Next: next}})
}

func (b *bench) query(sql string) string {
	b.t.Helper()
	rows, err := b.conn.Query(b.t.Context(), sql)
	if err != nil {
		b.t.Fatal(err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		vals, err := rows.Values()
		if err != nil {
			b.t.Fatal(err)
		}
		var cols []string
		for _, v := range vals {
			cols = append(cols, fmt.Sprint(v))
		}
		out = append(out, strings.Join(cols, "|"))
	}
	if err := rows.Err(); err != nil {
		b.t.Fatal(err)
	}
	return strings.Join(out, ";")
}

func (b *bench) want(sql, want string) {
	b.t.Helper()
	if got := b.query(sql); got != want {
		b.t.Errorf("%s\n got %s\nwant %s", sql, got, want)
	}
}

func (b *bench) exec(sql string) {
	b.t.Helper()
	if _, err := b.conn.Exec(b.t.Context(), sql); err != nil {
		b.t.Fatal(err)
	}
}

const acctRows = "select id, v, version from acct order by id"
const conflicts = "select type, verdict, key::text, coalesce(winner, '-') from pgwaltz.conflict order by id"

func insert(rel *wal.Relation, new wal.Tuple) wal.Change {
	return wal.Change{Op: wal.Insert, Relation: rel, New: new}
}
func update(rel *wal.Relation, old, new wal.Tuple) wal.Change {
	return wal.Change{Op: wal.Update, Relation: rel, Old: old, OldFull: old != nil, New: new}
}
func remove(rel *wal.Relation, old wal.Tuple) wal.Change {
	return wal.Change{Op: wal.Delete, Relation: rel, Old: old, OldFull: true}
}

func TestApplyFastForwards(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.apply(b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(r, row("2", "b", 1, 1)), insert(r, row("3", "c", 1, 1))))
	b.apply(b.tx(nil, update(r, row("1", "a", 1, 1), row("1", "a2", 2, 2)), remove(r, row("2", "b", 1, 1))))
	b.want(acctRows, "1|a2|2;3|c|1")
	b.want(conflicts, "")
	b.want("select key, generation, version, live from pgwaltz.tombstone", `["2"]|0|2|false`)
	b.want("select origin, frame_no, transactions from pgwaltz.checkpoint", "a|2|2")
}

func TestApplySettlesConflicts(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.apply(b.tx(nil, insert(r, row("1", "0", 1, 1)), insert(r, row("2", "0", 1, 1)), insert(r, row("4", "0", 1, 1))))
	b.exec("update acct set v='B', version=2, updated_at='2024-01-09 00:00:00+00' where id in (1, 4)")
	b.exec("update acct set v='B', version=3 where id = 2")
	b.exec("insert into acct values (3, 'B', 1, '2024-01-01 00:00:00+00')")
	b.apply(b.tx(nil,
		update(r, row("1", "0", 1, 1), row("1", "A", 2, 5)),
		update(r, row("2", "0", 1, 1), row("2", "A", 4, 5)),
		insert(r, row("3", "A", 2, 1)),
		remove(r, row("4", "0", 1, 1)),
	))
	b.want(acctRows, "1|B|2;2|A|4;3|A|2;4|B|2")
	b.want("select type, verdict, key::text, winner from pgwaltz.conflict order by key", `update_origin_differs|keep|{"id": 1}|b;update_origin_differs|apply|{"id": 2}|a;insert_exists|apply|{"id": 3}|a;delete_origin_differs|keep|{"id": 4}|b`)
}

func TestApplyReborn(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	g := map[string]uint32{}
	b.apply(b.tx(g, insert(r, row("1", "a", 5, 1))))
	b.apply(b.tx(g, remove(r, row("1", "a", 5, 1)), insert(r, row("1", "re", 1, 2))))
	b.want(acctRows, "1|re|1")
	b.want("select key, generation, live from pgwaltz.tombstone", `["1"]|0|true`)
	b.apply(b.tx(g, update(r, row("1", "re", 1, 2), row("1", "re2", 2, 3))))
	b.want(acctRows, "1|re2|2")
	// A late update of the first life is not heard any more.
	b.exec("update acct set v = 'local' where id = 1")
	b.apply(b.tx(nil, update(r, row("1", "x", 8, 1), row("1", "y", 9, 9))))
	b.want(acctRows, "1|local|2")
	b.apply(b.tx(g, insert(r, row("2", "x", 1, 1)), remove(r, row("2", "x", 1, 1))))
	b.want(acctRows, "1|local|2")
	b.want("select type, verdict from pgwaltz.conflict", "update_origin_differs|keep")
}

func TestApplySkipsWhatIsCovered(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	one := b.tx(nil, insert(r, row("1", "a", 1, 1)))
	b.apply(one)
	b.exec("delete from acct")
	b.apply(one, b.tx(nil, insert(r, row("2", "b", 1, 1))))
	b.want(acctRows, "2|b|1")
	b.want("select transactions from pgwaltz.checkpoint", "2")
}

func TestApplySwapsUniqueValues(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+`; create unique index on acct(v)`), acct()
	b.apply(b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(r, row("2", "b", 1, 1))))
	b.apply(b.tx(nil,
		update(r, row("1", "a", 1, 1), row("1", "t", 2, 1)),
		update(r, row("2", "b", 1, 1), row("2", "a", 2, 1)),
		update(r, row("1", "t", 2, 1), row("1", "b", 3, 1))))
	b.want(acctRows, "1|b|3;2|a|2")
	b.want("select count(*) from pgwaltz.parked", "0")
}

func TestApplyParksAndGoesOn(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+`; create unique index on acct(v)`), acct()
	b.exec("insert into acct values (9, 'x', 1, '2024-01-01 00:00:00+00')")
	b.apply(b.tx(nil, insert(r, row("1", "x", 1, 1)), insert(r, row("2", "b", 1, 1))))
	b.want(acctRows, "2|b|1;9|x|1")
	b.want("select key, sqlstate, row->>'v' from pgwaltz.parked", `["1"]|23505|x`)
	// A newer change of the key supersedes what is parked.
	b.apply(b.tx(nil, update(r, row("1", "x", 1, 1), row("1", "free", 2, 2))))
	b.want(acctRows, "1|free|2;2|b|1;9|x|1")
	b.want("select count(*) from pgwaltz.parked", "0")
	// What is parked goes in by itself once the way is free.
	b.apply(b.tx(nil, insert(r, row("3", "x", 1, 1))))
	b.want("select count(*) from pgwaltz.parked", "1")
	b.exec("delete from acct where id = 9")
	b.retry()
	b.want(acctRows, "1|free|2;2|b|1;3|x|1")
}

func TestApplyStampless(t *testing.T) {
	t.Parallel()
	b := newBench(t, "create table public.plain(id int primary key, v text)")
	r := &wal.Relation{Schema: "public", Name: "plain", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Columns: []wal.Column{{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true}}}
	b.apply(b.tx(nil, insert(r, text("1", "a")), insert(r, text("2", "b"))))
	b.apply(b.tx(nil, update(r, text("1", "a"), text("1", "a2")), remove(r, text("2", "b"))))
	b.want("select * from plain", "1|a2")
	b.want(conflicts, "")
	b.want("select key, generation, live, updated_at > 0 from pgwaltz.tombstone order by key", `["1"]|-1|true|true;["2"]|0|false|true`)
}

func TestApplyKeyless(t *testing.T) {
	t.Parallel()
	b := newBench(t, "create table public.r9(a int, b text, c numeric); alter table r9 replica identity full")
	r := &wal.Relation{Schema: "public", Name: "r9", Identity: wal.IdentityFull, Columns: []wal.Column{{Name: "a", OID: 23, Key: true}, {Name: "b", OID: 25, Key: true}, {Name: "c", OID: 1700, Key: true}}}
	b.apply(b.tx(nil, insert(r, text("\\N", "\\N", "\\N")), insert(r, text("1", "\\N", "1.0")), insert(r, text("1", "\\N", "1.0"))))
	keep := func(old, new wal.Tuple) wal.Change {
		return wal.Change{Op: wal.Update, Relation: r, Old: old, OldFull: true, New: new}
	}
	tx := b.tx(nil)
	tx.Changes = append(tx.Changes, keep(text("\\N", "\\N", "\\N"), text("\\N", "n", "2")), remove(r, text("1", "\\N", "1.0")), remove(r, text("5", "\\N", "1.0")))
	b.apply(tx)
	b.want("select coalesce(a, -1), coalesce(b, '~'), c::text from r9 order by 1", "-1|n|2;1|~|1.0")
	b.want("select type from pgwaltz.conflict", "delete_missing")
}

func TestApplyParts(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	whole := b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(r, row("2", "b", 1, 1)), update(r, row("1", "a", 1, 1), row("1", "a2", 2, 2)))
	for i := range whole.Changes {
		p := *whole
		p.Changes, p.Part, p.More = whole.Changes[i:i+1], uint32(i), i < 2
		if p.More {
			p.EndLSN = 0
		}
		next := b.a.Checkpoint()
		next.Epoch = wal.Epoch{SystemID: 7, Timeline: 1, Slot: "s"}
		next.Incarnation, next.FrameNo, next.EndLSN = 1, uint64(i+1), p.EndLSN
		if err := b.a.Apply(t.Context(), []Unit{{Transactions: []*wal.Transaction{&p}, Next: next}}); err != nil {
			t.Fatal(err)
		}
		if p.More {
			b.want("select count(*) from acct", "0")
		}
	}
	b.want(acctRows, "1|a2|2;2|b|1")
	b.want("select transactions from pgwaltz.checkpoint", "1")
}

// An applier that cannot begin leaves no session behind: it would hold the replication origin. What
// it does not know of the session before stays unknown.
func TestFailedOpenLeavesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, acctDDL)
	connect := b.a.cfg.Connect
	b.a.cfg.Connect = func(ctx context.Context) (*pgx.Conn, error) {
		conn, err := connect(ctx)
		if err == nil {
			_, err = conn.Exec(ctx, "set lock_timeout = 10")
		}
		return conn, err
	}
	b.a.Close()
	b.exec("begin; lock table pgwaltz.checkpoint in access exclusive mode")
	for range 3 {
		if _, err := b.a.Open(t.Context()); pg.Code(err) != "55P03" {
			t.Fatalf("opened behind a lock: %v", err)
		}
	}
	b.exec("rollback")
	ending, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	for b.query("select count(*) from pg_stat_activity where datname = current_database() and application_name like 'pgwaltz_b_apply%'") != "0" {
		if err := pause.For(ending, 10*time.Millisecond); err != nil {
			t.Fatal("sessions are left behind")
		}
	}

	b.idx.Lose(b.a.holder(), b.conn.PgConn().PID()) // a session that is still there
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := b.a.Open(ctx); err == nil {
		t.Fatal("opened although a transaction of before may still commit")
	}
	if b.idx.Lost(b.a.holder()) == 0 {
		t.Error("the transaction of before counts as settled")
	}
}

func TestApplierIsFenced(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.exec("update pgwaltz.checkpoint set frame_no = 5")
	next := checkpoint.Checkpoint{Origin: "a", Epoch: wal.Epoch{SystemID: 7, Timeline: 1}, Incarnation: 1, FrameNo: 1, EndLSN: 5000}
	err := b.a.Apply(t.Context(), []Unit{{Transactions: []*wal.Transaction{b.tx(nil, insert(r, row("1", "a", 1, 1)))}, Next: next}})
	if err == nil || !strings.Contains(err.Error(), "moved") {
		t.Fatalf("error %v", err)
	}
	b.want(acctRows, "")
}

// A copied row and the delete of the same row may come in one batch, the delete first: then
// the copy must find the tombstone although nothing is committed yet.
func TestApplyCopyBehindDelete(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	del := b.tx(nil, remove(r, row("1", "a", 1, 1)))
	copied := b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(r, row("2", "b", 1, 1)))
	next := b.a.Checkpoint()
	next.Epoch = wal.Epoch{SystemID: 7, Timeline: 1, Slot: "s"}
	next.Incarnation, next.FrameNo, next.EndLSN = 1, 1, del.EndLSN
	last := next
	last.FrameNo = 2
	if err := b.a.Apply(t.Context(), []Unit{
		{Transactions: []*wal.Transaction{del}, Next: next},
		{Transactions: []*wal.Transaction{copied}, Kind: conflict.Copy, Next: last},
	}); err != nil {
		t.Fatal(err)
	}
	b.want(acctRows, "2|b|1")
	b.want("select key, live from pgwaltz.tombstone", `["1"]|false`)
}

func TestApplyCopiesManyRows(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	odd := "tab\tnew\nline\r back\\slash \\N \\. ü"
	many := func(from int) (chs []wal.Change) {
		for i := range 600 {
			chs = append(chs, insert(r, row(fmt.Sprint(from+i), odd, 1, 1)))
		}
		chs[5].New[1] = wal.Value{Kind: wal.Null}
		return chs
	}
	b.apply(b.tx(nil, many(0)...))
	b.want("select count(*), count(v), count(distinct v), max(length(v)) from acct", fmt.Sprintf("600|599|1|%d", len([]rune(odd))))
	b.want("select v = E'tab\\tnew\\nline\\r back\\\\slash \\\\N \\\\. ü' from acct where id = 7", "true")
	// One row is there already and newer: only that one is a conflict.
	b.exec("insert into acct values (1300, 'mine', 9, '2024-01-09 00:00:00+00')")
	b.apply(b.tx(nil, many(1000)...))
	b.want("select count(*), count(*) filter (where v = 'mine') from acct", "1200|1")
	b.want("select type, verdict from pgwaltz.conflict", "insert_exists|keep")
}

// Only its own next part continues an open transaction; anything else abandons it, and nothing
// of it becomes visible.
func TestApplyPartsOnlyInOrder(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	whole := b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(r, row("2", "b", 1, 1)), insert(r, row("3", "c", 1, 1)))
	part := func(n int) *wal.Transaction {
		p := *whole
		p.Changes, p.Part, p.More = whole.Changes[n:n+1], uint32(n), n < 2
		if p.More {
			p.EndLSN = 0
		}
		return &p
	}
	frame := uint64(0)
	deliver := func(txs ...*wal.Transaction) error {
		frame++
		next := b.a.Checkpoint()
		next.Epoch = wal.Epoch{SystemID: 7, Timeline: 1, Slot: "s"}
		next.Incarnation, next.FrameNo = 1, frame
		for _, tx := range txs {
			next.EndLSN = max(next.EndLSN, tx.EndLSN)
		}
		return b.a.Apply(t.Context(), []Unit{{Transactions: txs, Next: next}})
	}
	for name, cut := range map[string]func() error{
		"a heartbeat":   func() error { return deliver() },
		"its beginning": func() error { return deliver(part(0)) },
	} {
		for n := range 2 {
			if err := deliver(part(n)); err != nil {
				t.Fatal(err)
			}
		}
		if err := cut(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		b.want("select count(*) from acct", "0")
		if err := b.a.Abandon(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := deliver(part(2)); !errors.Is(err, ErrParts) {
			t.Errorf("%s: a part without its beginning: %v", name, err)
		}
		b.want("select count(*) from acct", "0")
	}
	for n := range 3 {
		if err := deliver(part(n)); err != nil {
			t.Fatal(err)
		}
	}
	b.want("select count(*) from acct", "3")
}
