package wal

import (
	"bytes"
	"encoding/json"
)

// ParseKey is the inverse of AppendKey: it returns a row of r that holds the key's values and
// nothing else. It reports false where the text does not tell them: it was too long and is a
// hash, a column has the form FormHash, or the text is not what AppendKey makes of the values.
func (r *Relation) ParseKey(text string) (Tuple, bool) {
	var values []*string
	if err := json.Unmarshal([]byte(text), &values); err != nil {
		return nil, false
	}
	key := r.KeyColumns()
	if len(values) != len(key) {
		return nil, false
	}
	row := make(Tuple, len(r.Columns))
	for i := range row {
		row[i].Kind = Null
	}
	for n, i := range key {
		if values[n] == nil || r.Columns[i].Form == FormHash {
			return nil, false
		}
		row[i] = Value{Kind: Text, Bytes: []byte(*values[n])}
	}
	if !bytes.Equal(r.AppendKey(nil, row), []byte(text)) {
		return nil, false // bytes that are no UTF-8, for example
	}
	return row, true
}
