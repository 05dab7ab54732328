package preflight_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Every code that setup and check can give stands in a test or a case that makes it happen.
func TestEveryCodeIsTried(t *testing.T) {
	t.Parallel()
	codes := codesOf(t, "*.go", "../../cmd/pgwaltz/*.go")
	if len(codes) < 60 {
		t.Fatalf("only %v were found", codes)
	}
	tests := read(t, "*_test.go", "../../cmd/pgwaltz/*_test.go", "../../test/cases/*.case", "../../test/schemas/*_test.go")
	for _, code := range codes {
		if !regexp.MustCompile(`"(?:[a-z_]+ )*` + code + `(?: [a-z_]+)*"|=> \d contains ` + code + `\b`).MatchString(tests) {
			t.Errorf("no test makes %s happen", code)
		}
	}
}

// codesOf are the codes of findings in the source: the first word in snake case among the texts
// that the functions for findings are called with, and of literals of a Finding.
func codesOf(t *testing.T, patterns ...string) []string {
	t.Helper()
	word := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	var out []string
	note := func(e ast.Expr) bool {
		lit, ok := e.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return false
		}
		if s, err := strconv.Unquote(lit.Value); err == nil && word.MatchString(s) {
			if !slices.Contains(out, s) {
				out = append(out, s)
			}
			return true
		}
		return false
	}
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			source, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(source, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					if f, ok := n.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"add", "addTable", "warn", "refuse"}, f.Sel.Name) {
						_ = slices.ContainsFunc(n.Args[:min(3, len(n.Args))], note)
					}
				case *ast.KeyValueExpr:
					if k, ok := n.Key.(*ast.Ident); ok && k.Name == "Code" {
						note(n.Value)
					}
				}
				return true
			})
		}
	}
	slices.Sort(out)
	return out
}

func read(t *testing.T, patterns ...string) string {
	t.Helper()
	var b strings.Builder
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			b.Write(text)
		}
	}
	return b.String()
}
