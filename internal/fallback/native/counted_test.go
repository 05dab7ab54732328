package native

import (
	"reflect"
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict/audit"
)

func TestReported(t *testing.T) {
	t.Parallel()
	seen := func(since string, errors, missing int64) Seen {
		return Seen{Since: since, Counts: map[string]int64{"apply_error_count": errors, "sync_error_count": 0, "confl_update_missing": missing}}
	}
	counted := func(source, kind string, total, more int64) audit.Counted {
		return audit.Counted{Region: "us", Origin: "eu", Source: source, Type: kind, Total: total, More: more}
	}
	first := seen("1", 2, 0)
	for _, c := range []struct {
		name   string
		now    Seen
		before *Seen
		want   []audit.Counted
	}{
		{"nothing counted", seen("1", 0, 0), nil, nil},
		{"counted before the first look", first, nil, []audit.Counted{counted("1", "apply_error", 2, 0)}},
		{"no more", first, &first, nil},
		{"more of both", seen("1", 3, 5), &first, []audit.Counted{counted("1", "apply_error", 3, 1), counted("1", "update_missing", 5, 5)}},
		{"reset, or made anew", seen("2", 1, 0), &first, []audit.Counted{counted("2", "apply_error", 1, 1)}},
		{"PostgreSQL 14 counts nothing", Seen{}, nil, nil},
	} {
		if got := Reported("us", "eu", c.now, c.before); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
