package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v4"
)

// decodeFile reads the YAML text over c. It goes on after a mistake, so that all of them
// are reported at once; it returns false where the text is no YAML, and nothing was read.
func decodeFile(text []byte, c *Config, p *problems) bool {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := d.Decode(&doc); err != nil {
		if !errors.Is(err, io.EOF) { // an empty file holds nothing, which is fine
			p.list = append(p.list, syntaxProblem(err))
			return false
		}
		return true
	}
	var second yaml.Node
	if err := d.Decode(&second); !errors.Is(err, io.EOF) {
		p.list = append(p.list, Problem{Line: second.Line, What: "a second document begins", Remedy: "keep one document in the file"})
	}
	if len(doc.Content) == 1 {
		p.section(doc.Content[0], reflect.ValueOf(c).Elem(), "")
	}
	return true
}

// syntaxProblem turns the parser's error into a problem. An anchor's name is left out, since it
// may be a password that lacks its quotes.
func syntaxProblem(err error) Problem {
	out := Problem{What: "the file is not valid YAML", Remedy: "check indentation and quotes there"}
	var at *yaml.LoadError
	if !errors.As(err, &at) {
		return out
	}
	out.Line = at.Mark.Line
	reason := at.Message
	if strings.HasPrefix(reason, "unknown anchor") {
		reason, out.Remedy = "an alias without an anchor", "put a value that begins with * or & in quotes"
	}
	out.What += ": " + reason
	if at.ContextMsg != "" && at.ContextMark.Line > 0 && at.ContextMark.Line != at.Mark.Line {
		out.What += fmt.Sprintf(" (%s from line %d on)", at.ContextMsg, at.ContextMark.Line)
	}
	return out
}

// section reads a mapping into a struct.
func (p *problems) section(n *yaml.Node, v reflect.Value, path string) {
	n = resolve(n)
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.note(path, n.Line)
		p.add(path, "write its keys below it, indented", "is a section, not a value")
		return
	}
	known := fields(v.Type())
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		full := join(path, key.Value)
		if first, twice := seen[key.Value]; twice {
			p.list = append(p.list, Problem{Key: full, Line: key.Line, What: "is given twice",
				Remedy: fmt.Sprintf("remove it here or in line %d", first)})
			continue
		}
		seen[key.Value] = key.Line
		f, ok := find(known, key.Value)
		if !ok {
			p.unknown(full, key.Value, key.Line, known)
			continue
		}
		p.note(full, key.Line)
		p.value(value, v.Field(f.index), full)
	}
}

func (p *problems) unknown(full, key string, line int, known []field) {
	var words []string
	for _, f := range known {
		if f.key != "" {
			words = append(words, f.key)
		}
	}
	remedy := "known here: " + strings.Join(words, ", ")
	if w := nearest(key, words); w != "" {
		remedy = "did you mean " + w + "?"
	}
	if key == "password" {
		remedy = "keep passwords out of this file: use password_file or the environment"
	}
	p.list = append(p.list, Problem{Key: full, Line: line, What: "unknown key", Remedy: remedy})
}

// value reads whatever stands behind a key.
func (p *problems) value(n *yaml.Node, v reflect.Value, path string) {
	n = resolve(n)
	switch {
	case isNull(n):
	case v.Kind() == reflect.Slice:
		p.sequence(n, v, path)
	case isSection(v.Type()):
		p.section(n, v, path)
	case n.Kind != yaml.ScalarNode:
		p.add(path, "write one value", "is a value, not a list or a section")
	default:
		if err := setText(v, n.Value); err != nil {
			p.add(path, "", "%v", err)
		}
	}
}

func (p *problems) sequence(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		p.add(path, "write [ ... ], or one item per line behind a dash", "is a list")
		return
	}
	list := reflect.MakeSlice(v.Type(), 0, len(n.Content))
	for i, item := range n.Content {
		one := reflect.New(v.Type().Elem()).Elem()
		full := fmt.Sprintf("%s[%d]", path, i)
		p.note(full, item.Line)
		p.value(item, one, full)
		list = reflect.Append(list, one)
	}
	v.Set(list)
}

func (p *problems) note(key string, line int) { p.lines[key] = line }

func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func find(known []field, key string) (field, bool) {
	for _, f := range known {
		if f.key == key && key != "" {
			return f, true
		}
	}
	return field{}, false
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
