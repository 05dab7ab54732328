package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the expected messages anew")

func TestGoodFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.good.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		c, err := Load(file, nil)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%s: Validate: %v", file, err)
		}
	}
}

func TestBadFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			_, err := Load(file, nil)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("no *Error: %v", err)
			}
			var got strings.Builder
			for _, p := range e.Problems {
				got.WriteString(p.String() + "\n")
			}
			golden := strings.TrimSuffix(file, "yaml") + "want"
			if *update {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got.String(), want)
			}
			if strings.Contains(e.Error(), "hunter2") {
				t.Error("a password is in the message")
			}
			if e.ExitCode() != 3 {
				t.Errorf("exit code %d", e.ExitCode())
			}
		})
	}
}

func TestFullFile(t *testing.T) {
	t.Parallel()
	c, err := Load("testdata/full.good.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Publish.Compress || c.Copy.Mode != CopyOff || c.Audit.Retention != 720*time.Hour || c.NATS.MaxBytes != 10<<30 {
		t.Errorf("%+v %+v %+v %+v", c.Publish, c.Copy, c.Audit, c.NATS)
	}
	if c.Publish.HoldMargin != 8<<20 {
		t.Errorf("the default margin does not give way: %s", c.Publish.HoldMargin)
	}
	if key, err := c.Peers[0].Key(); err != nil || len(key) != 32 {
		t.Errorf("key %x, %v", key, err)
	}
	if got := c.Table("public", "users"); got != (TableSettings{"rev", "", OrderTime, IdentityKeep}) {
		t.Errorf("users: %+v", got)
	}
	if got := c.Table("app", "x"); got != (TableSettings{"version", "changed_at", OrderVersion, IdentityKeep}) {
		t.Errorf("app.x: %+v", got)
	}
	for name, want := range map[[2]string]bool{
		{"public", "users"}: true, {"public", "tmp_x"}: false, {"app", "Odd.Name"}: true, {"app", "odd.name"}: false,
		{"pgwaltz", "node"}: false, {"pg_catalog", "pg_class"}: false,
	} {
		if got := c.Selected(name[0], name[1]); got != want {
			t.Errorf("Selected(%v) = %v", name, got)
		}
	}
	same, other := *c, *c
	same.Stamps.Version, other.Tables.Exclude = "else", c.Tables.Exclude[1:]
	if c.Selection() != same.Selection() || c.Selection() == other.Selection() {
		t.Error("the selection is not named by what is selected")
	}
	if !c.Redacted("any", "users", "password") || c.Redacted("any", "users", "email") {
		t.Error("redaction")
	}
	if c.Source("postgres.slot") != "line 7" || c.Source("signing.key_file") != "default" {
		t.Errorf("sources %q %q", c.Source("postgres.slot"), c.Source("signing.key_file"))
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	c, err := Load("testdata/minimal.good.yaml", []string{
		"PGWALTZ_REGION=ap-1", "PGWALTZ_POSTGRES_DSN=host=db user=me", "PGWALTZ_POSTGRES_PASSWORD=it's \\ here", "PGWALTZ_PEERS=us=, ",
		"PGWALTZ_TABLES_EXCLUDE=a.b,c.*", "PGWALTZ_NATS_MAX_BYTES=2GiB", "PGWALTZ_NATS_USER=u", "PGWALTZ_NATS_PASSWORD=p", "PGWALTZ_PUBLISH_COMPRESS=no",
		"PGWALTZ_FAILPOINT=x:kill@1", "PGWALTZ_NATS_PORT=tcp://10.0.0.1:4222", "PGWALTZ_NATS_SERVICE_HOST=10.0.0.1", "OTHER=1", "STATE_DIRECTORY=/state",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Region != "ap-1" || c.Postgres.Slot != "pgwaltz_accounts_ap_1" || !slices.Equal(c.PeerNames(), []string{"us"}) || len(c.Tables.Exclude) != 2 ||
		c.NATS.MaxBytes != 2<<30 || c.Publish.Compress || c.NATS.Password.Reveal() != "p" || c.NATS.StoreDir != "/state/ap-1/nats" {
		t.Errorf("%+v", *c)
	}
	if got := c.Postgres.DSN.Reveal(); got != `host=db user=me password='it\'s \\ here'` {
		t.Errorf("dsn %s", got)
	}
	if c.Source("region") != "PGWALTZ_REGION" {
		t.Errorf("source %q", c.Source("region"))
	}
	_, err = Load("testdata/minimal.good.yaml", []string{"PGWALTZ_POSTGRES_DNS=x", "PGWALTZ_NATS_REPLICAS=many"})
	for _, want := range []string{"PGWALTZ_POSTGRES_DNS: unknown setting; did you mean PGWALTZ_POSTGRES_DSN?", `PGWALTZ_NATS_REPLICAS: nats.replicas: "many" is no whole number`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
	// A name that is all but a key's is a mistake; any other is somebody else's.
	for name, mistake := range map[string]bool{
		"PGWALTZ_REGOIN": true, "PGWALTZ_PEER": true, "PGWALTZ_CLUSTERS": true, "PGWALTZ_DIRECTIONS": true, "PGWALTZ_SHUTDOWN_TIMOUT": true,
		"PGWALTZ_VERSION": false, "PGWALTZ_IMAGE": false, "PGWALTZ_PORT": false, "PGWALTZ_SERVICE_HOST": false, "PGWALTZ_BIN": false,
	} {
		if _, err := Load("testdata/minimal.good.yaml", []string{name + "=x"}); (err != nil) != mistake {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A password of the environment wins over the file that the configuration file names, as every other
// variable does; two of the environment are a mistake.
func TestPasswordOfTheEnvironmentWins(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret, path := filepath.Join(dir, "pw"), filepath.Join(dir, "pgwaltz.yaml")
	text, err := os.ReadFile("testdata/minimal.good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	yaml := strings.Replace(string(text), "postgres: {", "postgres: {password_file: "+secret+", ", 1)
	yaml = strings.Replace(yaml, "nats: {", "nats: {user: u, password_file: "+secret+", ", 1)
	for file, content := range map[string]string{secret: "of-the-file\n", path: yaml} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	passwords := func(env ...string) string {
		t.Helper()
		c, err := Load(path, env)
		if err != nil {
			t.Fatal(err)
		}
		if c.Postgres.Fresh().Reveal() != c.Postgres.DSN.Reveal() {
			t.Errorf("the next connection uses another password")
		}
		return c.Postgres.Password.Reveal() + " " + c.NATS.Password.Reveal()
	}
	if got := passwords(); got != "of-the-file of-the-file" {
		t.Errorf("without the environment: %s", got)
	}
	if got := passwords("PGWALTZ_POSTGRES_PASSWORD=p", "PGWALTZ_NATS_PASSWORD=n"); got != "p n" {
		t.Errorf("with the environment: %s", got)
	}
	for _, section := range []string{"POSTGRES", "NATS"} {
		if _, err := Load(path, []string{"PGWALTZ_" + section + "_PASSWORD=x", "PGWALTZ_" + section + "_PASSWORD_FILE=" + secret}); err == nil || !strings.Contains(err.Error(), "is given together with") {
			t.Errorf("both of %s: %v", section, err)
		}
	}
}

func TestSecretFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	dsn, password, empty := write("dsn", "postgres://u:old@h/db?sslmode=disable\nsecond line\n"), write("pw", "p&w#1\r\n"), write("empty", "")
	base := []string{"PGWALTZ_POSTGRES_DSN="}
	c, err := Load("testdata/minimal.good.yaml", append(base, "PGWALTZ_POSTGRES_DSN_FILE="+dsn, "PGWALTZ_POSTGRES_PASSWORD_FILE="+password))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Postgres.DSN.Reveal(); got != "postgres://u@h/db?sslmode=disable&password=p%26w%231" {
		t.Errorf("dsn %s", got)
	}
	// A file named in the environment wins over the file's dsn.
	if c, err = Load("testdata/minimal.good.yaml", []string{"PGWALTZ_POSTGRES_DSN_FILE=" + dsn}); err != nil || c.Postgres.DSN.User() != "u" {
		t.Errorf("%v, %v", c, err)
	}
	if _, err = Load("testdata/minimal.good.yaml", []string{"PGWALTZ_POSTGRES_PASSWORD_FILE=" + empty}); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("empty file: %v", err)
	}
}

// A password that changes while the sidecar runs is used for the next connection.
func TestRotatedPassword(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dsn, password := filepath.Join(dir, "dsn"), filepath.Join(dir, "password")
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(dsn, "host=one user=me")
	write(password, "old")
	c, err := Load("testdata/minimal.good.yaml", []string{"PGWALTZ_POSTGRES_DSN=", "PGWALTZ_POSTGRES_DSN_FILE=" + dsn, "PGWALTZ_POSTGRES_PASSWORD_FILE=" + password})
	if err != nil {
		t.Fatal(err)
	}
	write(password, "new")
	if got := c.Postgres.Fresh().Reveal(); !strings.HasPrefix(got, "host=one ") || !strings.HasSuffix(got, " password='new'") {
		t.Errorf("after the password changed: %s", got)
	}
	write(dsn, "host=two user=me")
	if got := c.Postgres.Fresh().Reveal(); !strings.HasPrefix(got, "host=two ") || !strings.HasSuffix(got, " password='new'") {
		t.Errorf("after the file of the connection changed: %s", got)
	}
	write(dsn, "=")
	write(password, "")
	if got := c.Postgres.Fresh().Reveal(); got != "host=one user=me password='old'" {
		t.Errorf("with files that are being written: %s", got)
	}
}

// Names that the whole server shares hold the cluster, and fit.
func TestNamesOfTheServer(t *testing.T) {
	t.Parallel()
	if a, b := DefaultSlot("one", "eu-1"), DefaultSlot("two", "eu-1"); a != "pgwaltz_one_eu_1" || b != "pgwaltz_two_eu_1" {
		t.Errorf("slots %s and %s", a, b)
	}
	if a, b := OriginName("one", "us"), OriginName("two", "us"); a != "pgwaltz_one_us" || b != "pgwaltz_two_us" {
		t.Errorf("origins %s and %s", a, b)
	}
	long := strings.Repeat("c", 32)
	a, b := DefaultSlot(long, strings.Repeat("r", 32)), DefaultSlot(long, strings.Repeat("r", 31)+"s")
	if len(a) != 63 || len(b) != 63 || a == b {
		t.Errorf("long names become %s and %s", a, b)
	}
	_, err := Load("testdata/minimal.good.yaml", []string{"PGWALTZ_POSTGRES_SLOT=" + DefaultSlot("accounts", "us"), "PGWALTZ_PEERS=us"})
	if err == nil || !strings.Contains(err.Error(), "is the slot of peer us") {
		t.Errorf("the peer's slot: %v", err)
	}
}

func TestLoadWithoutFile(t *testing.T) {
	t.Parallel()
	if _, err := Load("testdata/absent.yaml", nil); err == nil || !strings.Contains(err.Error(), "cannot be read: no such file") {
		t.Error(err)
	}
	c, err := Load("", []string{"PGWALTZ_CLUSTER=c", "PGWALTZ_REGION=eu", "PGWALTZ_DIRECTION=publish", "PGWALTZ_POSTGRES_DSN=postgres:///x"})
	if err != nil || c.String() != "c/eu" {
		t.Error(c, err)
	}
}

// A name that means something without an end is refused; it does not fill the memory.
func TestEndlessFile(t *testing.T) {
	t.Parallel()
	if _, err := Load("/dev/zero", nil); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a configuration: %v", err)
	}
	_, err := Load("", []string{"PGWALTZ_POSTGRES_DSN_FILE=/dev/zero"})
	if err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a secret: %v", err)
	}
}
