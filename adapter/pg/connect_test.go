package pg_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// A database that prints values its own way must not change what we read.
func TestSettingsArePinned(t *testing.T) {
	t.Parallel()
	dsn := dsn(t)
	admin := connect(t, dsn)
	exec(t, admin, `do $$ begin execute format('alter database %I set DateStyle = ''SQL, DMY''', current_database());
		execute format('alter database %I set search_path = pg_catalog, public', current_database());
		execute format('alter database %I set bytea_output = escape', current_database());
		execute format('alter database %I set statement_timeout = ''1s''', current_database()); end $$`)
	conn, err := pg.Connect(t.Context(), dsn, pg.Options{Region: "eu", Role: "apply", Apply: true, LockTimeout: 1500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	want := map[string]string{
		"DateStyle": "ISO, YMD", "search_path": "", "bytea_output": "hex", "statement_timeout": "0", "TimeZone": "UTC", "jit": "off",
		"lock_timeout": "1500ms", "application_name": "pgwaltz_eu_apply", "row_security": "off", "extra_float_digits": "3",
		"IntervalStyle": "postgres", "lc_monetary": "C",
	}
	for name, value := range want {
		got, err := pg.Setting(t.Context(), conn, name)
		if err != nil {
			t.Fatal(err)
		}
		if got != value && !(name == "search_path" && got == `""`) {
			t.Errorf("%s = %q, want %q", name, got, value)
		}
	}
}

func TestReplicationConnection(t *testing.T) {
	t.Parallel()
	dsn := dsn(t)
	conn, err := pg.ConnectReplication(t.Context(), dsn, pg.Options{Region: "eu", Role: "slot"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	epoch, lsn, err := pg.IdentifySystem(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	sys, err := pg.LoadSystem(t.Context(), connect(t, dsn))
	if err != nil {
		t.Fatal(err)
	}
	if epoch.SystemID != sys.SystemID || epoch.Timeline != sys.Timeline || sys.SystemID == 0 || lsn == 0 {
		t.Errorf("replication session says %v at %s, ordinary session %+v", epoch, lsn, sys)
	}
	if sys.Version < 140000 || sys.Version/10000 != pg.ServerVersion(conn)/10000 || sys.WALLevel != "logical" || sys.InRecovery {
		t.Errorf("system = %+v, version of the connection %d", sys, pg.ServerVersion(conn))
	}
}

func TestConnectErrorsHoldNoSecret(t *testing.T) {
	t.Parallel()
	const secret = "hunter2!"
	for name, dsn := range map[string]string{
		"not a dsn":    "postgres://u:" + secret + "@[half/db",
		"bad port":     "postgres://u:" + secret + "@h:port/db",
		"refused":      "postgres://u:" + secret + "@127.0.0.1:1/db?connect_timeout=1",
		"no such host": "host=/nonexistent user=u password=" + secret,
	} {
		_, err := pg.Connect(t.Context(), dsn, pg.Options{})
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		var hint interface{ Hint() string }
		if text := fmt.Sprintf("%v %+v %q", err, err, err.Error()); strings.Contains(text, secret) || strings.Contains(text, "hunter") {
			t.Errorf("%s: %s", name, text)
		}
		if !errors.As(err, &hint) || hint.Hint() == "" {
			t.Errorf("%s: no hint", name)
		}
	}
}

func TestConnectErrorSaysWhoAndWhere(t *testing.T) {
	t.Parallel()
	_, err := pg.Connect(t.Context(), as(dsn(t), "nobody_here"), pg.Options{})
	if pg.Code(err) != "28000" || !strings.Contains(fmt.Sprint(err), "nobody_here") {
		t.Errorf("unknown role: %v", err)
	}
}
