package fallback

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/internal/visible"
)

// Statement is one step of a switch, at the local database.
type Statement struct {
	SQL string
	// Shown is printed instead of SQL, where that holds a password; "" prints SQL.
	Shown string
	// Secret is the connection string in SQL. Where it is given, the server is asked to keep the statement out of its log, and
	// no error repeats it or its password.
	Secret config.DSN
	Why    string
	Done   bool // it was run before
	// Do is run instead of SQL, for what is more than a statement. Shown says what it does.
	Do func(ctx context.Context, conn *pgx.Conn) error
}

// text is what may be printed.
func (s Statement) text() string {
	if s.Shown != "" {
		return s.Shown
	}
	return s.SQL
}

// Print writes the statement as a script has it; what is done is commented out.
func (s Statement) Print(w io.Writer) {
	if s.Done {
		fmt.Fprintf(w, "-- %s (done already)\n\n", visible.Text(s.Why))
		return
	}
	end := ";"
	if s.Do != nil {
		end = ""
	}
	fmt.Fprintf(w, "-- %s\n%s%s\n\n", visible.Text(s.Why), visible.Lines(s.text()), end)
}

// Plan is what a switch would run, and what stands in its way.
type Plan struct {
	To         config.Mode
	Doing      string // what an error calls it; "" is the switch to To
	Statements []Statement
	Findings   preflight.Findings
	By         string // the region whose process switches by itself; "" for a person

	began int // the place of the statement that notes the switch
}

// Add puts a statement at the end.
func (p *Plan) Add(done bool, why, sql string) {
	p.Statements = append(p.Statements, Statement{SQL: sql, Why: why, Done: done})
}

// Refuse adds an error: nothing is run.
func (p *Plan) Refuse(code, remedy, format string, args ...any) {
	p.Findings = append(p.Findings, preflight.Finding{Severity: preflight.Error, Code: code, What: fmt.Sprintf(format, args...), Remedy: remedy})
}

// Warn adds a warning.
func (p *Plan) Warn(code, remedy, format string, args ...any) {
	p.Findings = append(p.Findings, preflight.Finding{Severity: preflight.Warning, Code: code, What: fmt.Sprintf(format, args...), Remedy: remedy})
}

// Err is a *preflight.Refusal when an error is among the findings, else nil.
func (p *Plan) Err() error {
	doing := p.Doing
	if doing == "" {
		doing = "switch to mode " + string(p.To)
	}
	return p.Findings.Err(doing)
}

// Pending counts the statements that are not done.
func (p *Plan) Pending() int {
	n := 0
	for _, s := range p.Statements {
		if !s.Done {
			n++
		}
	}
	return n
}

// Run runs what is not done, each statement by itself, and tells ran behind each. It returns a
// *preflight.Refusal before the first one when an error is among the findings. What it has run before an
// error stays; the next plan finds it done. No error holds a password of a statement with a Secret.
func (p *Plan) Run(ctx context.Context, conn *pgx.Conn, ran func(Statement)) error {
	if err := p.Err(); err != nil {
		return err
	}
	for _, s := range p.Statements {
		if s.Done {
			continue
		}
		var err error
		if s.Do != nil {
			err = s.Do(ctx, conn)
		} else {
			err = s.exec(ctx, conn)
		}
		if err != nil {
			head, _, _ := strings.Cut(s.text(), "\n")
			return fmt.Errorf("run %q: %w", head, err)
		}
		if ran != nil {
			ran(s)
		}
		if err := failpoint.Hit("mode.ran"); err != nil {
			return err
		}
	}
	return nil
}

// quiet keeps statements out of the server's log, for a superuser: others may not set it.
const quiet = `select pg_catalog.set_config(s.name, s.value, false) from (values ('log_statement', 'none'), ('log_min_error_statement', 'panic'), ('log_min_duration_statement', '-1'),
  ('log_min_duration_sample', '-1'), ('log_transaction_sample_rate', '0')) s (name, value) where pg_catalog.current_setting('is_superuser') = 'on'`

// loud is as it was before.
const loud = `select pg_catalog.set_config(s.name, c.reset_val, false) from (values ('log_statement'), ('log_min_error_statement'), ('log_min_duration_statement'),
  ('log_min_duration_sample'), ('log_transaction_sample_rate')) s (name), pg_catalog.pg_settings c where c.name = s.name and pg_catalog.current_setting('is_superuser') = 'on'`

func (s Statement) exec(ctx context.Context, conn *pgx.Conn) error {
	if s.Secret.IsZero() {
		_, err := conn.Exec(ctx, s.SQL)
		return err
	}
	if _, err := conn.Exec(ctx, quiet); err != nil {
		return fmt.Errorf("keep a password out of the server's log: %w", err)
	}
	_, err := conn.Exec(ctx, s.SQL)
	if err != nil {
		err = mask(s.Secret, err)
	}
	if _, e := conn.Exec(ctx, loud); e != nil && err == nil {
		err = e
	}
	return err
}

// mask takes the secret out of an error, of all its parts.
func mask(secret config.DSN, err error) error {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return errors.New(secret.Mask(err.Error()))
	}
	m := *e
	m.InternalQuery = ""
	for _, part := range []*string{&m.Message, &m.Detail, &m.Hint, &m.Where} {
		*part = secret.Mask(*part)
	}
	return &m
}
