package preflight

import (
	"fmt"
	"io"
	"strings"
)

// Severity says whether run may start.
type Severity string

// Severities.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Finding is one thing that is not as it should be. It holds names, never row values.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     string   `json:"code"` // stable, for scripts
	What     string   `json:"what"`
	Remedy   string   `json:"remedy"`           // the exact statement, setting or command
	Source   string   `json:"source,omitempty"` // where the configuration says so: line 7
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
	return s
}

// Findings collects.
type Findings []Finding

func (fs *Findings) add(severity Severity, code, remedy, format string, args ...any) {
	*fs = append(*fs, Finding{Severity: severity, Code: code, What: fmt.Sprintf(format, args...), Remedy: remedy})
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

// Err is a *Refusal when an error is among the findings, else nil.
func (fs Findings) Err(doing string) error {
	if errs := fs.Errors(); len(errs) > 0 {
		return &Refusal{Doing: doing, Findings: errs}
	}
	return nil
}

// Print writes the findings for people, errors first.
func (fs Findings) Print(w io.Writer) {
	for _, severity := range []Severity{Error, Warning} {
		for _, f := range fs {
			if f.Severity != severity {
				continue
			}
			where := ""
			if f.Source != "" {
				where = f.Source + ": "
			}
			fmt.Fprintf(w, "%-7s  %s%s\n", strings.ToUpper(string(severity)), where, f.What)
			if f.Remedy != "" {
				fmt.Fprintf(w, "         fix: %s\n", f.Remedy)
			}
		}
	}
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
