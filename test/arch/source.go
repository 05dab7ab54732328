package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
)

// module is the import path of the repository's root.
const module = "github.com/pgwaltz/pgwaltz"

// file is one Go source file, and the room that it is in.
type file struct {
	room    string // slash path of its folder below the root, "" for the root
	name    string // path below the root, for messages
	set     *token.FileSet
	tree    *ast.File
	imports map[string]string // name in the file -> import path
}

// load parses all Go files below root but tests and testdata.
func load(root string) ([]file, error) {
	var out []file
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != root && (d.Name() == "testdata" || d.Name() == "vendor" || strings.HasPrefix(d.Name(), ".")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f := file{set: token.NewFileSet(), imports: map[string]string{}}
		if f.tree, err = parser.ParseFile(f.set, path, nil, parser.SkipObjectResolution); err != nil {
			return fmt.Errorf("parse source: %w", err)
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return fmt.Errorf("name source file: %w", err)
		}
		f.name = filepath.ToSlash(rel)
		f.room = strings.TrimPrefix(filepath.ToSlash(filepath.Dir(rel)), ".")
		for _, spec := range f.tree.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return fmt.Errorf("read import of %s: %w", f.name, err)
			}
			name := p[strings.LastIndexByte(p, '/')+1:]
			if spec.Name != nil {
				name = spec.Name.Name
			}
			f.imports[name] = p
		}
		out = append(out, f)
		return nil
	})
	return out, err
}

// at names a place in the file.
func (f *file) at(p token.Pos) string {
	return fmt.Sprintf("%s:%d", f.name, f.set.Position(p).Line)
}

// uses finds the selections of names of a package, such as time.Now, and reports where.
func (f *file) uses(pkg string, names ...string) []string {
	var out []string
	ast.Inspect(f.tree, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := s.X.(*ast.Ident)
		if !ok || f.imports[x.Name] != pkg {
			return true
		}
		for _, name := range names {
			if s.Sel.Name == name {
				out = append(out, f.at(s.Pos())+" uses "+pkg+"."+name)
			}
		}
		return true
	})
	return out
}

// goroutines finds the go statements.
func (f *file) goroutines() []string {
	var out []string
	ast.Inspect(f.tree, func(n ast.Node) bool {
		if g, ok := n.(*ast.GoStmt); ok {
			out = append(out, f.at(g.Pos())+" starts a goroutine")
		}
		return true
	})
	return out
}

// text is a string of the source, and where it stands.
type text struct{ at, text string }

// texts finds the strings of the file.
func (f *file) texts() []text {
	var out []text
	ast.Inspect(f.tree, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if s, err := strconv.Unquote(l.Value); err == nil {
				out = append(out, text{f.at(l.Pos()), s})
			}
		}
		return true
	})
	return out
}
