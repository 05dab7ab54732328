package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"go.yaml.in/yaml/v4"
)

const hidden = "hunter2-é#"

// Whatever prints a configuration prints no secret.
func TestSecretsAreNeverPrinted(t *testing.T) {
	t.Parallel()
	for name, dsn := range map[string]string{
		"url":       "postgres://me:hunter2-%C3%A9%23@db.example:5433/account?sslmode=disable",
		"query":     "postgres://me@db.example:5433/account?password=hunter2-%C3%A9%23",
		"keywords":  "host=db.example port=5433 user=me dbname=account password='" + hidden + "'",
		"malformed": "postgres://me:" + hidden + "@[db/x",
		"stray at":  "postgres://me:a@" + hidden[:7] + "@db.example/x",
		"later":     "postgres://me:a@db.example," + hidden[:7] + "@other/x",
		"socket":    "host=/tmp user=me password=" + hidden,
	} {
		c := Default()
		c.Postgres.DSN, c.Postgres.AdminDSN = NewDSN(dsn), NewDSN(dsn)
		c.Postgres.Password, c.NATS.Password = NewSecret(hidden), NewSecret(hidden)
		c.NATS.URL, c.NATS.Dial = "nats://me:"+hidden[:7]+"@host,nats://"+hidden[:7]+"@host", []string{"nats-leaf://me:" + hidden[:7] + "@host:1"}
		var out bytes.Buffer
		logger := slog.New(slog.NewJSONHandler(&out, nil))
		logger.Info("x", "dsn", c.Postgres.DSN, "password", c.Postgres.Password, "postgres", c.Postgres)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "dsn", c.Postgres.DSN, "password", c.Postgres.Password, "postgres", c.Postgres)
		fmt.Fprintf(&out, "%v %+v %#v %s %q %x %d\n", c.Postgres, c.Postgres, c.Postgres, c.Postgres.DSN, c.Postgres.DSN, c.Postgres.DSN, c.Postgres.Password)
		j, err := json.Marshal(c.Postgres)
		if err != nil {
			t.Fatal(err)
		}
		y, err := yaml.Marshal(c.Postgres)
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Render()
		if err != nil {
			t.Fatal(err)
		}
		out.Write(j)
		out.Write(y)
		out.Write(r)
		if i := strings.Index(out.String(), "hunter"); i >= 0 {
			t.Errorf("%s: ...%s", name, out.String()[max(0, i-80):i+10])
		}
		if !slices.Contains([]string{"malformed", "stray at", "later"}, name) && !strings.Contains(string(r), "me:xxxxx@") {
			t.Errorf("%s: the rest of the connection string is not shown:\n%s", name, r)
		}
	}
}

func TestPasswordInFileIsWarnedOf(t *testing.T) {
	t.Parallel()
	base := "cluster: c\nregion: eu\ndirection: publish\npostgres: {dsn: \"%s\"}\n"
	for dsn, want := range map[string]int{"postgres://u:p@h/d": 1, "host=h user=u password=p": 1, "postgres://u@h/d": 0, "host=h user=u": 0} {
		c, err := parse("x.yaml", fmt.Appendf(nil, base, dsn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Warnings(); len(got) != want {
			t.Errorf("%s: %v", dsn, got)
		}
	}
}

// The document names every key and every variable that only the environment has.
func TestDocumentIsComplete(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range Keys() {
		if !strings.Contains(string(text), "`"+key+"`") {
			t.Errorf("docs/configuration.md does not explain `%s`", key)
		}
	}
	for _, v := range []string{"PGWALTZ_POSTGRES_PASSWORD", "PGWALTZ_NATS_PASSWORD", "PGWALTZ_FAILPOINT"} {
		if !strings.Contains(string(text), v) {
			t.Errorf("docs/configuration.md does not explain %s", v)
		}
	}
}

// A password goes into every form of a connection string as it is, and the rest stays as it was.
func TestPasswordIsPutIn(t *testing.T) {
	t.Parallel()
	for _, password := range []string{"plain", `it's \ "odd" & 100% = ü#1`, " a b ", "+", "a+b", "%20", "?x=y&password=z", "@:/"} {
		for _, dsn := range []string{
			"host=h user=u dbname=d", "host=h user=u password=former dbname=d", "postgres://u@h/d", "postgres://u:former@h/d?application_name=a%20b+c&sslmode=disable",
			"postgresql:///d?host=/run/x&user=u&password=former", "postgres://u@h,g:5433/d?target_session_attrs=read-write",
		} {
			got, err := pgconn.ParseConfig(NewDSN(dsn).withPassword(NewSecret(password)).Reveal())
			if err != nil {
				t.Errorf("%s with %q: %v", dsn, password, err)
				continue
			}
			want, err := pgconn.ParseConfig(dsn)
			if err != nil {
				t.Fatal(err)
			}
			if got.Password != password || got.User != "u" || got.Database != "d" || got.Host != want.Host || got.RuntimeParams["application_name"] != want.RuntimeParams["application_name"] {
				t.Errorf("%s with %q: %q, %q at %s, %q", dsn, password, got.Password, got.User, got.Host, got.RuntimeParams["application_name"])
			}
		}
	}
}

func TestMask(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ dsn, text, want string }{
		{"host=a password=geheim dbname=d", `near "geheim dbname=d"`, `near "xxxxx dbname=d"`},
		{"host=a password=geheim", `cannot use host=a password=geheim`, `cannot use xxxxx`},
		{`host=a password='it''s'`, `nothing of it`, `nothing of it`},
		{`host=a password='it\'s\\so'`, `it's\so or it\'s\\so`, `xxxxx or xxxxx`},
		{"postgres://u:a%2Fb%40c@h/d", `a/b@c, a%2Fb%40c`, `xxxxx, xxxxx`},
		{"postgres://u@h/d?password=geheim", `geheim`, `xxxxx`},
		{"host=a password=ab", `abc`, `abc`},
		{"", `as it is`, `as it is`},
	} {
		if got := NewDSN(c.dsn).Mask(c.text); got != c.want {
			t.Errorf("%s: %q, want %q", c.dsn, got, c.want)
		}
	}
}

func TestAConnectionStringThatNamesAFileThatIsGone(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"host=h user=u password=hunter2 sslmode=verify-full sslrootcert=/nowhere/ca.pem":        true,
		"postgres://u:hunter2@h/d?sslmode=verify-full&sslrootcert=/nowhere/ca.pem":              true,
		"postgres://u:hunter2@h/d?sslmode=require&sslcert=/nowhere/x.pem&sslkey=/nowhere/x.key": true,
		"host=h password='hunter2": false, "host=h user=u": false,
	} {
		if got := NewDSN(text).unreadable(); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
