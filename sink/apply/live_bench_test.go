package apply

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/wal"
)

// onCPU is what a process has used, in nanoseconds.
func onCPU(b *testing.B, pid uint32) int64 {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		b.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.Fields(string(data))[0], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

func ownCPU() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

const usersDDL = `create table public.users(id uuid primary key, username text not null unique, email text not null, password text not null, level int not null default 0,
  active boolean not null default true, created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version bigint not null default 1, origin_node text);
create unique index on public.users (lower(email));`

func users() *wal.Relation {
	rel := &wal.Relation{Schema: "public", Name: "users", Identity: wal.IdentityFull, PrimaryKey: []int{0}}
	for _, c := range []struct {
		name string
		oid  uint32
	}{{"id", wal.OIDUUID}, {"username", 25}, {"email", 25}, {"password", 25}, {"level", 23}, {"active", 16}, {"created_at", 1184}, {"updated_at", 1184}, {"version", 20}, {"origin_node", 25}} {
		rel.Columns = append(rel.Columns, wal.Column{Name: c.name, OID: c.oid, TypeMod: -1, Key: true})
	}
	return rel
}

func user(n, version int) wal.Tuple {
	return text(fmt.Sprintf("00000000-0000-4000-8000-%012d", n), fmt.Sprint("user", n), fmt.Sprintf("user%d@example.com", n), "some password that is hashed", "3", "t",
		"2024-01-01 00:00:00+00", fmt.Sprintf("2024-01-01 %02d:%02d:00+00", version/60%24, version%60), fmt.Sprint(version), "a")
}

// BenchmarkLive applies one small transaction after the other, as live traffic comes: the CPU of the session that applies and of this process.
func BenchmarkLive(b *testing.B) {
	for _, rows := range []int{1, 8} {
		for _, op := range []string{"insert", "update"} {
			b.Run(fmt.Sprint(op, rows), func(b *testing.B) { live(b, op, rows) })
		}
	}
}

func live(b *testing.B, op string, rows int) {
	ctx := context.Background()
	dsn := server.Database(b)
	setup, err := pg.Connect(ctx, dsn, pg.Options{Region: "b", Role: "test"})
	if err != nil {
		b.Fatal(err)
	}
	defer setup.Close(ctx)
	for _, s := range append(preflight.SchemaSQL(), "set search_path = public", usersDDL) {
		if _, err := setup.Exec(ctx, s); err != nil {
			b.Fatalf("%s: %v", s, err)
		}
	}
	a := New(Config{
		Region: "b", Origin: "a", Replica: true, Index: tombstone.NewIndex(0), Tell: true, Token: []byte("m"),
		Policy: PolicyFunc(func(wal.RelationName) TablePolicy { return TablePolicy{Version: "version", UpdatedAt: "updated_at"} }),
		Connect: func(ctx context.Context) (*pgx.Conn, error) {
			conn, err := pg.Connect(ctx, dsn, pg.Options{Region: "b", Role: "apply"})
			if err == nil {
				_, err = conn.Exec(ctx, `select set_config('session_replication_role', 'replica', false), set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false),
  set_config('enable_mergejoin', 'off', false), set_config('plan_cache_mode', 'force_generic_plan', false), set_config('synchronous_commit', 'off', false)`)
			}
			return conn, err
		},
	})
	if _, err := a.Open(ctx); err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	rel, lsn, n := users(), wal.LSN(1000), 0
	cols := conflict.ColumnsOf(rel, "version", "updated_at")
	one := func(chs ...wal.Change) {
		lsn += 100
		tx := &wal.Transaction{XID: wal.XID(lsn), CommitLSN: lsn, EndLSN: lsn + 50, CommitTime: wal.Micros(1704067200000000) + wal.Micros(lsn)}
		for _, ch := range chs {
			if _, err := conflict.StampChange(conflict.Policy{}, cols, &ch, tx.CommitTime, 0); err != nil {
				b.Fatal(err)
			}
			ch.Old = nil
			tx.Changes = append(tx.Changes, ch)
		}
		next := a.Checkpoint()
		next.Epoch = wal.Epoch{SystemID: 7, Timeline: 1, Slot: "s"}
		next.Incarnation, next.FrameNo = max(1, next.Incarnation), next.FrameNo+1
		next.EndLSN, next.Mark = tx.EndLSN, wal.MarkOf(tx)
		if err := a.Apply(ctx, []Unit{{Transactions: []*wal.Transaction{tx}, Next: next}}); err != nil {
			b.Fatal(err)
		}
	}
	batch := func(version int) {
		var chs []wal.Change
		for range rows {
			if op == "insert" || version == 0 {
				chs = append(chs, insert(rel, user(n, 1)))
			} else {
				chs = append(chs, update(rel, user(n, version), user(n, version+1)))
			}
			n++
		}
		one(chs...)
	}
	if op == "update" {
		for range 200 {
			batch(0)
		}
		n = 0
	}
	version := 1
	if op == "insert" {
		for range 20 {
			batch(0)
		}
	}
	pid := a.conn.PgConn().PID()
	backend, self := onCPU(b, pid), ownCPU()
	b.ResetTimer()
	for range b.N {
		if op == "update" && n == 200*rows {
			n, version = 0, version+1
		}
		batch(version)
	}
	b.ReportMetric(float64(onCPU(b, pid)-backend)/1000/float64(b.N), "backend-µs/tx")
	b.ReportMetric(float64(ownCPU()-self)/1000/float64(b.N), "client-µs/tx")
}
