package sidecar

import (
	"maps"
	"testing"
)

// What the log had when a term began is added to what came since, however late it is counted, and no count falls.
func TestCounted(t *testing.T) {
	t.Parallel()
	s := &Sidecar{}
	s.conf.ByType = map[string]uint64{"insert_exists": 10, "update_deleted": 3}
	s.uncounted = counting{upTo: 15, before: maps.Clone(s.conf.ByType)}
	s.conf.ByType["insert_exists"] += 2 // while the log is counted
	s.conf.ByType["delete_missing"] += 1
	s.counted(s.uncounted, map[string]int64{"insert_exists": 12, "update_deleted": 1, "delete_missing": 4})
	want := map[string]uint64{"insert_exists": 14, "update_deleted": 3, "delete_missing": 5}
	if !maps.Equal(s.conf.ByType, want) || s.conf.Total != 22 {
		t.Errorf("counts %v, %d in all, want %v", s.conf.ByType, s.conf.Total, want)
	}
}
