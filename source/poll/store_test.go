package poll

import (
	"reflect"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// A page comes out of the stage as it went in, and a damaged one is refused.
func TestPageIsKept(t *testing.T) {
	t.Parallel()
	text := func(s string) wal.Value { return wal.Value{Kind: wal.Text, Bytes: []byte(s)} }
	rows := []wal.Tuple{{text("1"), {Kind: wal.Null}, text("")}, {text("zwei"), text("\x00\xff"), {Kind: wal.Null}}}
	data := encode(rows)
	got, err := decode(data, 3)
	if err != nil || !reflect.DeepEqual(got, rows) {
		t.Fatalf("%v became %v (%v)", rows, got, err)
	}
	for n := range data {
		if _, err := decode(data[:n], 3); err == nil {
			t.Errorf("%d bytes of %d are taken for a page", n, len(data))
		}
	}
	if _, err := decode(append(data, 0), 3); err == nil {
		t.Error("a page with more behind it is taken")
	}
	if _, err := decode([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1}, 3); err == nil {
		t.Error("a page with a senseless number of rows is taken")
	}
}

func TestSnapshot(t *testing.T) {
	t.Parallel()
	now := Snapshot{XMin: "4294967400", At: "2026-01-02 03:04:05.678901+00"}
	for older, want := range map[string]bool{"4294967400": true, "4294960000": true, "4294967401": false, "100": false, "": false} {
		if got := now.Reaches(Snapshot{XMin: older}); got != want {
			t.Errorf("from %q: %v", older, got)
		}
	}
	if got := now.Time().Time().UTC().Format("2006-01-02T15:04:05.999999"); got != "2026-01-02T03:04:05.678901" {
		t.Errorf("the time is %s", got)
	}
	if got := (Snapshot{At: "2026-01-02 03:04:05+00"}).Time(); got == wal.MinMicros {
		t.Error("a time without a fraction is not read")
	}
	if got := lowXID(now.XMin); got != "104" {
		t.Errorf("the low half of %s is %s", now.XMin, got)
	}
}
