package pg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Options are what differs between connections.
type Options struct {
	Region string // for application_name
	Role   string // what the connection is for: apply, slot, status
	// LockTimeout is how long a statement waits for a lock before 55P03; 0 waits for ever.
	LockTimeout time.Duration
	// Settings are added to the start-up packet; a pinned setting wins over them.
	Settings map[string]string
	// ConnectTimeout is used where the connection string has none; 0 means 10 s.
	ConnectTimeout time.Duration
	// Frontend replaces the reader of the server's messages, for a connection that streams.
	Frontend func(r io.Reader, w io.Writer) *pgproto3.Frontend
	// Dial replaces the dialer, for tests that cut connections.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// pins are the settings that decide how values read and how statements behave. lc_monetary
// is among them because money has no other neutral form; pg_temp stands last in search_path because
// it would come first unnamed, and a trigger may make a temporary table called text.
func pins() map[string]string {
	return map[string]string{
		"DateStyle": "ISO, YMD", "IntervalStyle": "postgres", "TimeZone": "UTC", "client_encoding": "UTF8",
		"extra_float_digits": "3", "bytea_output": "hex", "xmlbinary": "base64", "xmloption": "content",
		"lc_monetary": "C", "array_nulls": "on", "quote_all_identifiers": "off", "standard_conforming_strings": "on",
		"search_path": "pg_catalog, pg_temp", "row_security": "off", "statement_timeout": "0", "idle_in_transaction_session_timeout": "0",
		"idle_session_timeout": "0", "default_transaction_isolation": "read committed",
		"default_transaction_read_only": "off", "default_transaction_deferrable": "off",
		"synchronous_commit": "local", "transform_null_equals": "off", "client_min_messages": "warning",
		"role":          "none", // "alter role ... set role" would make it another one
		"exit_on_error": "off",  // an error is mostly one row's, and the session goes on
		// The server notices a client that is gone by these; the dialer does it the other way.
		"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3",
	}
}

// plans are the settings of the planner that a role or a database may have for the application's
// statements. Ours find rows by their keys, many times a second: without an index scan or a join
// they would read whole tables, and compiling them would take longer than running them.
func plans() map[string]string {
	m := map[string]string{"jit": "off", "plan_cache_mode": "auto", "max_parallel_workers_per_gather": "0", "constraint_exclusion": "partition"}
	for _, name := range []string{"indexscan", "indexonlyscan", "bitmapscan", "seqscan", "tidscan", "sort", "hashagg", "hashjoin", "mergejoin", "nestloop", "material", "partition_pruning"} {
		m["enable_"+name] = "on"
	}
	return m
}

// Pinned names the settings that every session is given and that a statement could change.
func Pinned() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(pins())), func(name string) bool { return strings.HasPrefix(name, "tcp_") })
}

// ConfigError is a connection string that cannot be used. It does not repeat the string,
// which may hold a password.
type ConfigError struct{}

func (*ConfigError) Error() string { return "parse connection string: it cannot be understood" }

// Hint shows the two forms.
func (*ConfigError) Hint() string {
	return "write postgres://user@host:5432/database or host=... user=... dbname=...; in a URL @ : / ? # and % of a password are written %40 %3A %2F %3F %23 and %25"
}

// Config parses dsn and pins the settings. replication opens the logical replication mode.
func config(dsn string, o Options, replication bool) (*pgconn.Config, error) {
	c, err := pgconn.ParseConfig(dsn)
	if err != nil || misplaced(c) {
		return nil, &ConfigError{}
	}
	tune(c, o, replication)
	return c, nil
}

// misplaced reports whether a host begins with the rest of a password, as behind an @ in a URL that is not written %40. No error may name it.
func misplaced(c *pgconn.Config) bool {
	return strings.Contains(c.Host, "@") || slices.ContainsFunc(c.Fallbacks, func(f *pgconn.FallbackConfig) bool { return strings.Contains(f.Host, "@") })
}

func tune(c *pgconn.Config, o Options, replication bool) {
	if c.RuntimeParams == nil {
		c.RuntimeParams = map[string]string{}
	}
	role := c.RuntimeParams["role"]
	maps.Copy(c.RuntimeParams, o.Settings)
	maps.Copy(c.RuntimeParams, plans())
	maps.Copy(c.RuntimeParams, pins())
	if role != "" {
		c.RuntimeParams["role"] = role // somebody wrote it into the connection string
	}
	c.RuntimeParams["application_name"] = "pgwaltz_" + o.Region + "_" + o.Role
	c.RuntimeParams["lock_timeout"] = strconv.FormatInt(o.LockTimeout.Milliseconds(), 10)
	delete(c.RuntimeParams, "replication")
	if replication {
		c.RuntimeParams["replication"] = "database"
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = o.ConnectTimeout
		if c.ConnectTimeout == 0 {
			c.ConnectTimeout = 10 * time.Second
		}
	}
	dialer := &net.Dialer{
		Timeout:         c.ConnectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3},
	}
	c.DialFunc = dialer.DialContext
	if o.Dial != nil {
		c.DialFunc = o.Dial
	}
	if o.Frontend != nil {
		c.BuildFrontend = o.Frontend
	}
}

// Connect opens an ordinary session. The caller owns it and closes it.
func Connect(ctx context.Context, dsn string, o Options) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig(dsn)
	if err != nil || misplaced(&c.Config) {
		return nil, &ConfigError{}
	}
	tune(&c.Config, o, false)
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, connectError(&c.Config, err)
	}
	err = afterConnect(ctx, conn.PgConn())
	if err == nil {
		err = fireTriggers(ctx, conn.PgConn(), c.User)
	}
	if err != nil {
		conn.Close(ctx)
		if setting := (*SettingError)(nil); errors.As(err, &setting) {
			return nil, setting
		}
		return nil, connectError(&c.Config, err)
	}
	return conn, nil
}

// fireTriggers undoes a setting of the role or the database that switches triggers and foreign keys
// off: who wants that says so in the session.
func fireTriggers(ctx context.Context, conn *pgconn.PgConn, user string) error {
	_, err := conn.Exec(ctx, `select pg_catalog.set_config('session_replication_role', 'origin', false)
where pg_catalog.current_setting('session_replication_role') = 'replica'`).ReadAll()
	if Code(err) == "42501" {
		return &SettingError{Name: "session_replication_role", Value: "replica", User: user}
	}
	return err
}

// SettingError is a setting of the role or the database that the session may not change, and that
// it cannot work with.
type SettingError struct{ Name, Value, User string }

func (e *SettingError) Error() string {
	return fmt.Sprintf("%s is %s in the sessions of role %q", e.Name, e.Value, e.User)
}

// Hint says how to take the setting back.
func (e *SettingError) Hint() string {
	return "alter role " + Quote(e.User) + " reset " + e.Name + ", or alter database ... reset " + e.Name
}

// ExitCode is the exit code for the local server.
func (e *SettingError) ExitCode() int { return 5 }

// afterConnect sets what depends on the server.
func afterConnect(ctx context.Context, conn *pgconn.PgConn) error {
	sql := ""
	if ServerVersion(conn) >= 170000 {
		sql = "set transaction_timeout = 0;" // older ones do not know it
	}
	if conn.ParameterStatus("server_encoding") == "SQL_ASCII" {
		// Bytes without an encoding: nothing can convert them, and nothing should check them.
		sql += "set client_encoding = 'SQL_ASCII';"
	}
	if sql == "" {
		return nil
	}
	_, err := conn.Exec(ctx, sql).ReadAll()
	return err
}

// ConnectReplication opens a session in logical replication mode, with the same settings
// pinned: they shape what pgoutput sends. One goroutine may use it.
func ConnectReplication(ctx context.Context, dsn string, o Options) (*pgconn.PgConn, error) {
	c, err := config(dsn, o, true)
	if err != nil {
		return nil, err
	}
	conn, err := pgconn.ConnectConfig(ctx, c)
	if err != nil {
		return nil, connectError(c, err)
	}
	if err := afterConnect(ctx, conn); err != nil {
		conn.Close(ctx)
		return nil, connectError(c, err)
	}
	return conn, nil
}

// CopiesServer reports whether the server takes a session for physical replication from the role:
// who has that may copy all of the server, whatever the tables' privileges are.
func CopiesServer(ctx context.Context, dsn string, o Options) bool {
	c, err := config(dsn, o, true)
	if err != nil {
		return false
	}
	c.RuntimeParams["replication"] = "true"
	conn, err := pgconn.ConnectConfig(ctx, c)
	if err != nil {
		return false
	}
	_ = conn.Close(ctx) // it has shown what it could
	return true
}

// ConnectError says which server could not be reached, and as whom, without secrets.
type ConnectError struct {
	Host     string
	Port     uint16
	User     string
	Database string
	Err      error
}

func (e *ConnectError) Error() string {
	return fmt.Sprintf("connect to database %q at %s as %q: %v", e.Database, net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))), e.User, strings.ReplaceAll(e.Err.Error(), "\n", "; "))
}

func (e *ConnectError) Unwrap() error { return e.Err }

// Hint is the next thing to look at.
func (e *ConnectError) Hint() string {
	switch Code(e.Err) {
	case "28P01", "28000":
		return "check user, password and pg_hba.conf; the server's log has the reason"
	case "3D000":
		return "create the database, or correct the name in postgres.dsn"
	case "42501":
		return "as an admin: alter role " + Quote(e.User) + " replication"
	case "53300":
		return "close connections, or raise max_connections or max_wal_senders and restart PostgreSQL; where the role has a limit of its own: alter role " + Quote(e.User) + " connection limit -1"
	case "57P03":
		return "the server is starting or stopping; wait"
	case "42704", "22023", "08P01": // 08P01 is PgBouncer's
		return "connect to PostgreSQL itself, not through a pooler, which may refuse settings at start-up"
	}
	return "check that PostgreSQL runs there and that host, port and sslmode in postgres.dsn are right"
}

// ExitCode is the exit code for the local server.
func (e *ConnectError) ExitCode() int { return 5 }

// connectError keeps the server's answer or the network's error and drops the driver's
// wrapping, which repeats the connection parameters.
func connectError(c *pgconn.Config, err error) error {
	out := &ConnectError{Host: c.Host, Port: c.Port, User: c.User, Database: c.Database, Err: err}
	var server *pgconn.PgError
	var network *net.OpError
	var lookup *net.DNSError
	switch {
	case errors.As(err, &server):
		out.Err = server
	case errors.As(err, &network):
		out.Err = network
	case errors.As(err, &lookup): // with and without TLS, and for each family of addresses: once is enough
		out.Err = lookup
	default:
		var ce *pgconn.ConnectError
		if errors.As(err, &ce) && ce.Unwrap() != nil {
			out.Err = ce.Unwrap()
		}
	}
	return out
}

// ServerVersion is the number of the server's version, for example 150018; 0 when the
// server did not tell.
func ServerVersion(conn *pgconn.PgConn) int {
	s := conn.ParameterStatus("server_version")
	major, minor, dot := 0, 0, false
	for _, r := range s {
		switch {
		case r >= '0' && r <= '9' && !dot:
			major = major*10 + int(r-'0')
		case r >= '0' && r <= '9':
			minor = minor*10 + int(r-'0')
		case r == '.' && !dot:
			dot = true
		default:
			return major*10000 + minor
		}
	}
	return major*10000 + minor
}
