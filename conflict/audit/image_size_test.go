package audit

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// TestLargeImages: an image that jsonb would not take tells of its large values, and keeps the others; one that it takes is as it was.
func TestLargeImages(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "t", Columns: []wal.Column{{Name: "id", OID: wal.OIDInt4}, {Name: "f", OID: wal.OIDBytea}, {Name: "v", OID: wal.OIDText}}}
	text := func(s string) wal.Value { return wal.Value{Kind: wal.Text, Bytes: []byte(s)} }
	large := wal.Tuple{text("1"), text(`\x` + strings.Repeat("00", briefBytes)), text("small")}
	m := NewImager(nil)
	whole := m.Row([]byte("x"), rel, large)
	m.most = len(whole) - 1
	if got := m.Row([]byte("x"), rel, large); !bytes.Equal(got, whole) {
		t.Error("an image as large as may be is another one")
	}
	m.most--
	got := m.Row([]byte("x"), rel, large)
	var row map[string]any
	if got[0] != 'x' || json.Unmarshal(got[1:], &row) != nil {
		t.Fatalf("got %.200q", got)
	}
	if f, _ := row["f"].(string); row["v"] != "small" || row["id"] != 1.0 || !strings.HasPrefix(f, "(131074 bytes, SHA-256 ") {
		t.Errorf("got %.200q", got)
	}
	if again := m.Row(nil, rel, wal.Tuple{text("1"), text(`\x00`), text("small")}); !bytes.Contains(again, []byte(`x00`)) {
		t.Errorf("the next image is %.200q", again)
	}
}

// TestLargeNested: a large document of type json stands as a string, since as jsonb it may be many times as large.
func TestLargeNested(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "t", Columns: []wal.Column{{Name: "j", OID: wal.OIDJSON}}}
	for _, c := range []struct {
		size int
		want string
	}{{nestedBytes, `{"j":[1`}, {nestedBytes + 1, `{"j":"[1`}} {
		doc := "[1" + strings.Repeat(" ", c.size-3) + "]"
		if got := NewImager(nil).Row(nil, rel, wal.Tuple{{Kind: wal.Text, Bytes: []byte(doc)}}); !bytes.HasPrefix(got, []byte(c.want)) {
			t.Errorf("%d bytes: %.20q", c.size, got)
		}
	}
}
