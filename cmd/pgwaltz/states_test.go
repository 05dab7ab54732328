package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/internal/admin"
	"github.com/pgwaltz/pgwaltz/internal/status"
)

// Every state word that the source knows stands in docs/operations.md with the exit code and the
// readiness that it really has, and a case makes it happen.
func TestEveryStateIsDocumentedAndTried(t *testing.T) {
	t.Parallel()
	source, err := parser.ParseFile(token.NewFileSet(), "../../internal/status/status.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var states []status.State
	ast.Inspect(source, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && fmt.Sprint(v.Type) == "State" {
			word, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Error(err)
			}
			states = append(states, status.State(word))
		}
		return true
	})
	if len(states) < 7 {
		t.Fatalf("only %v were found", states)
	}
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var cases strings.Builder
	files, err := filepath.Glob("../../test/cases/*.case")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		one, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		cases.Write(one)
	}
	for _, s := range states {
		row := regexp.MustCompile("(?m)^\\| `" + string(s) + "` \\| (✓?) ?\\| (\\d+) \\|").FindStringSubmatch(string(text))
		if row == nil {
			t.Errorf("docs/operations.md has no row for %s", s)
			continue
		}
		server := admin.New(admin.Config{Status: func() status.Status { return status.Status{State: s} }})
		answer := httptest.NewRecorder()
		http.Handler(server.Handler()).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		if ready := answer.Code == http.StatusOK; ready != (row[1] == "✓") {
			t.Errorf("/readyz of %s answers %d, and docs/operations.md says %q", s, answer.Code, row[1])
		}
		code, _ := (&view{}).judge(status.Status{State: s, Outbound: &status.Outbound{State: s}})
		if fmt.Sprint(code) != row[2] {
			t.Errorf("the exit code of %s is %d, and docs/operations.md says %s", s, code, row[2])
		}
		if !regexp.MustCompile(`(?m)^--@status \S+ (state|outbound\.state|inbound\.\w+\.state) =? ?`+string(s)+`\b`).MatchString(cases.String()) && !strings.Contains(cases.String(), "contains "+string(s)) {
			t.Errorf("no case makes %s happen", s)
		}
	}
}
