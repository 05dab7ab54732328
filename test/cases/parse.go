package cases

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Case is one acceptance case.
type Case struct {
	ID       string
	Title    string
	Priority string // P1, P2, P3, or empty
	File     string
	Line     int
	Steps    []Step
	Err      error // why the case cannot run; it counts as failed
}

// Step is one directive with what belongs to it.
type Step struct {
	Name   string // the word after --@
	Arg    string // the rest of its line, and further lines where the directive takes them
	Body   string // SQL below the directive
	Expect *string
	Line   int
	Sub    []Step // of repeat and foreach
}

var titleRE = regexp.MustCompile(`^####\s+([A-Z]{2}-[0-9]+[a-z]?)\s+(.*?)\s*$`)
var priorityRE = regexp.MustCompile(`\s*\[(P[0-9])\]`)

// ParseFiles reads files and folders; a folder gives every *.case file below it. Markdown
// files are read when they are named.
func ParseFiles(paths ...string) ([]*Case, error) {
	var out []*Case
	for _, p := range paths {
		files := []string{p}
		st, err := os.Stat(p)
		if err != nil {
			return nil, fmt.Errorf("read cases: %w", err)
		}
		if st.IsDir() {
			if files, err = filepath.Glob(filepath.Join(p, "*.case")); err != nil {
				return nil, fmt.Errorf("read cases: %w", err)
			}
			slices.Sort(files)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				return nil, fmt.Errorf("read cases: %w", err)
			}
			out = append(out, Parse(f, string(data))...)
		}
	}
	return out, nil
}

// Parse reads one file. A case begins with its title line and ends before the next one,
// or before any other heading in Markdown. When it holds fenced sql blocks, only they are
// read; without a fence everything from the first directive on is.
func Parse(file, text string) []*Case {
	var out []*Case
	var cur *Case
	var lines []numbered
	flush := func() {
		if cur == nil {
			return
		}
		if body := runnable(lines, strings.HasSuffix(file, ".md")); len(body) > 0 {
			cur.Steps, cur.Err = parseSteps(body)
			out = append(out, cur)
		}
		cur, lines = nil, nil
	}
	fenced := false
	for i, l := range strings.Split(text, "\n") {
		l = strings.TrimSuffix(l, "\r")
		if strings.HasPrefix(l, "```") {
			fenced = !fenced
		}
		if m := titleRE.FindStringSubmatch(l); m != nil && !fenced {
			flush()
			cur = &Case{ID: m[1], File: file, Line: i + 1}
			title := strings.TrimSuffix(m[2], "{o}")
			if p := priorityRE.FindStringSubmatch(title); p != nil {
				cur.Priority = p[1]
				title = priorityRE.ReplaceAllString(title, "")
			}
			cur.Title = strings.TrimSpace(title)
			continue
		}
		if !fenced && headingRE.MatchString(l) {
			flush()
			continue
		}
		if cur != nil {
			lines = append(lines, numbered{i + 1, l})
		}
	}
	flush()
	return out
}

var headingRE = regexp.MustCompile(`^#{1,4}\s`)

type numbered struct {
	n    int
	text string
}

// runnable keeps the lines that are to be executed.
func runnable(lines []numbered, markdown bool) []numbered {
	var out []numbered
	open, any := false, false
	for _, l := range lines {
		if strings.HasPrefix(l.text, "```") {
			if open {
				open = false
			} else {
				open = strings.TrimSpace(l.text) == "```sql"
				any = any || open
			}
			continue
		}
		if open {
			out = append(out, l)
		}
	}
	if any || markdown {
		return out
	}
	for i, l := range lines {
		if strings.HasPrefix(l.text, "--@") {
			return cutProse(lines[i:])
		}
	}
	return nil
}

// cutProse drops what stands behind the last directive as a remark.
func cutProse(lines []numbered) []numbered {
	for i, l := range lines {
		for _, p := range []string{"Expect:", "Note:", "Variant:"} {
			if strings.HasPrefix(l.text, p) {
				return lines[:i]
			}
		}
	}
	return lines
}

func parseSteps(lines []numbered) ([]Step, error) {
	var flat []Step
	for _, l := range lines {
		t := l.text
		switch {
		case strings.HasPrefix(t, "--@"):
			name, arg, _ := strings.Cut(strings.TrimSpace(t[3:]), " ")
			flat = append(flat, Step{Name: name, Arg: strings.TrimSpace(arg), Line: l.n})
		case strings.HasPrefix(t, "--=>"):
			if len(flat) == 0 || !isQuery(flat[len(flat)-1].Name) || flat[len(flat)-1].Expect != nil {
				return nil, fmt.Errorf("line %d: --=> without a query before it", l.n)
			}
			want := strings.TrimSpace(t[4:])
			flat[len(flat)-1].Expect = &want
		case strings.HasPrefix(strings.TrimSpace(t), "--"):
			// a remark
		case len(flat) == 0:
			if strings.TrimSpace(t) != "" {
				return nil, fmt.Errorf("line %d: text before the first directive", l.n)
			}
		default:
			last := &flat[len(flat)-1]
			if last.Expect != nil {
				if strings.TrimSpace(t) != "" {
					return nil, fmt.Errorf("line %d: text behind the expected result", l.n)
				}
				continue
			}
			last.Body += t + "\n"
		}
	}
	for i := range flat {
		if err := flat[i].check(); err != nil {
			return nil, fmt.Errorf("line %d: %w", flat[i].Line, err)
		}
	}
	steps, rest, err := nest(flat, false)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("line %d: --@end without a beginning", rest[0].Line)
	}
	return steps, err
}

func isQuery(name string) bool { return name == "A?" || name == "B?" || name == "C?" }

// check says whether the directive exists and may have what stands below it.
func (s *Step) check() error {
	kind, ok := known(s.Name)
	if !ok {
		return fmt.Errorf("unknown directive --@%s", s.Name)
	}
	body := strings.TrimSpace(s.Body)
	switch kind {
	case takesBody:
		if s.Arg != "" && body == "" {
			s.Body, s.Arg = s.Arg, ""
		}
		if strings.TrimSpace(s.Body) == "" {
			return fmt.Errorf("--@%s has no SQL", s.Name)
		}
	case takesLines:
		if body != "" {
			s.Arg = strings.TrimSpace(s.Arg + "\n" + body)
		}
		s.Body = ""
	default:
		if body != "" {
			return fmt.Errorf("text below --@%s, which takes none: %q", s.Name, strings.SplitN(body, "\n", 2)[0])
		}
		s.Body = ""
	}
	if isQuery(s.Name) && s.Expect == nil {
		return fmt.Errorf("--@%s has no --=> line", s.Name)
	}
	return nil
}

// nest puts what stands between repeat or foreach and end into Sub.
func nest(flat []Step, inside bool) (steps, rest []Step, err error) {
	for len(flat) > 0 {
		s := flat[0]
		flat = flat[1:]
		switch s.Name {
		case "end":
			if !inside {
				return steps, append([]Step{s}, flat...), nil
			}
			return steps, flat, nil
		case "repeat", "foreach":
			sub, after, err := nest(flat, true)
			if err != nil {
				return nil, nil, err
			}
			s.Sub, flat = sub, after
		}
		steps = append(steps, s)
	}
	if inside {
		return nil, nil, fmt.Errorf("--@end is missing")
	}
	return steps, nil, nil
}
