package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// history runs a pgbench script n times in each client, without waiting for the disk: how
// fast a history is written is no part of any figure.
func (r *Rig) history(ctx context.Context, database, script string, n int) error {
	_, err := r.pgbench(ctx, r.Source, database, script, 10*time.Minute, []string{"PGOPTIONS=-c synchronous_commit=off"}, "-t", strconv.Itoa(n))
	return err
}

var (
	tpsLine    = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \(without initial connection time\)`)
	countLine  = regexp.MustCompile(`(?m)^number of transactions actually processed: ([0-9]+)`)
	failedLine = regexp.MustCompile(`(?m)^number of failed transactions: ([0-9]+)`)
)

// Load is what pgbench said at its end.
type Load struct {
	TPS    float64 // transactions per second
	Count  int     // transactions that were committed
	Failed int     // of the application that ended with a deadlock or a serialization failure
}

// seconds is how long the load took; 0 when it got nowhere.
func (l Load) seconds() float64 {
	if l.TPS == 0 {
		return 0
	}
	return float64(l.Count) / l.TPS
}

// pgbench runs a script against one database. Two clusters may have a load at the same time, one cluster has one.
func (r *Rig) pgbench(ctx context.Context, c *harness.Cluster, database, script string, limit time.Duration, env []string, args ...string) (Load, error) {
	var none Load
	file := filepath.Join(r.Room.Dir, c.Name+"-load.sql")
	if err := os.WriteFile(file, []byte(script), 0o644); err != nil {
		return none, fmt.Errorf("write pgbench script: %w", err)
	}
	log := filepath.Join(r.Room.Dir, c.Name+"-pgbench.log")
	if err := os.RemoveAll(log); err != nil {
		return none, fmt.Errorf("remove pgbench log: %w", err)
	}
	p, err := harness.StartProcess(harness.Spec{
		Name: "pgbench", Path: r.bin.Path("pgbench"), Log: log, Env: env,
		Args: append([]string{
			"-h", filepath.Dir(c.DataDir), "-p", strconv.Itoa(c.Port), "-U", "postgres",
			"-n", "-M", "prepared", "-c", strconv.Itoa(clients), "-j", "2", "-f", file,
		}, append(args, database)...),
	})
	if err != nil {
		return none, err
	}
	code, err := p.Wait(ctx, limit)
	if err != nil {
		p.Kill()
		return none, err
	}
	out, err := os.ReadFile(log)
	if err != nil {
		return none, fmt.Errorf("read pgbench log: %w", err)
	}
	load, ok := readLoad(string(out))
	if code != 0 || !ok {
		return none, fmt.Errorf("run pgbench: exit code %d: %s", code, harness.TailFile(log, 5))
	}
	return load, nil
}

// readLoad takes the figures out of what pgbench prints; false when the rate is not there.
func readLoad(text string) (l Load, ok bool) {
	number := func(of *regexp.Regexp) string {
		if m := of.FindStringSubmatch(text); m != nil {
			return m[1]
		}
		return ""
	}
	var err error
	if l.TPS, err = strconv.ParseFloat(number(tpsLine), 64); err != nil {
		return l, false
	}
	l.Count, _ = strconv.Atoi(number(countLine))   // behind a rate it is always there
	l.Failed, _ = strconv.Atoi(number(failedLine)) // PostgreSQL 14 has no such line, and ends at the first
	return l, true
}

// writeCopy is W3: one COPY in one transaction.
func writeCopy(ctx context.Context, r *Rig, db string, o Options) (int, error) {
	n := o.count(500_000)
	conn, err := r.connect(ctx, r.Source, db)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rd, wr := io.Pipe()
	go func() { wr.CloseWithError(copyRows(wr, n)) }() // ends with the last row, or when the reader closes
	defer rd.Close()
	tag, err := conn.PgConn().CopyFrom(ctx, rd, `copy users (username, email, password) from stdin`)
	if err != nil {
		return 0, fmt.Errorf("copy rows: %w", err)
	}
	if tag.RowsAffected() != int64(n) {
		return 0, errors.New("copy rows: not all arrived")
	}
	return n, nil
}

func copyRows(w io.Writer, n int) error {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "copy%d\tcopy%d@example.com\t$2a$10$%053d\n", i, i, i*7919)
		if b.Len() > 64<<10 || i == n-1 {
			if _, err := io.WriteString(w, b.String()); err != nil {
				return err
			}
			b.Reset()
		}
	}
	return nil
}
