package streamstore

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// TestExclusions: what was committed under other patterns is left out by those, however often they change, until nobody reads it any more.
func TestExclusions(t *testing.T) {
	t.Parallel()
	e := Exclusions{Now: []string{"public.a"}}
	if same, changed := e.Turn([]string{"public.a"}, 100, 50); changed || len(same.Before) != 0 {
		t.Errorf("the same patterns: %+v, %t", same, changed)
	}
	e, _ = e.Turn([]string{"public.b"}, 100, 50)
	e, _ = e.Turn([]string{}, 200, 50)
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var read Exclusions
	if err := json.Unmarshal(text, &read); err != nil || !reflect.DeepEqual(read, e) {
		t.Errorf("%+v, %v, want %+v", read, err, e)
	}
	for at, want := range map[wal.LSN]string{60: "public.a", 99: "public.a", 100: "public.b", 199: "public.b", 200: "", 900: ""} {
		got := ""
		if n, former := read.At(at); former {
			got = read.Before[n].Exclude[0]
		}
		if got != want {
			t.Errorf("at %d %q, want %q", at, got, want)
		}
	}
	if later, changed := e.Turn([]string{}, 300, 100); !changed || len(later.Before) != 1 || later.Before[0].To != 200 {
		t.Errorf("behind the first: %+v, %t", later, changed)
	}
	if len(e.Before) != 2 {
		t.Errorf("what Turn was asked of has changed: %+v", e)
	}
}
