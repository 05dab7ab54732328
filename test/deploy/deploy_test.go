// Package deploy runs what is in the folder deploy as far as that goes without containers: the scripts make the
// secrets and the role, setup and both sidecars work with the very files that compose.yaml hands them.
package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

const folder = "../../deploy"

func TestMain(m *testing.M) { harness.Main(m) }

// grant is a secret or a config of a service; the short form names it alone.
type grant struct{ Source, Target string }

func (g *grant) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		g.Source, g.Target = n.Value, n.Value
		return nil
	}
	type long grant
	return n.Decode((*long)(g))
}

type service struct {
	Command          []string
	Environment      map[string]string
	Secrets, Configs []grant
	Volumes          []string
	DependsOn        map[string]any `yaml:"depends_on"`
	HealthCheck      struct{ Test []string }
}

type compose struct {
	Services         map[string]service
	Configs, Secrets map[string]struct{ File string }
	Volumes          map[string]any
}

func loadCompose(t *testing.T) compose {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c compose
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// What a service names is declared, and what is declared is used.
func TestComposeFitsTogether(t *testing.T) {
	t.Parallel()
	c := loadCompose(t)
	used := map[string]bool{}
	for name, s := range c.Services {
		for _, g := range s.Secrets {
			used["secret "+g.Source] = true
			if c.Secrets[g.Source].File == "" {
				t.Errorf("%s: secret %q is not declared", name, g.Source)
			}
		}
		for _, g := range s.Configs {
			used["config "+g.Source] = true
			if c.Configs[g.Source].File == "" {
				t.Errorf("%s: config %q is not declared", name, g.Source)
			}
		}
		for _, v := range s.Volumes {
			v, _, _ := strings.Cut(v, ":")
			used["volume "+v] = true
			if _, ok := c.Volumes[v]; !ok {
				t.Errorf("%s: volume %q is not declared", name, v)
			}
		}
		for other := range s.DependsOn {
			if _, ok := c.Services[other]; !ok {
				t.Errorf("%s depends on %q, which is no service", name, other)
			}
		}
	}
	for kind, names := range map[string][]string{"secret": keys(c.Secrets), "config": keys(c.Configs), "volume": keys(c.Volumes)} {
		for _, name := range names {
			if !used[kind+" "+name] {
				t.Errorf("%s %q is used by no service", kind, name)
			}
		}
	}
	if len(c.Services) != 6 {
		t.Errorf("%d services", len(c.Services))
	}
}

func keys[V any](m map[string]V) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

// stage is the deployment on this machine: a folder for each container's /run/secrets.
type stage struct {
	t     *testing.T
	c     compose
	dir   string // the copy of deploy
	home  string
	hosts *strings.Replacer // names of containers -> addresses here
}

// newStage copies deploy and runs secrets.sh. The certificates are made out to localhost as well, because that is
// where everything runs.
func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{t: t, c: loadCompose(t), home: t.TempDir()}
	s.dir = filepath.Join(s.home, "deploy")
	if err := os.CopyFS(s.dir, os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "secrets")); err != nil {
		t.Fatal(err)
	}
	script := s.read("secrets.sh")
	const names = `DNS:%s,DNS:%s`
	if !strings.Contains(script, names) {
		t.Fatalf("secrets.sh does not say %s any more", names)
	}
	s.write("secrets.sh", strings.Replace(script, names, names+",DNS:localhost", 1))
	s.bash("secrets.sh")
	before := s.read("secrets/eu.pem")
	s.bash("secrets.sh")
	if s.read("secrets/eu.pem") != before {
		t.Error("secrets.sh made what was there already again")
	}
	return s
}

func (s *stage) read(name string) string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

func (s *stage) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) bash(script string, env ...string) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), "bash", filepath.Join(s.dir, script))
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// container lays out what a service finds: its secrets, and its configuration with the paths and addresses of this
// machine. It returns the folder.
func (s *stage) container(name string) string {
	s.t.Helper()
	dir := filepath.Join(s.home, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	svc := s.c.Services[name]
	for _, g := range svc.Secrets {
		s.place(filepath.Join("secrets", filepath.Base(s.c.Secrets[g.Source].File)), filepath.Join(dir, g.Target), dir)
	}
	for _, g := range svc.Configs {
		s.place(s.c.Configs[g.Source].File, filepath.Join(dir, filepath.Base(g.Target)), dir)
	}
	return dir
}

func (s *stage) place(from, to, secrets string) {
	s.t.Helper()
	text := s.hosts.Replace(s.read(from))
	text = strings.NewReplacer("/run/secrets", secrets, "/var/lib/pgwaltz", filepath.Join(secrets, "state")).Replace(text)
	if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// pgwaltz runs the command of a service, or the one given, with the service's files; it returns output and exit code.
func (s *stage) pgwaltz(ctx context.Context, name string, command []string) (string, int) {
	s.t.Helper()
	cmd := s.command(ctx, name, command)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (s *stage) command(ctx context.Context, name string, command []string) *exec.Cmd {
	s.t.Helper()
	bin, err := harness.Product()
	if err != nil {
		s.t.Fatal(err)
	}
	dir := filepath.Join(s.home, name)
	args := slices.Clone(command)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "/etc/pgwaltz", dir)
	}
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = os.Environ()
	for k, v := range s.c.Services[name].Environment {
		cmd.Env = append(cmd.Env, k+"="+strings.ReplaceAll(v, "/run/secrets", dir))
	}
	return cmd
}

// The whole of compose.yaml, with processes for containers.
func TestDeployment(t *testing.T) {
	t.Parallel()
	bin, err := harness.FindBinaries()
	pgtest.Found(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	s := newStage(t)
	room, err := harness.NewRoom()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = room.Close() })
	ports := freePorts(t, 3)
	replace := []string{"0.0.0.0:7422", "127.0.0.1:" + ports[0], "pgwaltz-eu:7422", "localhost:" + ports[0]}
	servers := map[string]*harness.Cluster{}
	for _, region := range []string{"eu", "us"} {
		k := s.server(ctx, room, bin, region)
		servers[region] = k
		replace = append(replace, "host=postgres-"+region, fmt.Sprintf("host=localhost port=%d", k.Port))
	}
	for i, region := range []string{"eu", "us"} {
		s.hosts = strings.NewReplacer(append(replace, "127.0.0.1:8422", "127.0.0.1:"+ports[1+i])...)
		s.container("setup-" + region)
		s.container("pgwaltz-" + region)
		setup := "setup-" + region
		if out, code := s.pgwaltz(ctx, setup, s.c.Services[setup].Command); code != 0 {
			t.Fatalf("setup of region %s ends with %d:\n%s", region, code, out)
		}
	}
	run := dockerCommand(t)
	for _, region := range []string{"eu", "us"} {
		s.start(ctx, "pgwaltz-"+region, run)
	}
	for _, region := range []string{"eu", "us"} {
		s.healthy(ctx, "pgwaltz-"+region)
	}
	// As the head of compose.yaml says: the tables in both, then setup again.
	for region, k := range servers {
		if _, err := k.PSQL(ctx, "accounts", "create table users (id int primary key, password text, version bigint not null default 0, updated_at timestamptz not null default now())"); err != nil {
			t.Fatal(err)
		}
		setup := "setup-" + region
		if out, code := s.pgwaltz(ctx, setup, s.c.Services[setup].Command); code != 0 {
			t.Fatalf("second setup of region %s ends with %d:\n%s", region, code, out)
		}
		check := []string{"check", "--config", "/etc/pgwaltz/pgwaltz.yaml"}
		if out, code := s.pgwaltz(ctx, "pgwaltz-"+region, check); code != 0 || strings.Contains(out, "superuser") {
			t.Errorf("check of region %s ends with %d:\n%s", region, code, out)
		}
	}
	for region, k := range servers {
		if _, err := k.PSQL(ctx, "accounts", fmt.Sprintf("insert into users (id, password) values (%d, 'secret')", len(region)+int(region[0]))); err != nil {
			t.Fatal(err)
		}
	}
	for region, k := range servers {
		s.until(ctx, "both rows in region "+region, func() bool {
			out, err := k.PSQL(ctx, "accounts", "select count(*) from users")
			return err == nil && strings.TrimSpace(out) == "2"
		})
	}
}

// dockerCommand is the CMD of the Dockerfile.
func dockerCommand(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		var cmd []string
		if rest, ok := strings.CutPrefix(line, "CMD "); ok && yaml.Unmarshal([]byte(rest), &cmd) == nil {
			return cmd
		}
	}
	t.Fatal("the Dockerfile has no CMD")
	return nil
}

// server is a PostgreSQL as compose.yaml starts it, with the certificate and the role of the scripts.
func (s *stage) server(ctx context.Context, room *harness.Room, bin harness.Binaries, region string) *harness.Cluster {
	s.t.Helper()
	k, err := harness.NewCluster(room, bin, harness.ClusterConfig{Name: region, Settings: map[string]string{
		"ssl": "on", "ssl_cert_file": "'server.pem'", "ssl_key_file": "'server.key'", "max_slot_wal_keep_size": "'16GB'",
		"listen_addresses": "'localhost'",
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(k.Close)
	owner, err := os.Stat(filepath.Join(k.DataDir, "PG_VERSION"))
	if err != nil {
		s.t.Fatal(err)
	}
	for name, file := range map[string]string{"server.pem": "postgres-" + region + ".pem", "server.key": "postgres-" + region + ".key"} {
		path := filepath.Join(k.DataDir, name)
		if err := os.WriteFile(path, []byte(s.read("secrets/"+file)), 0o600); err != nil {
			s.t.Fatal(err)
		}
		if err := chownLike(path, owner); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := k.Start(ctx); err != nil {
		s.t.Fatalf("%v\n%s", err, harness.TailFile(k.LogPath, 20))
	}
	if _, err := k.PSQL(ctx, "postgres", "create database accounts"); err != nil {
		s.t.Fatal(err)
	}
	s.write("role.sh", strings.ReplaceAll(s.read("role.sh"), "/run/secrets/", filepath.Join(s.dir, "secrets")+"/"))
	s.bash("role.sh", "POSTGRES_USER=postgres", "POSTGRES_DB=accounts", "PGHOST=localhost", fmt.Sprintf("PGPORT=%d", k.Port),
		"PATH="+filepath.Dir(bin.Path("psql"))+":"+os.Getenv("PATH"))
	return k
}

func freePorts(t *testing.T, n int) (out []string) {
	t.Helper()
	for range n {
		p, err := pgcluster.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprint(p))
	}
	return out
}

// start runs a service until the test ends, and waits for a graceful end then.
func (s *stage) start(ctx context.Context, name string, command []string) {
	s.t.Helper()
	log := filepath.Join(s.home, name+".log")
	cmd := s.command(context.WithoutCancel(ctx), name, command)
	p, err := harness.StartProcess(harness.Spec{Name: name, Path: cmd.Path, Args: cmd.Args[1:], Env: cmd.Env, Dir: s.home, Log: log})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("%s: %s", name, harness.TailFile(log, 20))
		}
		p.Kill()
	})
}

// healthy waits until the health check of a service answers 0.
func (s *stage) healthy(ctx context.Context, name string) {
	s.t.Helper()
	test := s.c.Services[name].HealthCheck.Test
	if len(test) < 3 || test[0] != "CMD" || test[1] != "/pgwaltz" {
		s.t.Fatalf("health check of %s: %v", name, test)
	}
	s.until(ctx, name+" to be healthy", func() bool {
		_, code := s.pgwaltz(ctx, name, test[2:])
		return code == 0
	})
}

func (s *stage) until(ctx context.Context, what string, ok func() bool) {
	s.t.Helper()
	err := harness.Poll(ctx, 90*time.Second, 200*time.Millisecond, func(context.Context) (bool, string, error) { return ok(), what, nil })
	if err != nil {
		s.t.Fatal(err)
	}
}
