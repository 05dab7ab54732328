package wal

import "testing"

func textValue(s string) Value { return Value{Kind: Text, Bytes: []byte(s)} }

// TestDigests: an absent value is taken from a row only where its digest names the value there.
func TestDigests(t *testing.T) {
	t.Parallel()
	null, unchanged := Value{Kind: Null}, Value{Kind: Unchanged}
	for name, c := range map[string]struct {
		image, row Tuple
		complete   bool // over the row
		filled     Tuple
	}{
		"whole":           {Tuple{textValue("a")}, Tuple{textValue("b")}, true, Tuple{textValue("a")}},
		"named":           {Tuple{Digested([]byte("b"))}, Tuple{textValue("b")}, true, Tuple{textValue("b")}},
		"another value":   {Tuple{Digested([]byte("b"))}, Tuple{textValue("c")}, false, Tuple{Digested([]byte("b"))}},
		"NULL there":      {Tuple{Digested(nil)}, Tuple{null}, false, Tuple{Digested(nil)}},
		"binary there":    {Tuple{Digested([]byte("b"))}, Tuple{{Kind: Binary, Bytes: []byte("b")}}, false, Tuple{Digested([]byte("b"))}},
		"the same digest": {Tuple{Digested([]byte("b"))}, Tuple{Digested([]byte("b"))}, true, Tuple{Digested([]byte("b"))}},
		"not known":       {Tuple{unchanged}, Tuple{textValue("b")}, false, Tuple{textValue("b")}},
		"no row":          {Tuple{textValue("a"), Digested([]byte("b"))}, nil, false, Tuple{textValue("a"), Digested([]byte("b"))}},
		"whole, no row":   {Tuple{textValue("a"), null}, nil, true, Tuple{textValue("a"), null}},
	} {
		if got := c.image.CompleteOver(c.row); got != c.complete {
			t.Errorf("%s: complete over the row: %t", name, got)
		}
		got := c.image.Filled(c.row)
		for i := range c.filled {
			if got[i].Kind != c.filled[i].Kind || string(got[i].Bytes) != string(c.filled[i].Bytes) {
				t.Errorf("%s: filled %v, want %v", name, got, c.filled)
			}
		}
	}
}
