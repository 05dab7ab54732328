// Package tpcc runs TPC-C on one warehouse with go-tpc, as an application beside which a
// replicator is measured. go-tpc is built from the module in gotpc, so that what it needs is
// no dependency of the product.
package tpcc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// Tables are those of TPC-C that have a key. The tenth, history, has none, and is not replicated.
var Tables = []string{"warehouse", "district", "customer", "orders", "new_order", "order_line", "item", "stock"}

// Qualified are the tables with their schema.
func Qualified() []any {
	var out []any
	for _, t := range Tables {
		out = append(out, "public."+t)
	}
	return out
}

// StampSQL gives every table the two stamp columns and a trigger that raises them.
func StampSQL() []string {
	out := []string{`create function tpcc_bump() returns trigger language plpgsql as $$
begin
  new.version := old.version + 1;
  new.updated_at := now();
  return new;
end $$`}
	for _, t := range Tables {
		out = append(out,
			`alter table `+t+` add version bigint not null default 0, add updated_at timestamptz not null default now()`,
			`create trigger bump before update on `+t+` for each row execute function tpcc_bump()`)
	}
	return out
}

// HashSQL is one value that two databases share when their rows are the same.
func HashSQL() string {
	var parts []string
	for _, t := range Tables {
		parts = append(parts, `(select count(*)::text || '/' || coalesce(sum(('x' || substr(md5(t::text), 1, 15))::bit(60)::bigint), 0)::text from `+t+` t)`)
	}
	return `select ` + strings.Join(parts, ` || ' ' || `)
}

// Tool is a go-tpc that was built.
type Tool struct{ path string }

// Build builds go-tpc into a folder; its module is downloaded at the first use.
func Build(ctx context.Context, dir string) (*Tool, error) {
	root, err := harness.ModuleRoot()
	if err != nil {
		return nil, err
	}
	t := &Tool{path: filepath.Join(dir, "go-tpc")}
	cmd := exec.CommandContext(ctx, "go", "build", "-mod=readonly", "-o", t.path, "github.com/pingcap/go-tpc/cmd/go-tpc")
	cmd.Dir = filepath.Join(root, "test", "tpcc", "gotpc")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build go-tpc: %w: %s", err, tail(out))
	}
	return t, nil
}

func (t *Tool) command(ctx context.Context, c *harness.Cluster, database string, args ...string) *exec.Cmd {
	args = append([]string{"tpcc"}, append(args, "-d", "postgres", "-U", "postgres", "-p", "", "-H", "127.0.0.1", "-P", strconv.Itoa(c.Port),
		"-D", database, "--warehouses", "1", "--conn-params", "sslmode=disable&application_name=tpcc")...)
	cmd := exec.CommandContext(ctx, t.path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2")
	return cmd
}

// Prepare makes the tables of one warehouse, about half a million rows, and fills them.
func (t *Tool) Prepare(ctx context.Context, c *harness.Cluster, database string) error {
	if out, err := t.command(ctx, c, database, "prepare", "-T", "2", "--no-check").CombinedOutput(); err != nil {
		return fmt.Errorf("prepare TPC-C: %w: %s", err, tail(out))
	}
	return nil
}

// Result is what the application saw.
type Result struct {
	TpmC         float64       // new orders per minute
	Transactions int           // of all kinds
	Longest      time.Duration // the longest transaction
	Deadlocks    int           // sessions that got "deadlock detected"
	Errors       int           // all errors
	First        string        // the first of them
}

// Run runs the five transactions at full speed with some sessions for a while.
func (t *Tool) Run(ctx context.Context, c *harness.Cluster, database string, threads int, span time.Duration) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, span+2*time.Minute)
	defer cancel()
	out, err := t.command(ctx, c, database, "run", "-T", strconv.Itoa(threads), "--time", span.String(), "--ignore-error").CombinedOutput()
	if err != nil {
		return Result{}, fmt.Errorf("run TPC-C: %w: %s", err, tail(out))
	}
	return parse(out)
}

var (
	summary = regexp.MustCompile(`^\[Summary\] (\w+) - .*Count: (\d+), .*Max\(ms\): ([\d.]+)`)
	rate    = regexp.MustCompile(`^tpmC: ([\d.]+),`)
)

// parse reads the summary that go-tpc prints.
func parse(out []byte) (r Result, err error) {
	found := false
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		line := s.Text()
		if m := summary.FindStringSubmatch(line); m != nil {
			n, _ := strconv.Atoi(m[2])
			if strings.HasSuffix(m[1], "_ERR") {
				r.Errors += n
			} else {
				r.Transactions += n
			}
			ms, _ := strconv.ParseFloat(m[3], 64)
			r.Longest = max(r.Longest, time.Duration(ms*float64(time.Millisecond)))
			continue
		}
		if m := rate.FindStringSubmatch(line); m != nil {
			r.TpmC, _ = strconv.ParseFloat(m[1], 64)
			found = true
			continue
		}
		if strings.Contains(line, "deadlock detected") {
			r.Deadlocks++
		}
		if r.First == "" && strings.Contains(line, "pq: ") {
			r.First = strings.TrimSpace(line)
		}
	}
	if !found {
		return r, errors.Join(errors.New("read the summary of TPC-C"), errors.New(tail(out)))
	}
	return r, nil
}

func tail(out []byte) string {
	out = bytes.TrimSpace(out)
	if len(out) > 1000 {
		out = out[len(out)-1000:]
	}
	return string(out)
}
