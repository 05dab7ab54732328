// Package arch holds the import rules of the architecture against the source, read with
// go/parser. Each rule says why it is there; planted violations in testdata prove that each
// of them can fail.
package arch
