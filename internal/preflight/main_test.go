package preflight_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

var (
	logical = &pgtest.Server{}
	replica = &pgtest.Server{Settings: []string{"wal_level = replica"}}
	small   = &pgtest.Server{Settings: []string{"max_replication_slots = 1", "max_wal_senders = 1"}}
)

func TestMain(m *testing.M) { pgtest.Main(m, logical, replica, small) }

var sites atomic.Int32 // so many have a name

// site is a database of its own, with a region name that no other test has.
type site struct {
	t      *testing.T
	dsn    string
	region string
	admin  *pgx.Conn
}

func newSite(t *testing.T, s *pgtest.Server) *site {
	t.Helper()
	w := &site{t: t, dsn: s.Database(t), region: fmt.Sprintf("r%d", sites.Add(1))}
	w.admin = w.connect("postgres")
	return w
}

// connect opens a session as a role; the clusters trust their socket.
func (w *site) connect(role string) *pgx.Conn {
	w.t.Helper()
	conn, err := pg.Connect(w.t.Context(), w.as(role), pg.Options{Region: w.region, Role: "test"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (w *site) as(role string) string { return pgtest.As(w.dsn, role) }

func (w *site) exec(statements ...string) {
	w.t.Helper()
	pgtest.Exec(w.t, w.admin, statements...)
}

// text reads one value as text.
func (w *site) text(sql string, args ...any) string {
	w.t.Helper()
	var s *string
	if err := w.admin.QueryRow(w.t.Context(), "select ("+sql+")::text", args...).Scan(&s); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	if s == nil {
		return "<null>"
	}
	return *s
}

// config is the configuration of a role in this database; extra is appended YAML.
func (w *site) config(role, extra string) *config.Config {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "c.yaml")
	text := fmt.Sprintf("cluster: test\nregion: %s\npeers: [{region: us}]\nnats: {listen: '127.0.0.1:7422'}\n", w.region)
	if !strings.Contains(extra, "postgres:") {
		text += fmt.Sprintf("postgres: {dsn: %q}\n", w.as(role))
	}
	if err := os.WriteFile(path, []byte(text+extra), 0o600); err != nil {
		w.t.Fatal(err)
	}
	c, err := config.Load(path, []string{"PGWALTZ_POSTGRES_UNBOUNDED_WAL=true"})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *site) apply(conn *pgx.Conn, cfg *config.Config) *preflight.Setup {
	w.t.Helper()
	s, err := preflight.Apply(w.t.Context(), conn, cfg, preflight.Talk{})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *site) check(conn *pgx.Conn, cfg *config.Config) preflight.Findings {
	w.t.Helper()
	fs, err := preflight.Check(w.t.Context(), conn, cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return fs
}

// codes lists the findings of a severity, sorted as found, for comparison.
func codes(fs preflight.Findings, severity preflight.Severity) string {
	var out []string
	for _, f := range fs {
		if f.Severity == severity {
			out = append(out, f.Code)
		}
	}
	return strings.Join(out, " ")
}

// dump is everything that setup could change.
func (w *site) dump() string {
	return w.text(`select string_agg(x, E'\n' order by x) from (
		select 'rel ' || oid::regclass::text || relreplident::text || coalesce(relacl::text, '') from pg_class where relnamespace::regnamespace::text not like 'pg\_%'
		union all select 'pub ' || p::text || (select coalesce(string_agg(t::text, ',' order by t::text), '') from pg_publication_tables t where t.pubname = p.pubname) from pg_publication p
		union all select 'trg ' || pg_get_triggerdef(oid) from pg_trigger
		union all select 'fun ' || oid::regprocedure::text || xmin::text from pg_proc where pronamespace::regnamespace::text = 'pgwaltz'
		union all select 'nsp ' || nspname::text || coalesce(nspacl::text, '') || coalesce(obj_description(oid), '') from pg_namespace where nspname not like 'pg\_temp%'
		union all select 'slot ' || slot_name || confirmed_flush_lsn::text from pg_replication_slots where slot_name = 'pgwaltz_test_` + w.region + `'
		union all select 'role ' || rolname || rolreplication || rolsuper from pg_roles where rolname like '%\_` + w.region + `') s(x)`)
}
