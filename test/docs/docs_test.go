// Package docs holds the documents against themselves: every link leads somewhere, and every
// decision has its sections.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

const root = "../.."

// documents are all Markdown files of the project, by their path from its top.
func documents(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" || name == "bench-results") {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(name, ".md") {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			texts[filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator)))] = string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

var (
	fence  = regexp.MustCompile("(?ms)^```.*?^```")
	inline = regexp.MustCompile("`[^`\n]*`")
	link   = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	title  = regexp.MustCompile(`(?m)^#{1,6} +(.*)$`)
)

// anchors are the names that the headings of a document have, as GitHub makes them.
func anchors(text string) map[string]bool {
	out := map[string]bool{}
	for _, m := range title.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		out[anchor(m[1])] = true
	}
	return out
}

func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, strings.TrimSpace(heading))
}

func TestAnchor(t *testing.T) {
	t.Parallel()
	for heading, want := range map[string]string{"Two sidecars, take-over": "two-sidecars-take-over", "`publish`: slot to stream": "publish-slot-to-stream", "What is promised, and what is not": "what-is-promised-and-what-is-not"} {
		if got := anchor(heading); got != want {
			t.Errorf("%s: %s, want %s", heading, got, want)
		}
	}
}

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	texts := documents(t)
	if len(texts) < 10 {
		t.Fatalf("only %d documents were found", len(texts))
	}
	links := 0
	for name, text := range texts {
		text = inline.ReplaceAllString(fence.ReplaceAllString(text, ""), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, part, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			links++
			path := name
			if target != "" {
				path = filepath.ToSlash(filepath.Join(filepath.Dir(name), target))
			}
			if _, err := os.Stat(filepath.Join(root, path)); err != nil {
				t.Errorf("%s: %s leads nowhere", name, m[1])
				continue
			}
			if part != "" && !anchors(texts[path])[part] {
				t.Errorf("%s: %s has no heading #%s", name, path, part)
			}
		}
	}
	if links < 50 {
		t.Errorf("only %d links were found", links)
	}
}

func TestEveryDocumentIsInTheIndex(t *testing.T) {
	t.Parallel()
	texts := documents(t)
	for name := range texts {
		dir, file := filepath.Split(name)
		index := texts[dir+"README.md"]
		if (dir == "docs/" || dir == "docs/decisions/") && file != "README.md" && !strings.Contains(index, "("+file) {
			t.Errorf("%sREADME.md does not name %s", dir, file)
		}
	}
}

func TestEveryDecisionHasItsSections(t *testing.T) {
	t.Parallel()
	pages := 0
	for name, text := range documents(t) {
		if !strings.HasPrefix(name, "docs/decisions/0") {
			continue
		}
		pages++
		at := 0
		for _, section := range []string{"# ", "\n## Context\n", "\n## Decision\n", "\n## Consequences\n", "\n## What would change our mind\n"} {
			i := strings.Index(text[at:], section)
			if i < 0 {
				t.Fatalf("%s: no section %q in its place", name, strings.TrimSpace(section))
			}
			at += i + len(section)
		}
	}
	if pages == 0 {
		t.Error("no decisions were found")
	}
}

var (
	makesTable  = regexp.MustCompile(`(?i)create (?:unlogged )?table if not exists pgwaltz\.(\w+)`)
	tableRow    = regexp.MustCompile("(?m)^\\| ((?:`\\w+`(?:, )?)+) \\|")
	quotedTable = regexp.MustCompile("`(\\w+)`")
)

// The operator finds every table of schema pgwaltz in docs/operations.md, and none that is not there.
func TestEveryTableOfOursIsDocumented(t *testing.T) {
	t.Parallel()
	made := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "test") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range makesTable.FindAllSubmatch(text, -1) {
			made[string(m[1])] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(documents(t)["docs/operations.md"], "\n## What is in schema pgwaltz\n")
	if !found || len(made) < 20 {
		t.Fatalf("section found: %t; %d tables", found, len(made))
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for _, row := range tableRow.FindAllStringSubmatch(section, -1) {
		for _, m := range quotedTable.FindAllStringSubmatch(row[1], -1) {
			if !made[m[1]] {
				t.Errorf("docs/operations.md names the table pgwaltz.%s, which nobody makes", m[1])
			}
			delete(made, m[1])
		}
	}
	for name := range made {
		t.Errorf("docs/operations.md does not name the table pgwaltz.%s", name)
	}
}
