package pg_test

import (
	"errors"
	"fmt"
	"strconv"
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
	hurt := map[string]string{
		"DateStyle": "SQL, DMY", "search_path": "pg_catalog, public", "bytea_output": "escape", "statement_timeout": "1s", "TimeZone": "Asia/Kolkata",
		"default_transaction_read_only": "on", "default_transaction_deferrable": "on", "default_transaction_isolation": "serializable",
		"idle_in_transaction_session_timeout": "1s", "idle_session_timeout": "1s", "row_security": "on", "synchronous_commit": "off",
		"standard_conforming_strings": "off", "IntervalStyle": "sql_standard", "extra_float_digits": "-5", "xmloption": "document", "xmlbinary": "hex",
		"array_nulls": "off", "quote_all_identifiers": "on", "transform_null_equals": "on", "client_encoding": "LATIN1", "client_min_messages": "debug1",
		"enable_indexscan": "off", "enable_bitmapscan": "off", "enable_nestloop": "off", "plan_cache_mode": "force_generic_plan", "jit": "on", "max_parallel_workers_per_gather": "8",
	}
	for name, value := range hurt {
		exec(t, admin, fmt.Sprintf(`do $$ begin execute format('alter database %%I set %s = %%L', current_database(), '%s'); end $$`, name, value))
	}
	conn, err := pg.Connect(t.Context(), dsn, pg.Options{Region: "eu", Role: "apply", LockTimeout: 1500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	want := map[string]string{
		"DateStyle": "ISO, YMD", "search_path": "pg_catalog, pg_temp", "bytea_output": "hex", "statement_timeout": "0", "TimeZone": "UTC", "jit": "off",
		"lock_timeout": "1500ms", "application_name": "pgwaltz_eu_apply", "row_security": "off", "extra_float_digits": "3",
		"IntervalStyle": "postgres", "lc_monetary": "C",
		"default_transaction_read_only": "off", "default_transaction_deferrable": "off", "default_transaction_isolation": "read committed",
		"idle_in_transaction_session_timeout": "0", "idle_session_timeout": "0", "synchronous_commit": "local",
		"standard_conforming_strings": "on", "xmloption": "content", "xmlbinary": "base64",
		"array_nulls": "on", "quote_all_identifiers": "off", "transform_null_equals": "off", "client_encoding": "UTF8", "client_min_messages": "warning",
		"enable_indexscan": "on", "enable_bitmapscan": "on", "enable_nestloop": "on", "plan_cache_mode": "auto", "max_parallel_workers_per_gather": "0",
	}
	for name := range hurt {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is not pinned", name)
		}
	}
	for name, value := range want {
		got, err := pg.Setting(t.Context(), conn, name)
		if err != nil {
			t.Fatal(err)
		}
		if got != value {
			t.Errorf("%s = %q, want %q", name, got, value)
		}
	}
}

// Bytes without an encoding are neither converted nor checked, in both kinds of session.
func TestBytesWithoutEncoding(t *testing.T) {
	t.Parallel()
	admin := connect(t, dsn(t))
	name := fmt.Sprintf("ascii_%d", time.Now().UnixNano())
	exec(t, admin, "create database "+name+" encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C' template template0")
	cfg := admin.Config()
	to := fmt.Sprintf("host=%s port=%d user=%s dbname=%s", cfg.Host, cfg.Port, cfg.User, name)
	conn, err := pg.Connect(t.Context(), to, pg.Options{Region: "eu", Role: "apply"})
	if err != nil {
		t.Fatal(err)
	}
	var got string
	if err := conn.QueryRow(t.Context(), `select E'caf\xe9'`).Scan(&got); err != nil || got != "caf\xe9" {
		t.Errorf("read %q, %v", got, err)
	}
	conn.Close(t.Context())
	slot, err := pg.ConnectReplication(t.Context(), to, pg.Options{Region: "eu", Role: "slot"})
	if err != nil {
		t.Fatal(err)
	}
	if got := slot.ParameterStatus("client_encoding"); got != "SQL_ASCII" {
		t.Errorf("the slot's client_encoding is %s", got)
	}
	slot.Close(t.Context())
	exec(t, admin, "drop database "+name)
}

func TestReplicationConnection(t *testing.T) {
	t.Parallel()
	dsn := dsn(t)
	conn, err := pg.ConnectReplication(t.Context(), dsn, pg.Options{Region: "eu", Role: "slot"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	res, err := conn.Exec(t.Context(), "IDENTIFY_SYSTEM").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	said := res[0].Rows[0]
	sys, err := pg.LoadSystem(t.Context(), connect(t, dsn))
	if err != nil {
		t.Fatal(err)
	}
	if string(said[0]) != strconv.FormatUint(sys.SystemID, 10) || string(said[1]) != strconv.FormatUint(uint64(sys.Timeline), 10) || sys.SystemID == 0 {
		t.Errorf("replication session says %s, ordinary session %+v", said, sys)
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
		"stray at":     "postgres://u:a@" + secret + "@127.0.0.1:1/db",
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
