package preflight

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pgwaltz/pgwaltz/internal/visible"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Severity says whether run may start.
type Severity string

// Severities.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
	// OK is for what was tried and works.
	OK Severity = "ok"
)

// Finding is one thing that is not as it should be. It holds names, never row values.
type Finding struct {
	Severity Severity         `json:"severity"`
	Code     string           `json:"code"` // stable, for scripts
	What     string           `json:"what"`
	Remedy   string           `json:"remedy"`           // the exact statement, setting or command
	Source   string           `json:"source,omitempty"` // where the configuration says so: line 7
	Table    string           `json:"table,omitempty"`  // the one table that it is about
	Relation wal.RelationName `json:"-"`                // the same as a name
	kind     string           // what is said of the table, without its name: the same text for many tables
}

// String prints the finding on one line.
func (f Finding) String() string {
	s := f.What
	if f.Source != "" {
		s = f.Source + ": " + s
	}
	if f.Remedy != "" {
		s += "; " + f.Remedy
	}
	return visible.Text(s)
}

// Findings collects.
type Findings []Finding

func (fs *Findings) add(severity Severity, code, remedy, format string, args ...any) {
	*fs = append(*fs, Finding{Severity: severity, Code: code, What: fmt.Sprintf(format, args...), Remedy: remedy})
}

// addTable adds a finding about one table; kind says it without the table's name.
func (fs *Findings) addTable(table wal.RelationName, severity Severity, code, remedy, kind, format string, args ...any) {
	fs.add(severity, code, remedy, format, args...)
	f := &(*fs)[len(*fs)-1]
	f.Table, f.Relation, f.kind = table.String(), table, kind
}

// Errors returns the findings that stop a start.
func (fs Findings) Errors() Findings {
	var out Findings
	for _, f := range fs {
		if f.Severity == Error {
			out = append(out, f)
		}
	}
	return out
}

// Count is how many findings have the severity.
func (fs Findings) Count(severity Severity) (n int) {
	for _, f := range fs {
		if f.Severity == severity {
			n++
		}
	}
	return n
}

// Err is a *Refusal when an error is among the findings, else nil.
func (fs Findings) Err(doing string) error {
	if errs := fs.Errors(); len(errs) > 0 {
		return &Refusal{Doing: doing, Findings: errs}
	}
	return nil
}

// Print writes the findings for people, errors first. From a few findings of one kind on they are
// one line with a count; all prints each by itself.
func (fs Findings) Print(w io.Writer, all bool) {
	lines := fs
	if !all {
		lines = fs.Together("; --all names them")
	}
	for _, severity := range []Severity{Error, Warning, OK} {
		for _, f := range lines {
			if f.Severity != severity {
				continue
			}
			where := ""
			if f.Source != "" {
				where = f.Source + ": "
			}
			fmt.Fprintf(w, "%-7s  %s%s\n", strings.ToUpper(string(severity)), where, visible.Text(f.What))
			if f.Remedy != "" {
				fmt.Fprintf(w, "         fix: %s\n", visible.Text(f.Remedy))
			}
		}
	}
}

// manyFindings of one kind are printed as one.
const manyFindings = 4

// namedOfMany is how many tables are named then.
const namedOfMany = 3

// Together makes one finding of those that say the same of many tables; hint is for who wants to
// know all of them. Each stands where the first of its kind stood.
func (fs Findings) Together(hint string) Findings {
	type kind struct {
		severity   Severity
		code, kind string
	}
	many := map[kind]Findings{}
	for _, f := range fs {
		if f.kind != "" {
			k := kind{f.Severity, f.Code, f.kind}
			many[k] = append(many[k], f)
		}
	}
	var out Findings
	said := map[kind]bool{}
	for _, f := range fs {
		k := kind{f.Severity, f.Code, f.kind}
		same := many[k]
		switch {
		case f.kind == "" || len(same) < manyFindings:
			out = append(out, f)
		case !said[k]:
			said[k] = true
			out = append(out, same.one(hint))
		}
	}
	return out
}

// one says what the findings have in common, and names some tables.
func (fs Findings) one(hint string) Finding {
	f := fs[0]
	var names []string
	for _, o := range fs[:namedOfMany] {
		names = append(names, o.Table)
	}
	f.What = fmt.Sprintf("%d tables: %s (%s and %d more%s)", len(fs), f.kind, strings.Join(names, ", "), len(fs)-namedOfMany, hint)
	if f.Remedy != "" {
		f.Remedy = fmt.Sprintf("for each of them, such as %s: %s", f.Table, f.Remedy)
	}
	f.Table = ""
	return f
}

// Refusal is the error for findings that stop a start or a setup.
type Refusal struct {
	Doing    string // setup, start
	Findings Findings
}

// Error prints one line for each finding.
func (r *Refusal) Error() string {
	if len(r.Findings) == 1 {
		return fmt.Sprintf("%s: %s", r.Doing, r.Findings[0])
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d problems", r.Doing, len(r.Findings))
	for _, f := range r.Findings {
		b.WriteString("\n  " + f.String())
	}
	return b.String()
}

// ExitCode is the exit code for problems found.
func (r *Refusal) ExitCode() int { return 4 }

// Only reports whether every finding has one of the codes.
func (r *Refusal) Only(codes ...string) bool {
	return !slices.ContainsFunc(r.Findings, func(f Finding) bool { return !slices.Contains(codes, f.Code) })
}
