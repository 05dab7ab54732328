package audit

import (
	"bytes"
	"encoding/json"
	"sort"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Redacted is what stands in an image in place of a redacted value, NULL included.
const Redacted = `"[redacted]"`

// Matcher selects columns, for example config.ColumnPattern. It is asked with schema, table
// and column.
type Matcher interface {
	Match(names ...string) bool
}

// Redactor masks columns in images. It is immutable and safe for concurrent use.
type Redactor struct{ patterns []Matcher }

// NewRedactor returns a Redactor for the columns that any of the patterns selects.
func NewRedactor[M Matcher](patterns []M) *Redactor {
	r := &Redactor{}
	for _, p := range patterns {
		r.patterns = append(r.patterns, p)
	}
	return r
}

// Hides reports whether the column is redacted. A nil Redactor hides nothing.
func (r *Redactor) Hides(rel wal.RelationName, column string) bool {
	if r == nil {
		return false
	}
	for _, p := range r.patterns {
		if p.Match(rel.Schema, rel.Name, column) {
			return true
		}
	}
	return false
}

// Image masks an image or a key in the form of a JSON object, such as to_jsonb(row) prints. nil stays
// nil. A text that is no object is masked as a whole when anything is redacted: a mistake
// here must not disclose a thing.
func (r *Redactor) Image(rel wal.RelationName, object []byte) []byte {
	if object == nil || r == nil || len(r.patterns) == 0 {
		return object
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(object, &fields); err != nil || fields == nil {
		return []byte(Redacted)
	}
	changed := false
	for name := range fields {
		if r.Hides(rel, name) {
			fields[name], changed = json.RawMessage(Redacted), true
		}
	}
	if !changed {
		return object
	}
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	sort.Strings(names)
	var b bytes.Buffer
	b.WriteByte('{')
	for i, name := range names {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(appendString(nil, name))
		b.WriteByte(':')
		b.Write(fields[name])
	}
	b.WriteByte('}')
	return b.Bytes()
}
