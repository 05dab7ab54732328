package pgsync

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// load writes without a pause until it is stopped, and knows what has to be there.
type load struct {
	conn    *pgx.Conn
	prefix  string
	mu      sync.Mutex
	version map[string]int64 // of each user of its own that is alive
	writes  int
	once    sync.Once
	stop    chan struct{}
	done    chan struct{}
	err     error // once done
}

// newLoad takes over users prefix1 to prefixN, which are there, and writes them, and others that come and go, with their sessions. It ends
// with the test at the latest.
func newLoad(t *testing.T, dsn, prefix string, n int) *load {
	l := &load{conn: pgtest.Connect(t, dsn), prefix: prefix, version: map[string]int64{}, stop: make(chan struct{}), done: make(chan struct{})}
	for i := 1; i <= n; i++ {
		l.version[fmt.Sprintf("%s%d", prefix, i)] = 0
	}
	go func() {
		defer close(l.done)
		l.err = l.run(t.Context(), n)
	}()
	t.Cleanup(func() { l.end() }) // before its session is closed
	return l
}

func (l *load) run(ctx context.Context, n int) error {
	for i := 0; ; i++ {
		select {
		case <-l.stop:
			return nil
		default:
		}
		mine, guest, gone := fmt.Sprintf("%s%d", l.prefix, i*7%n+1), fmt.Sprintf("%sguest%d", l.prefix, i), fmt.Sprintf("%sguest%d", l.prefix, i-20)
		err := pgx.BeginFunc(ctx, l.conn, func(tx pgx.Tx) error {
			for _, sql := range []string{
				`update public.users set password = password || 'x' where username = '` + mine + `'`,
				`insert into public.users (username, password) values ('` + guest + `', 'g')`,
				`insert into public.sessions (token, expires_at, user_uuid) select username, now(), uuid from public.users where username = '` + guest + `'`,
				`delete from public.users where username = '` + gone + `'`,
				`update public.users set password = right(password, 20) where username = '` + mine + `'`,
			} {
				if _, err := tx.Exec(ctx, sql); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.version[mine] += 2
		l.version[guest] = 0
		delete(l.version, gone)
		l.writes += 5
		l.mu.Unlock()
	}
}

// end stops the load and returns what ended it before.
func (l *load) end() error {
	l.once.Do(func() { close(l.stop) })
	<-l.done
	return l.err
}

func (l *load) written() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.writes
}

// sidecar runs a command of pgwaltz with a configuration until the test ends, or to its end.
func (s *site) pgwaltz(args ...string) *exec.Cmd {
	s.t.Helper()
	product, err := harness.Product()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(product, args...)
	cmd.Dir, cmd.Env = s.dir, []string{"PATH=/usr/bin:/bin", "STATE_DIRECTORY=" + s.dir}
	return cmd
}

func (s *site) mustRun(args ...string) {
	s.t.Helper()
	if out, err := s.pgwaltz(args...).CombinedOutput(); err != nil {
		s.t.Fatalf("pgwaltz %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// start runs a sidecar until the test ends.
func (s *site) start(region string) {
	s.t.Helper()
	cmd := s.pgwaltz("run", "--config", region+".yaml")
	out, err := os.Create(filepath.Join(s.dir, region+".log"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			s.t.Error(err)
		}
		if err := cmd.Wait(); err != nil || s.t.Failed() {
			s.t.Errorf("sidecar of %s: %v\n%s", region, err, harness.TailFile(out.Name(), 15))
		}
	})
}

// From the cron line to two-way streaming while the source is written without a pause: the walk of docs/pgsync.md. No write is lost and none is made
// twice: each row has the version that its own writes have counted it to, in both databases.
func TestHandOver(t *testing.T) {
	t.Run("superuser", func(t *testing.T) { handOver(t, "mover", "superuser") })
	t.Run("owner", func(t *testing.T) { handOver(t, "owner", "replication") })
}

func handOver(t *testing.T, role, attributes string) {
	s := newSiteOf(t, role, attributes)
	// The slot of the source's sidecar has the job's name, and both walks are on one server.
	job := "users_of_" + role
	s.config(map[string]string{"users_one_way:": job + ":", "delete: false": "delete: true", "      users:": "      sessions: {delete: true}\n      users:"})
	const n = 200
	s.exec(s.source, fmt.Sprintf(`insert into public.users (username, password) select p || i, 'p' from generate_series(1, %d) as i, unnest(array['here', 'there']) as p`, n))
	s.run("--once")
	here := newLoad(t, s.source.Config().ConnString(), "here", n)
	loads := []*load{here}
	for range 3 {
		s.run("")
	}
	port, err := pgcluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	s.mustRun("migrate-config", "--from", s.file, "--link", fmt.Sprintf("127.0.0.1:%d", port))
	s.mustRun("setup", "--config", "source.yaml") // from here on the source keeps its WAL for the sidecar
	s.run("")
	s.run("--forget " + job)
	s.mustRun("setup", "--config", "destination.yaml")
	if log, code := s.cron(""); code != 3 || !strings.Contains(log, `is region \"destination\"`) {
		t.Errorf("the cron line that was left says %d:\n%s", code, log)
	}
	s.start("source")
	s.start("destination")
	there := newLoad(t, s.dest.Config().ConnString(), "there", n)
	loads = append(loads, there)
	enough := func(context.Context) (bool, string, error) {
		a, b := here.written(), there.written()
		return a+b >= 10_000 && b > 1_000, fmt.Sprintf("%d and %d writes", a, b), nil
	}
	if err := harness.Poll(t.Context(), 4*time.Minute, 50*time.Millisecond, enough); err != nil {
		t.Error(err)
	}
	want := map[string]int64{}
	for _, l := range loads {
		if err := l.end(); err != nil {
			t.Fatal(err)
		}
		for k, v := range l.version {
			want[k] = v
		}
	}
	if err := harness.Poll(t.Context(), 3*time.Minute, 300*time.Millisecond, func(context.Context) (bool, string, error) {
		for _, conn := range []*pgx.Conn{s.source, s.dest} {
			if d := s.differs(conn, want); d != "" {
				return false, conn.Config().Database + ": " + d, nil
			}
		}
		for _, table := range []string{"users", "sessions"} {
			if a, b := s.rows(s.source, table), s.rows(s.dest, table); a != b {
				return false, table + ": " + a + " and " + b, nil
			}
		}
		return true, "", nil
	}); err != nil {
		t.Fatal(err)
	}
	if a, b := s.get(s.source, `select count(*)::text from public.sessions`), fmt.Sprint(len(want)-2*n); a != b {
		t.Errorf("%s sessions are there instead of %s", a, b)
	}
}

// differs says which user is not there, is there and should not be, or has another version.
func (s *site) differs(conn *pgx.Conn, want map[string]int64) string {
	s.t.Helper()
	rows, err := conn.Query(s.t.Context(), `select username, version from public.users`)
	if err != nil {
		s.t.Fatal(err)
	}
	seen, found := 0, ""
	var name string
	var version int64
	if _, err := pgx.ForEachRow(rows, []any{&name, &version}, func() error {
		w, ok := want[name]
		if !ok {
			found = name + " is there"
		} else if seen++; w != version {
			found = fmt.Sprintf("%s has version %d instead of %d", name, version, w)
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	if found == "" && seen != len(want) {
		found = fmt.Sprintf("%d users are there instead of %d", seen, len(want))
	}
	return found
}
