package broker

import (
	"testing"
	"time"
)

func TestReachFollowsTheLink(t *testing.T) {
	t.Parallel()
	r := NewReach(1<<20, 16<<20)
	for range 6 {
		r.Took(3 * time.Millisecond)
	}
	if r.Bytes() != 16<<20 {
		t.Errorf("a fast link: %d bytes may be under way, want all", r.Bytes())
	}
	for range 20 {
		r.Took(4 * time.Second)
	}
	if r.Bytes() != MinReach {
		t.Errorf("a slow link: %d bytes may be under way, want %d", r.Bytes(), MinReach)
	}
	r.Took(500 * time.Millisecond)
	if r.Bytes() != MinReach {
		t.Errorf("a link of middling speed: %d bytes may be under way, want %d as before", r.Bytes(), MinReach)
	}
	if small := NewReach(1<<20, 1000); small.Bytes() != 1000 {
		t.Errorf("first more than most: %d bytes, want 1000", small.Bytes())
	}
}
