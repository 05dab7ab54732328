package preflight

import "testing"

func TestDeafUntil(t *testing.T) {
	t.Parallel()
	for version, want := range map[int]int{140017: 18, 140018: 0, 150012: 13, 150018: 0, 160000: 9, 170004: 5, 170005: 0, 180000: 0, 190000: 0} {
		if got := deafUntil(version); got != want {
			t.Errorf("%d: %d, want %d", version, got, want)
		}
	}
}
