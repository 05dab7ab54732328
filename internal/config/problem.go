package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with the configuration. It never holds a secret.
type Problem struct {
	Key    string // dotted path, peers[0].region
	Line   int    // in the file; 0 where the value did not come from there
	Env    string // variable that the value came from, "" for none
	What   string
	Remedy string
}

// String prints where, what and what to do on one line.
func (p Problem) String() string {
	s := p.What
	if p.Key != "" {
		s = p.Key + ": " + s
	}
	switch {
	case p.Env != "":
		s = p.Env + ": " + s
	case p.Line > 0:
		s = fmt.Sprintf("line %d: %s", p.Line, s)
	}
	if p.Remedy != "" {
		s += "; " + p.Remedy
	}
	return s
}

// Error holds all problems of a configuration, in the order of the file.
type Error struct {
	File     string
	Problems []Problem
}

// Error prints one line for each problem.
func (e *Error) Error() string {
	name := e.File
	if name == "" {
		name = "environment"
	}
	if len(e.Problems) == 1 {
		return fmt.Sprintf("read configuration %s: %s", name, e.Problems[0])
	}
	var b strings.Builder
	fmt.Fprintf(&b, "read configuration %s: %d problems", name, len(e.Problems))
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.String())
	}
	return b.String()
}

// ExitCode is the exit code for a bad configuration.
func (e *Error) ExitCode() int { return 3 }

// problems collects.
type problems struct {
	list  []Problem
	lines map[string]int
	env   map[string]string
}

// add notes a problem of a key, with the place that its value came from.
func (p *problems) add(key, remedy, format string, args ...any) {
	one := Problem{Key: key, Line: p.line(key), Env: p.env[key], What: fmt.Sprintf(format, args...), Remedy: remedy}
	if !slices.Contains(p.list, one) {
		p.list = append(p.list, one)
	}
}

// line is the line of the key, or of the nearest section around it.
func (p *problems) line(key string) int {
	for key != "" {
		if n := p.lines[key]; n > 0 {
			return n
		}
		i := strings.LastIndexAny(key, ".[")
		if i < 0 {
			return 0
		}
		key = key[:i]
	}
	return 0
}

func (p *problems) err(file string) error {
	if len(p.list) == 0 {
		return nil
	}
	slices.SortStableFunc(p.list, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return &Error{File: file, Problems: p.list}
}

func sourceText(line int, env string) string {
	switch {
	case env != "":
		return env
	case line > 0:
		return fmt.Sprintf("line %d", line)
	}
	return "default"
}
