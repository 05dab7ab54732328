package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// Rig is the two clusters that everybody is measured on, and more where a workload has more than one peer.
type Rig struct {
	Source, Target *harness.Cluster
	Others         []*harness.Cluster // of further peers, started when they are first needed
	Room           *harness.Room
	PGVersion      string
	NoPglogical    string // why pglogical is left out; empty when it is there

	bin       harness.Binaries
	templates map[string]bool
	settings  map[string]string
	keep      bool
}

// newRig starts both clusters. The caller closes it.
func newRig(ctx context.Context, o Options, say sayFunc) (_ *Rig, err error) {
	bin, err := harness.FindBinaries()
	if err != nil {
		return nil, err
	}
	room, err := harness.NewRoom()
	if err != nil {
		return nil, err
	}
	r := &Rig{Room: room, bin: bin, templates: map[string]bool{}, keep: o.Keep}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if r.NoPglogical = findPglogical(ctx, bin, o.Install, say); r.NoPglogical != "" {
		say("pglogical is left out: %s", r.NoPglogical)
	}
	r.settings = map[string]string{
		"track_commit_timestamp": "on", "shared_buffers": "'" + o.SharedBuffers + "'", "max_wal_size": "'16GB'",
		"checkpoint_timeout": "'30min'", "autovacuum": "off", "max_worker_processes": "24", "max_logical_replication_workers": "8",
		"wal_retrieve_retry_interval": "'100ms'", // or native's second worker starts five seconds behind the first
		"log_min_messages":            "error",   // the workers' notices would cost them time
	}
	if r.NoPglogical == "" {
		r.settings["shared_preload_libraries"] = "'pglogical'"
		r.settings["pglogical.conflict_resolution"] = "'last_update_wins'"
	}
	for _, side := range []struct {
		name string
		c    **harness.Cluster
	}{{"src", &r.Source}, {"dst", &r.Target}} {
		if *side.c, err = r.cluster(ctx, side.name); err != nil {
			return nil, err
		}
	}
	conn, err := r.connect(ctx, r.Source, "postgres")
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, `show server_version`).Scan(&r.PGVersion); err != nil {
		return nil, fmt.Errorf("read server version: %w", err)
	}
	return r, nil
}

// cluster makes and starts one.
func (r *Rig) cluster(ctx context.Context, name string) (*harness.Cluster, error) {
	c, err := harness.NewCluster(r.Room, r.bin, harness.ClusterConfig{Name: name, Fsync: true, Settings: r.settings})
	if err != nil {
		return nil, err
	}
	if err := c.Start(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// ready starts the clusters of so many peers.
func (r *Rig) ready(ctx context.Context, peers int) error {
	for len(r.Others) < peers-1 {
		c, err := r.cluster(ctx, fmt.Sprintf("dst%d", len(r.Others)+2))
		if err != nil {
			return err
		}
		r.Others = append(r.Others, c)
	}
	return nil
}

// clusters are all that run, the source first.
func (r *Rig) clusters() []*harness.Cluster {
	return append([]*harness.Cluster{r.Source, r.Target}, r.Others...)
}

// dsn is the connection string over the unix socket: all contenders use it.
func dsn(c *harness.Cluster, database string) string {
	return fmt.Sprintf("host=%s port=%d user=postgres dbname=%s sslmode=disable", filepath.Dir(c.DataDir), c.Port, database)
}

func (r *Rig) connect(ctx context.Context, c *harness.Cluster, database string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn(c, database)+" application_name=bench")
	if err != nil {
		return nil, fmt.Errorf("connect to %s of %s: %w", database, c.Name, err)
	}
	return conn, nil
}

// exec runs statements one by one in one session of its own.
func (r *Rig) exec(ctx context.Context, c *harness.Cluster, database string, statements ...string) error {
	conn, err := r.connect(ctx, c, database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			head, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
			return fmt.Errorf("run %q in %s of %s: %w", head, database, c.Name, err)
		}
	}
	return nil
}

// database makes a database that holds the base rows, by copying a template that is made
// at the first use. Both clusters get the same rows.
func (r *Rig) database(ctx context.Context, c *harness.Cluster, name string, b Base) error {
	template := b.name()
	if key := c.Name + "/" + template; !r.templates[key] {
		if err := r.exec(ctx, c, "postgres", "create database "+template); err != nil {
			return err
		}
		if err := r.exec(ctx, c, template, b.statements()...); err != nil {
			return err
		}
		r.templates[key] = true
	}
	return r.exec(ctx, c, "postgres", "create database "+name+" template "+template+strategy(r.PGVersion))
}

// strategy copies files instead of logging every page, where the server knows both ways.
func strategy(version string) string {
	if strings.HasPrefix(version, "14") {
		return ""
	}
	return " strategy file_copy"
}

// discard gives back what a database takes on disk and closes it. It is not dropped:
// pglogical's supervisor never accepts the barrier that DROP DATABASE waits for.
func (r *Rig) discard(ctx context.Context, c *harness.Cluster, name string) error {
	return errors.Join(
		r.exec(ctx, c, name, `do $$ begin
  execute (select 'truncate ' || string_agg(oid::regclass::text, ', ') from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace);
end $$`),
		r.exec(ctx, c, "postgres", `alter database `+name+` allow_connections false`,
			`select pg_terminate_backend(pid) from pg_stat_activity where datname = '`+name+`'`))
}

// settle writes everything dirty to disk, so that no run pays for the one before.
func (r *Rig) settle(ctx context.Context) error {
	for _, c := range r.clusters() {
		if err := r.exec(ctx, c, "postgres", "checkpoint"); err != nil {
			return err
		}
	}
	return nil
}

// Close stops the clusters and removes their folder.
func (r *Rig) Close() {
	for _, c := range r.clusters() {
		if c != nil {
			c.Close()
		}
	}
	if !r.keep {
		_ = r.Room.Close()
	}
}

// findPglogical returns why pglogical cannot take part, or "".
func findPglogical(ctx context.Context, bin harness.Binaries, install bool, say sayFunc) string {
	major := filepath.Base(filepath.Dir(bin.Dir))
	there := func() bool {
		lib := filepath.Join(filepath.Dir(bin.Dir), "lib", "pglogical.so")
		if out, err := exec.CommandContext(ctx, bin.Path("pg_config"), "--bindir", "--pkglibdir").Output(); err == nil {
			if f := strings.Fields(string(out)); len(f) == 2 && f[0] == bin.Dir {
				lib = filepath.Join(f[1], "pglogical.so")
			}
		}
		_, err := os.Stat(lib)
		return err == nil
	}
	pkg := "postgresql-" + major + "-pglogical"
	switch {
	case there():
		return ""
	case !install:
		return pkg + " is not installed"
	case os.Geteuid() != 0:
		return pkg + " is not installed, and only root can install it"
	}
	say("installing %s", pkg)
	for _, args := range [][]string{{"install", "-y", "-qq", pkg}, {"update", "-qq"}, {"install", "-y", "-qq", pkg}} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if cmd.Run() == nil && there() {
			return ""
		}
	}
	return pkg + " cannot be installed here"
}
