package sidecar

import "testing"

// TestSelfMergeLeavesRowsThatReference: where foreign keys are not checked for what is applied, a
// delete that the self-merge carries out takes no other row with it.
func TestSelfMergeLeavesRowsThatReference(t *testing.T) {
	t.Parallel()
	s := busy(t)
	for _, replica := range []bool{true, false} {
		s.caps.replica = replica
		if got := s.selfConfig().Ordinary != nil; got == replica {
			t.Errorf("replica role %t: cascades are done before: %t", replica, got)
		}
	}
}
